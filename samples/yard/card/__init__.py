"""The card: how good the yard's MLLM is, measured through the product's own loop."""
