"""The embedded backend: any Qwen-VL checkpoint, run by transformers in this process."""
