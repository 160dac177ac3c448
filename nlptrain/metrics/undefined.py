"""What a metric says where it has no value."""


class Undefined(ValueError):  # noqa: N818  # a state of the metric, not a fault of the caller
    """The metric has no value on these rows; the message is the reason."""
