"""Standard errors of predictions: against the closed form of ridge, finite differences, simulation; in files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from nlptrain.data.load import load_splits
from nlptrain.pipeline import run
from nlptrain.refine import Head, posterior, refine
from nlptrain.uncertainty import class_errors
from tests.command_line import Done
from tests.noisy import configured

HOLD = ("refine.when=[]", "refine.held_out=0.3")


def linear(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(size=(rows, 3)) * [1, 5, 0.2]
    return x, x @ [1.0, -0.3, 2.0] + 4 + rng.normal(size=rows) * 0.5


def test_a_standard_error_is_that_of_ridge_in_closed_form() -> None:
    x, y = linear(np.random.default_rng(0), 60)
    head, l2 = Head(3, 1), 0.05
    found = posterior(refine(x, y, head, np.zeros(head.size), loss="mse", proximal=True, l2=l2), x, y)
    z = np.hstack([(x - x.mean(0)) / x.std(0), np.ones((60, 1))])
    # the objective is the squared error and half of n l2 times the squared distance: H = Z'Z + n l2 / 2
    h = np.linalg.inv(z.T @ z + 60 * l2 / 2 * np.eye(4))
    freedom = 60 - np.trace(h @ z.T @ z)
    noise = np.sum((found.refined.outputs(x)[:, 0] - y) ** 2) / freedom
    expected = np.sqrt(noise * np.einsum("mi,ij,mj->m", z, h, z))
    np.testing.assert_allclose(np.sqrt(found.variance(x)[:, 0, 0]), expected, rtol=1e-8)


def test_intervals_hold_as_many_new_scores_as_they_say() -> None:
    inside = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        (x, y), (new, scores) = linear(rng, 30), linear(rng, 50)
        head = Head(3, 1)
        lower, upper = posterior(
            refine(x, y, head, np.zeros(head.size), loss="mse", proximal=True, l2=1e-4), x, y
        ).interval(new, 0.95)
        inside.append(np.mean((lower[:, 0] <= scores) & (scores <= upper[:, 0])))
    # 200 independent fits
    assert np.mean(inside) == pytest.approx(0.95, abs=4 * np.std(inside) / np.sqrt(200))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_error_of_a_probability_is_carried_over_from_the_logits(classes: int) -> None:
    rng = np.random.default_rng(classes)
    raw, spread, temperature, step = rng.normal(size=(5, classes)), rng.normal(size=(classes, classes)), 2.5, 1e-6
    covariance = spread @ spread.T
    found = class_errors(raw / temperature, np.repeat(covariance[None], 5, axis=0), temperature)
    for row, error in zip(raw, found, strict=True):
        best = row.argmax()
        ends = (softmax((row + sign * step * np.eye(classes)) / temperature, axis=1)[:, best] for sign in (1, -1))
        gradient = np.subtract(*ends) / (2 * step)
        assert error == pytest.approx(np.sqrt(gradient @ covariance @ gradient), rel=1e-6)


def test_a_score_has_an_interval_around_it(tmp_path: Path, nlptrain: Callable[..., Done]) -> None:
    config = configured(tmp_path, *HOLD, regression=True)
    run(config)
    output = tmp_path / "out.jsonl"
    done = nlptrain(
        "predict", tmp_path / "run", "--data", tmp_path / "test.csv", "--output", output, "--uncertainty", "--json"
    )
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [*rows[0]][-5:] == ["score", "standard_error", "lower", "upper", "flag"]
    for row in rows:
        assert (row["lower"] + row["upper"]) / 2 == pytest.approx(row["score"])
        assert row["upper"] - row["score"] > 1.9 * row["standard_error"] > 0
    # the share that is reported is the one that is counted from the same command's file for the validation rows
    validation = load_splits(config.spec, config.data, seed=42, refine=config.refine).rows["validation"]
    with (tmp_path / "validation.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("left", "right"), *zip(validation["left"][:], validation["right"][:], strict=True)])
    again = nlptrain(
        *("predict", tmp_path / "run", "--data", tmp_path / "validation.csv", "--output", output, "--uncertainty")
    )
    kept = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    inside = [row["lower"] <= y <= row["upper"] for row, y in zip(kept, validation["label"][:], strict=True)]
    interval = json.loads(done.out)["interval"]
    assert (interval["coverage"], interval["rows"]) == (np.mean(inside), len(inside))
    assert f"{np.mean(inside):.1%} of {len(inside)} validation rows" in again.out


@pytest.mark.parametrize("settings", [{"architecture": "stock"}, {"architecture": "cross_encoder"}])
def test_a_class_has_a_standard_error(tmp_path: Path, nlptrain: Callable[..., Done], settings: dict[str, str]) -> None:
    run(configured(tmp_path, *HOLD, **settings))
    files = [tmp_path / "plain.jsonl", tmp_path / "more.jsonl"]
    for output, more in zip(files, ([], ["--uncertainty"]), strict=True):
        done = nlptrain("predict", tmp_path / "run", "--data", tmp_path / "test.csv", "--output", output, *more)
        assert done.code == 0, done.err
    plain, rows = ([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files)
    errors = np.array([row["standard_error"] for row in rows])
    assert (np.isfinite(errors) & (errors > 0)).all()
    # the predictions stay as they are
    assert [{k: v for k, v in row.items() if k != "standard_error"} for row in rows] == plain


def test_a_run_that_held_no_rows_out_is_refused(tmp_path: Path, nlptrain: Callable[..., Done]) -> None:
    run(configured(tmp_path))
    done = nlptrain(
        *("predict", tmp_path / "run", "--data", tmp_path / "test.csv", "--output", tmp_path / "o.csv", "--uncertainty")
    )
    assert done.code == 2
    assert "held no rows out" in done.err
    assert not (tmp_path / "o.csv").exists()
