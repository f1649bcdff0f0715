"""A detector in the place of a multimodal LLM: it answers a closed vocabulary from the pixels that were allocated."""
