"""Training of the yard's MLLM from scratch, by a recipe that can be stopped and resumed at any moment."""
