"""Estimators: each turns a `Problem` into an `Estimate`; one line each in `registry`."""
