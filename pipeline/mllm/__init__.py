"""Backends of the frozen multimodal LLM."""
