"""The commands: each module has `USAGE`, `define_flags` and `run`."""
