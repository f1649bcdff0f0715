"""CAPO: the Allocator learns from a frozen MLLM's answers."""
