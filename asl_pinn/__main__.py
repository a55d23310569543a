"""`python -m asl_pinn` is the command `asl-pinn`."""

from asl_pinn.workflow.cli import entry_point

if __name__ == "__main__":
    entry_point()
