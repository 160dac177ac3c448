"""Normalised mean squared error as a folder for `evaluate.load`."""
