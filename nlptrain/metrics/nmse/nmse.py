"""Normalised mean squared error for `evaluate.load("<this folder>")`, without network; needs nlptrain installed."""

# The module and not its class: evaluate.load takes the first metric class it finds in this file.
from nlptrain.metrics import modules


class Nmse(modules.RegistryMetric):
    """SSE / SST around the mean of the references, that is 1 - R2; 1 for the mean predictor, 0 for exact ones."""

    metric = "nmse"
