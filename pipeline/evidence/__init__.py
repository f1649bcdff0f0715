"""The evidence that events rest on: kept, explained, replayed."""
