"""Where a run can report to by `training.report_to`: the library's integrations, known without importing it."""

from difflib import get_close_matches
from typing import Any

# name to the packages that serve it, any one of which does; installed or not is asked when a run begins, since a run
# that was trained elsewhere is read without them
REPORTERS: dict[str, tuple[str, ...]] = {
    "azure_ml": ("azureml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
NONE, ALL = "none", "all"


def names(value: Any) -> list[str]:
    """The integrations that a value of ``training.report_to`` names; `ALL` stands for whatever is installed."""
    given = value if isinstance(value, list) else [value]
    return [name for name in given if name not in (NONE, None)]


def problem(value: Any) -> str | None:
    """What is wrong with a value of ``training.report_to``, or None."""
    for name in names(value):
        if name not in REPORTERS and name != ALL:
            near = get_close_matches(str(name), REPORTERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"expected {NONE}, {ALL} or names of {', '.join(REPORTERS)}{hint}"
    return None


def asked_for(value: Any, found: list[str]) -> list[str]:
    """What of `found` is asked for: the library adds kubeflow wherever a variable of its is set."""
    given = names(value)
    return [name for name in found if name in given or ALL in given]
