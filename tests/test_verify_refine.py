"""`nlptrain verify refine` passes as things are, and fails where a solver is wrong."""

from collections.abc import Callable

import numpy as np
import pytest

from nlptrain.refine import derivatives
from nlptrain.verify import refine
from tests.command_line import Done


@pytest.mark.slow
def test_every_check_passes_and_a_failed_one_is_exit_code_1(
    nlptrain: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = nlptrain("verify", "refine")
    assert (done.code, "FAIL" in done.out) == (0, False), done.out
    assert done.out.count("PASS") > 40
    real = derivatives.hessian
    monkeypatch.setattr(derivatives, "hessian", lambda *words: real(*words) * 1.001)
    monkeypatch.setattr(refine, "_processes", lambda: iter(()))
    done = nlptrain("verify", "refine")
    assert done.code == 1
    assert sum(line.startswith("FAIL ") for line in done.out.splitlines()) == 1


def test_each_control_is_far_from_what_it_imitates() -> None:
    found = [one for part in (refine._hessian, refine._ridge, refine._temperature) for one in part()]
    controls = [one for one in found if one.name.startswith("control")]
    assert len(controls) == 3
    assert all(one.passed and one.value > 0.1 for one in controls)
    assert np.isfinite([one.value for one in found]).all()
