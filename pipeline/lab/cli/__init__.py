"""The command line of resadapt-allocator: train, evaluate, export, compile, check, bench."""
