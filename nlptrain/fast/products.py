"""Products of matrices in float32 by oneDNN: torch takes MKL, which is half as fast on processors not made by Intel."""

import os

import torch
from torch import Tensor
from torch.backends import mkldnn

ONEDNN: bool = mkldnn.is_available()  # type: ignore[no-untyped-call]


def remember_shapes(*, bf16: bool) -> None:
    """Keep what oneDNN prepares for a product of one shape, some .5 MB, for the last shapes only.

    Two caches of 1024 are the default. A length of 32 texts asks for 25 of them in bfloat16, so that 512 hold some 20
    lengths; in float32 a product takes so much longer than its preparation that 64 in all do. The first call of a
    process decides, if it comes before oneDNN's first product; what the environment says stands.
    """
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "512" if bf16 else "64")


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight^T + bias`` (n, O) of `x` (n, I), `weight` (O, I) and `bias` (O,), all of one dtype."""
    if x.dtype == torch.float32 and ONEDNN:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(x), _dense(weight), bias, "none", [], "none")
        return found
    return x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())


def _dense(x: Tensor) -> Tensor:
    """A matrix or the transpose of one: of rows with gaps oneDNN makes a product a hundred times slower."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()
