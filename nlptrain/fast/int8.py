"""A model with 8-bit weights, run by ONNX Runtime on CPUs: faster, and not quite the same.

torch's exporter writes the float32 graph, `onnxruntime.quantization.quantize_dynamic` makes signed integers of its
weights, each channel with a scale of its own and in 7 bits, since 8 overflow the 16-bit sums of CPUs without VNNI
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html). Activations become 8-bit integers as
they come, with one scale for a whole batch, so that an answer depends a little on what stands beside it.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from nlptrain.errors import ConfigError, ModelError
from nlptrain.tasks import KINDS, Kind

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxModel(nn.Module):
    """Answers a batch as the model does that was exported.

    Args:
        config: of that model.
        file: its graph.
    """

    device = torch.device("cpu")

    def __init__(self, config: Any, file: Path) -> None:
        import onnxruntime

        super().__init__()
        self.config = config
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        # the exporter leaves out what the model does not read
        self._reads = {one.name for one in self._session.get_inputs()}

    def forward(self, **batch: Tensor) -> SequenceClassifierOutput:
        """Logits (B, classes), or scores (B, 1), of tokens (B, T)."""
        found = self._session.run(None, {name: x.numpy() for name, x in batch.items() if name in self._reads})
        return SequenceClassifierOutput(logits=torch.from_numpy(found[0]))


class _Logits(nn.Module):
    """The logits alone, of arguments in the order of `names`."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *batch: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, batch, strict=True))).logits
        return logits


def check(kind: Kind) -> None:
    """Raise `ConfigError` for tasks that have no such path, and where its packages are not installed."""
    if KINDS[kind].by_token:
        raise ConfigError("BACKEND", f"--backend onnx_int8: answers for whole rows, found a {kind}; use torch")
    try:
        for package in _PACKAGES:
            import_module(package)
    except ModuleNotFoundError as error:
        remedy = f"pip install nlptrain[onnx], found no {error.name}"
        raise ConfigError("BACKEND", f"--backend onnx_int8: needs packages that are not installed: {remedy}") from error


def quantized(model: PreTrainedModel, names: Sequence[str]) -> OnnxModel:
    """`model` with 8-bit weights; nothing of it stays on disk.

    Args:
        model: of whole rows, on the CPU, in evaluation mode, without the pass of `speed_up`.
        names: of the arguments that it is called with, each (B, T).

    Raises:
        ModelError: it cannot be exported.
    """
    from onnxruntime.quantization import quantize_dynamic

    with TemporaryDirectory(prefix="nlptrain-") as folder, _quiet():
        exact, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        export(model, names, exact)
        quantize_dynamic(exact, small, per_channel=True, reduce_range=True)
        return OnnxModel(model.config, small)


def export(model: PreTrainedModel, names: Sequence[str], file: Path) -> None:
    """Write the graph of `model`, in float32, for any number of rows and tokens; arguments as in `quantized`."""
    if getattr(model.config, "architecture", None) == "bi_encoder":
        raise _refused("a bi_encoder takes pairs apart by what is in them, which a graph cannot")
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes: Any = (tuple(any_size for _ in names),)
    settings: Any = {"input_names": list(names), "dynamic_shapes": shapes, "dynamo": True, "verbose": False}
    try:
        program = torch.onnx.export(_Logits(model, names).eval(), example, **settings)
    except OnnxExporterError as error:
        raise _refused(f"the exporter cannot follow a {type(model).__name__}") from error
    if program is not None:
        program.save(file)


def _refused(why: str) -> ModelError:
    return ModelError("BACKEND", f"--backend onnx_int8: the model cannot be exported to ONNX: {why}; use torch")


def cost(kind: Kind, found: NDArray[Any], exact: NDArray[Any]) -> dict[str, float]:
    """How far answers (n, classes), or scores (n, 1), are from the exact ones for the same rows.

    Returns:
        Of classes ``labels_changed``, a share of the rows, and ``largest_probability_difference``; of scores
        ``largest_difference`` and ``mean_difference``, in their unit.
    """
    if not KINDS[kind].names_classes:
        apart = np.abs(found - exact)
        return {"largest_difference": float(apart.max()), "mean_difference": float(apart.mean())}
    changed = (found.argmax(axis=1) != exact.argmax(axis=1)).mean()
    apart = np.abs(softmax(found, axis=1) - softmax(exact, axis=1)).max()
    return {"labels_changed": float(changed), "largest_probability_difference": float(apart)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporter and quantizer say to developers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # a graph that cannot be exported is printed whole
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)
