"""Configuration: the site file, and what is wrong with one."""
