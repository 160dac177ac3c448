"""What can compute the answers of a finished run."""

from typing import Literal

# torch: the model as it is; onnx_int8: a copy with 8-bit weights, see `nlptrain.fast.int8`
Backend = Literal["torch", "onnx_int8"]
