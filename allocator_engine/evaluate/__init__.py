"""Evaluation of allocators: tasks, baselines, and the frontier of accuracy over equal realised tokens."""
