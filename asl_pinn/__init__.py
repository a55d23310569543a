"""Quantification of time-encoded arterial spin labelling: CBF and ATT maps from te-pCASL."""

__version__ = "0.1.0"
