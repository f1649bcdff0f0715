"""Standing questions on live camera streams, answered by a frozen multimodal LLM under a token budget."""
