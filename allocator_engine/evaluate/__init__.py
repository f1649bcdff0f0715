"""How good an allocator is: tasks, baselines, and the frontier of accuracy over equal realised tokens."""
