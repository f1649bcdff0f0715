"""How the yard's MLLM is trained, from nothing, by a recipe that can be stopped and resumed at any moment."""
