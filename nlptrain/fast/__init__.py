"""A faster way through a BERT encoder on a CPU: the same weights, the same mathematics, fewer passes over memory."""

from nlptrain.fast.allocator import keep_memory
from nlptrain.fast.at_rest import weights_at_rest
from nlptrain.fast.encoder import kept_words, speed_up
from nlptrain.fast.products import remember_shapes

__all__ = ["keep_memory", "kept_words", "remember_shapes", "speed_up", "weights_at_rest"]
