"""Sources: code that yields the frames of a stream."""
