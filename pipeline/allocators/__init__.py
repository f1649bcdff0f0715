"""Allocators: who decides how many pixels each frame of a hop deserves."""
