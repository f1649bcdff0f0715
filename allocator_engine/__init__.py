"""Thumbnails, text and token grids in, sizes on the grid out. Knows nothing of cameras or brokers."""
