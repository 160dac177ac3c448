"""A faster way through a BERT encoder on a CPU: the same weights, the same mathematics, fewer passes over memory."""

from nlptrain.fast.allocator import keep_memory
from nlptrain.fast.encoder import speed_up

__all__ = ["keep_memory", "speed_up"]
