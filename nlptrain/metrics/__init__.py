"""Metrics: what exists (`registry`), the maths (`functions`), the `evaluate` classes (`modules`) and `scores`.

Nothing is imported here, so that the configuration can read the registry without loading scikit-learn.
"""
