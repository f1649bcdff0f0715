"""The web page of a service: its display in a browser."""
