"""The backend for OpenAI-compatible servers."""
