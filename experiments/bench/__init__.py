"""The rows of `experiments/benchmark.py`, one kind of work a file."""
