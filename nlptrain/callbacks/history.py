"""history.jsonl: every log entry as one line of strict JSON, which another program can follow while training runs."""

import json
import math
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nlptrain.results import write_text


class History(TrainerCallback):
    """Write the Trainer's log entries to `path` on the main process.

    A line is in the file whole as soon as it is logged. A resumed run first cuts the file back to the checkpoint's own
    log, so that steps after the checkpoint that were lost do not stay in it; a reader sees it shrink, and no half line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from what the checkpoint knows."""
        if not state.is_world_process_zero:
            return
        known = "".join(map(_line, state.log_history)).encode()
        if self.path.is_file() and self.path.read_bytes().startswith(known):
            os.truncate(self.path, len(known))
        else:
            write_text(self.path, known.decode())

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append the newest entry."""
        if state.is_world_process_zero:
            # unbuffered: a line reaches the file by one call
            with self.path.open("ab", buffering=0) as file:
                file.write(_line(state.log_history[-1]).encode())


def _line(entry: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
