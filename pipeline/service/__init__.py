"""The running service: streams attached, supervised, reconciled with the configuration, and drained."""
