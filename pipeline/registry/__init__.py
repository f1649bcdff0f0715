"""The registry: what is wanted. Streams, watches and sinks with revisions and history, and the keys of the API."""
