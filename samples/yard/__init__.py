"""The yard: a demo world with known truth, and the small frozen MLLM that was trained on it."""
