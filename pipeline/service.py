"""Running streams match the configuration: attach, restart, drain."""
