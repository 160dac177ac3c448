"""A run that is interrupted within an epoch, at the end of one, and continued equals one that is not, bit for bit."""

import json

from nlptrain import checkpoints
from nlptrain.config.schema import Config
from nlptrain.run_folder import RunFolder
from nlptrain.verify import states
from nlptrain.verify.check import Check
from nlptrain.verify.children import Job, run
from nlptrain.verify.small import EPOCHS, small

TERMINATED = 143


def checks(config: Config) -> list[Check]:
    """Train once without and once with two interruptions by SIGTERM, each continued in a fresh process."""
    with small(config) as case:
        path, whole = case.variant("whole")
        run(Job(str(path)).words)
        steps = _steps(whole) // EPOCHS
        path, stopped = case.variant("stopped")
        # the first of them within the first epoch, unless that has one step
        stops = sorted({max(1, steps // 2), steps})
        for number, step in enumerate(stops):
            run(Job(str(path), resume=number > 0, stop_at=step).words, expected=TERMINATED)
        run(Job(str(path), resume=True).words)
        return [
            Check("interruptions", len(stops), "at least 1", bool(stops)),
            *states.checks(whole, stopped),
        ]


def _steps(run: RunFolder) -> int:
    last = checkpoints.steps(run.checkpoints)[-1]
    found: int = json.loads((last / "trainer_state.json").read_text("utf-8"))["max_steps"]
    return found
