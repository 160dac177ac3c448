"""The run folder: the one place a run writes to, and the contract between the commands."""

from dataclasses import dataclass
from pathlib import Path

from nlptrain.errors import ConfigError, ModelError


@dataclass(frozen=True)
class RunFolder:
    """Names inside a run folder.

    ``config.yaml`` (resolved), ``results.json``, ``predictions/`` (a file per scored split), ``history.jsonl`` (one
    line per log), ``model/`` (what `from_pretrained` loads), ``checkpoints/`` (what ``--resume`` needs),
    ``refine/`` (the head before its refinement, and features of the encoder, which can be deleted).
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; its presence makes a folder a run folder."""
        return self.path / "config.yaml"

    @property
    def results(self) -> Path:
        """Scores and facts, strict JSON."""
        return self.path / "results.json"

    def predictions(self, split: str) -> Path:
        """What the chosen model answered for every row of a scored split, one line each."""
        return self.path / "predictions" / f"{split}.jsonl"

    @property
    def history(self) -> Path:
        """Losses, rates and evaluations as they happened."""
        return self.path / "history.jsonl"

    @property
    def logs(self) -> Path:
        """TensorBoard's files, where it is asked for."""
        return self.path / "logs"

    @property
    def status(self) -> Path:
        """What became of the run."""
        return self.path / "run_status.json"

    @property
    def model(self) -> Path:
        """Weights, configuration and tokenizer of the chosen model."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Everything that is needed to go on."""
        return self.path / "checkpoints"

    @property
    def fine_tuned_head(self) -> Path:
        """The weights of the head as fine-tuning left them."""
        return self.path / "refine" / "fine_tuned_head.safetensors"

    @property
    def first_head(self) -> Path:
        """What is known of the head that was fitted before fine-tuning."""
        return self.path / "refine" / "before.json"

    def fine_tuned_predictions(self, split: str) -> Path:
        """As `predictions`, of the model as fine-tuning left it."""
        return self.path / "refine" / "predictions" / f"{split}.jsonl"

    def features(self, rows: str, process: int, processes: int) -> Path:
        """What the head gets of some rows, as one process computed it."""
        return self.path / "refine" / "features" / f"{rows}.{process}of{processes}.safetensors"

    def owns(self, file: Path) -> bool:
        """Whether a file is, or would be, one that the run wrote: of a known name, or anything in a folder of it."""
        place, root = file.resolve(), self.path.resolve()
        known = {path.name for path in (self.config, self.results, self.history, self.status)}
        return place.is_relative_to(root) and (place.parent != root or place.name in known)

    def check_free(self, *, resume: bool) -> None:
        """Refuse a folder that is not ours, holds another run, or cannot be written; nothing is created.

        Raises:
            ConfigError: with what to do instead.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError("RUN_FOLDER", f"training.output_dir: {self.path} is a file; name a folder")
        if resume:
            self.check_run()
        elif self.path.is_dir() and any(self.path.iterdir()):
            what = "holds a run: continue it with --resume" if self.config.is_file() else "is not empty"
            raise ConfigError("RUN_FOLDER", f"training.output_dir: {self.path} {what}, or name another folder")

    def check_run(self) -> None:
        """Raise `ModelError` unless this is a run folder."""
        if not self.config.is_file():
            raise ModelError(
                "RUN", f"{self.path}: expected a run folder with config.yaml, as `nlptrain train` writes it"
            )

    def check_finished(self) -> None:
        """Raise `ModelError` unless there is a model to evaluate or predict with."""
        self.check_run()
        if not (self.model / "config.json").is_file():
            raise ModelError("RUN", f"{self.path}: no model/ yet; finish the run with `nlptrain train ... --resume`")

    def write_config(self, text: str) -> None:
        """Write the resolved configuration, whole or not at all."""
        partial = self.config.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.config)

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: the place cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "RUN_FOLDER", f"training.output_dir: cannot create {self.path}: {error.strerror}"
            ) from None
