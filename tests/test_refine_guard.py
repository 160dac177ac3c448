"""The guard accepts what is no worse, rejects what is, and decides on rows used for nothing else."""

import json

import numpy as np
import pytest

from nlptrain.refine import Decision, Head, accept, refine


def decide(before: np.ndarray, after: np.ndarray, targets: np.ndarray, metric: str = "accuracy", **other) -> Decision:  # noqa: ANN003
    settings = {"guard_ids": range(len(targets)), "used_ids": range(1000, 2000), **other}
    return accept(before, after, targets, metric, **settings)


def logits(*of_class_one: float) -> np.ndarray:
    return np.array([[0.0, value] for value in of_class_one])


TARGETS = np.array([1, 1, 0, 0])
GOOD = logits(1, 1, -1, 1)  # three of four


@pytest.mark.parametrize(
    ("after", "accepted", "why"),
    [
        (GOOD, True, "neither accuracy nor nll is worse on 4 rows"),
        (logits(2, 2, -2, 1), True, "neither"),
        (logits(1, -1, -1, 1), False, "accuracy is worse: 0.5 after 0.75"),
        (logits(1, 1, -1, 9), False, "nll is worse"),
        (logits(9, 1, -1, -1), True, "neither"),
    ],
)
def test_neither_the_metric_nor_the_loss_may_get_worse(after: np.ndarray, accepted: bool, why: str) -> None:
    found = decide(GOOD, after, TARGETS)
    assert found.accepted == accepted
    assert found.why.startswith(why)
    assert json.loads(json.dumps(found.as_dict()))["rows"] == 4


def test_the_tolerance_is_on_the_metric_alone() -> None:
    after = logits(3, -0.1, -3, 1)  # one more is wrong, and the likelihood is better
    assert not decide(GOOD, after, TARGETS).accepted
    assert not decide(GOOD, after, TARGETS, tolerance=0.2).accepted
    assert decide(GOOD, after, TARGETS, tolerance=0.25).accepted


def test_a_regression_is_judged_by_its_metric_in_its_direction_and_by_mse() -> None:
    y = np.array([0.0, 1.0, 2.0, 3.0])
    near, far = y[:, None] + 0.1 * np.array([[1], [-1], [1], [-1]]), y[:, None] + 0.2
    assert decide(far, near, y, "nmse").accepted
    assert decide(near, far, y, "nmse").why.startswith("nmse is worse")
    # the order is right in both, so only the error tells
    assert decide(near, 5 * far, y, "spearman").why.startswith("mse is worse")


def test_a_metric_that_is_undefined_is_no_reason_to_accept() -> None:
    y = np.array([0.0, 1.0, 2.0])
    found = decide(y[:, None], np.ones((3, 1)), y, "spearman")
    assert (found.accepted, found.after) == (False, None)
    assert "undefined" in found.why


def test_rows_that_were_used_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found 2 that are, e.g. 2; hold out rows"):
        decide(GOOD, GOOD, TARGETS, used_ids={2, 3, 77})
    with pytest.raises(ValueError, match="each of the 4 rows once, found 3"):
        decide(GOOD, GOOD, TARGETS, guard_ids=[0, 1, 2, 2])


@pytest.mark.parametrize("metric", ["accuracy", "nmse"])
def test_what_is_not_finite_is_never_accepted(metric: str) -> None:
    with pytest.raises(ValueError, match="finite outputs of the head after"):
        decide(GOOD, GOOD * [1, np.nan], TARGETS * 1.0 if metric == "nmse" else TARGETS, metric)


@pytest.mark.parametrize("change", [{"after": GOOD[:2]}, {"metric": "accurcy"}, {"tolerance": -1.0}])
def test_wrong_arguments_are_refused(change: dict[str, object]) -> None:
    words = {"before": GOOD, "after": GOOD, "targets": TARGETS, "metric": "accuracy", **change}
    with pytest.raises(ValueError, match="expected"):
        decide(**words)


def overfitted(seed: int, l2: float, *, proximal: bool) -> Decision:
    """A good head, refined on few rows of which the training has made the features separable."""
    rng = np.random.default_rng(seed)
    direction = np.zeros(40)
    direction[0] = 2.0
    y = rng.integers(0, 2, 440)
    x = rng.normal(size=(440, 40)) + np.outer(y - 0.5, direction)
    used, guard = slice(0, 40), slice(40, 440)
    head = Head(40, 2)
    before = head.pack({"weight": np.stack([-direction, direction]) / 2, "bias": np.zeros(2)})
    found = refine(x[used], y[used], head, before, loss="cross_entropy", proximal=proximal, l2=l2)
    return decide(
        head(before, x[guard]), found.outputs(x[guard]), y[guard], guard_ids=range(40, 440), used_ids=range(40)
    )


def test_a_planted_bad_refit_is_rejected_every_time() -> None:
    decisions = [overfitted(seed, 1e-6, proximal=False) for seed in range(20)]
    assert not any(decision.accepted for decision in decisions)
    assert all(decision.loss_after > 2 * decision.loss_before for decision in decisions)


def test_what_is_accepted_is_no_worse() -> None:
    decisions = [overfitted(seed, 1.0, proximal=True) for seed in range(20)]
    accepted = [decision for decision in decisions if decision.accepted]
    assert all(d.after >= d.before and d.loss_after <= d.loss_before for d in accepted)
    assert 0 < len(accepted) < 20
