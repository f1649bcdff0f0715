"""The vLLM backend: an engine in a process of its own, supervised."""
