"""The head of a finished run: where it is, what it gets of rows, and how another takes its place on disk."""

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nlptrain import processes
from nlptrain.data.fingerprint import fingerprint
from nlptrain.errors import ModelError
from nlptrain.head import calibration
from nlptrain.head.cache import cached
from nlptrain.head.features import compute, inputs
from nlptrain.head.features import fingerprint as features_fingerprint
from nlptrain.head.place import HeadPlace, Part, find
from nlptrain.head.refit import Rows, Serving
from nlptrain.inference import OpenRun
from nlptrain.refine.reduction import ranks
from nlptrain.run_folder import RunFolder

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RunHead:
    """The head of a finished run, and what it gets of rows.

    Args:
        folder: of the run.
        opened: the run; its model is changed in memory.
        part: which of it, see `find`.
    """

    folder: RunFolder
    opened: OpenRun
    part: Part = "head"

    @property
    def model(self) -> Any:
        """In evaluation mode."""
        return self.opened.trainer.model

    @cached_property
    def place(self) -> HeadPlace:
        """Where the head is.

        Raises:
            ModelError: it cannot be refined.
        """
        tokenizer = self.opened.tokenizer
        texts = ["a"] * (2 if self.opened.task.is_pair else 1)
        row = inputs(self.model, tokenizer(*texts))
        try:
            batch = self.opened.trainer.data_collator([row])
            device = self.opened.trainer.args.device
            self.model.to(device)
            return find(self.model, {name: values.to(device) for name, values in batch.items()}, self.part)
        except ValueError as error:
            raise ModelError("REFINE", f"{self.folder.model}: {error}") from error

    @property
    def serving(self) -> Serving:
        """From the head's outputs to the model's answers."""
        return Serving.of(self.model)

    def restore(self) -> bool:
        """Put the head as fine-tuning left it into the model; whether an earlier refinement had replaced it."""
        head = kept(self)
        if head is not None:
            # it may be of another part than the one to be refined now
            place = self.place if head.keys() == self.place.head.shapes().keys() else self._other.place
            place.write(packed(self, place, head))
            calibration.serve_at(self.model, place, 1.0)
        return head is not None

    @property
    def _other(self) -> "RunHead":
        return RunHead(self.folder, self.opened, "head" if self.part == "embedding" else "embedding")

    def rows(self, name: str, texts: Dataset, source: str = "train") -> Rows:
        """Features, targets and names of labelled rows; called by all processes.

        Args:
            name: under which the features are kept.
            texts: as `nlptrain.data.load.Splits.rows` has them.
            source: tells rows of the same line in different sources apart.
        """
        encoded, trainer = self.opened.encode(texts), self.opened.trainer
        size = trainer.args.per_device_eval_batch_size
        rank, world = ranks()
        features = cached(
            self.folder.features(name, rank, world),
            features_fingerprint(self.model, self.place, fingerprint(encoded), size),
            lambda: compute(self.model, self.place, encoded, trainer.data_collator, size),
        )
        return Rows(features, np.asarray(texts["label"][:]), row_names(texts, source))


def row_names(rows: Dataset, source: str = "train") -> list[str]:
    """A name for each row: its source, and where it stands there."""
    return [f"{source}:{line}" for line in rows["line"][:]]


def keep(run: RunHead, vector: Array) -> None:
    """Write the head as fine-tuning left it, by the names of `Head.shapes`."""
    path = run.folder.fine_tuned_head
    if processes.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file({name: np.ascontiguousarray(part) for name, part in run.place.head.unpack(vector).items()}, partial)
        os.replace(partial, path)


def kept(run: RunHead) -> dict[str, Array] | None:
    """The arrays of the head as fine-tuning left it, where a refinement has replaced it.

    Raises:
        ModelError: the file is damaged.
    """
    path = run.folder.fine_tuned_head
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _foreign(run, error) from error


def packed(run: RunHead, place: HeadPlace, arrays: dict[str, Array]) -> Array:
    """(P,) of `kept` arrays.

    Raises:
        ModelError: they are of another head.
    """
    try:
        return place.head.pack(arrays)
    except ValueError as error:
        raise _foreign(run, error) from error


def _foreign(run: RunHead, error: Exception) -> ModelError:
    path = run.folder.fine_tuned_head
    return ModelError("REFINE", f"{path}: not the head of this run: {error}; remove it or train again")


def replace_model(run: RunHead) -> None:
    """Save the model in place of the run's, its tokenizer left as it is: each file whole, the weights first."""
    processes.wait_for_all()
    if processes.is_main():
        partial = run.folder.model.with_name(".model.partial")
        run.model.save_pretrained(partial)
        for path in sorted(partial.iterdir(), key=lambda path: path.suffix != ".safetensors"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, run.folder.model / path.name)
        shutil.rmtree(partial)
    processes.wait_for_all()
