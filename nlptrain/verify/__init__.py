"""Proofs of the program's promises on the user's own machine, model and data, within minutes.

`VERIFICATIONS` is their table: a name, and the module whose ``checks(config)`` does it. A verification trains on a few
of the rows for a few steps (`nlptrain.verify.small`), in processes and a folder of its own, of which nothing is left.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlptrain.config.schema import Config

# imported when they are asked for: the names alone are wanted by the command line
VERIFICATIONS: Mapping[str, str] = {
    "resume": "nlptrain.verify.resume",
    "ddp": "nlptrain.verify.ddp",
    "offline": "nlptrain.verify.offline",
    "determinism": "nlptrain.verify.determinism",
    "refine": "nlptrain.verify.refine",
}
# what they compare is made by themselves
WITHOUT_CONFIG = {"refine"}


def verify(name: str, config: "Config | None" = None) -> dict[str, Any]:
    """Do one verification.

    Args:
        name: a key of `VERIFICATIONS`.
        config: what is trained; not used by those `WITHOUT_CONFIG`.

    Returns:
        JSON-ready: ``verification``, ``passed``, ``checks``: the fields of `nlptrain.verify.check.Check` of each.

    Raises:
        ConfigError: there is no such verification, or nothing that it could compare.
        NlptrainError: training itself fails.
    """
    from nlptrain.verify.check import document, known

    checks = import_module(VERIFICATIONS[known(name, VERIFICATIONS)]).checks(config)
    return document(name, checks)
