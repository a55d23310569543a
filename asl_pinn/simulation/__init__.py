"""Phantoms, simulated acquisitions, and the errors that real data have."""
