"""Training rows ranked by their left-out loss: against scikit-learn fitted without each row, and on planted errors."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from nlptrain.data.load import load_splits
from nlptrain.pipeline import run
from tests.command_line import Done, sentences, write_csv
from tests.noisy import configured
from tests.test_refinement import answers


def test_wrong_labels_are_found_first(tmp_path: Path, nlptrain: Callable[..., Done]) -> None:
    configured(tmp_path)
    rows = sentences(240, 0)
    wrong = set(np.random.default_rng(3).choice(240, 12, replace=False).tolist())
    turned = {"positive": "negative", "negative": "positive"}
    rows = [(text, turned[label] if n in wrong else label) for n, (text, label) in enumerate(rows)]
    rows[min(wrong)] = ("=" + rows[min(wrong)][0], rows[min(wrong)][1])
    config = configured(tmp_path)
    write_csv(tmp_path / "train.csv", rows)
    run(config)
    done = nlptrain("suspects", tmp_path / "run", "--output", tmp_path / "out.jsonl", "--json")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (json.loads(done.out)["rows"], len(found)) == (216, 22)
    train = {n for n in wrong if n + 2 in load_splits(config.spec, config.data, seed=42).rows["train"]["line"][:]}
    assert len(train & {row["line"] - 2 for row in found}) >= len(train) / 2
    assert [row["rank"] for row in found] == list(range(1, 23))
    losses = [row["loss"] for row in found]
    assert losses == sorted(losses, reverse=True)
    # the cells of a table run nothing
    assert nlptrain("suspects", tmp_path / "run", "--output", tmp_path / "out.csv", "--share", 1).code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 216
    assert all(not row["text"].startswith("=") for row in cells)


def test_the_loss_of_a_score_is_that_of_the_ridge_fitted_without_it(
    tmp_path: Path, nlptrain: Callable[..., Done]
) -> None:
    config = configured(tmp_path, regression=True, rows=60)
    run(config)
    done = nlptrain("suspects", tmp_path / "run", "--output", tmp_path / "out.jsonl", "--share", 1, "--json")
    l2 = json.loads(done.out)["l2"]
    found = {row["line"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    train = load_splits(config.spec, config.data, seed=42).rows["train"]
    _, x = answers(tmp_path, train, ["left", "right"])
    x, y = StandardScaler().fit_transform(x), np.asarray(train["label"][:])
    for number in range(0, len(y), 9):
        others = np.arange(len(y)) != number
        fitted = Ridge(alpha=len(y) * l2 / 2, tol=1e-12).fit(x[others], y[others])
        loss = (fitted.predict(x[number][None])[0] - y[number]) ** 2 / y.var()
        assert found[train["line"][number]]["loss"] == pytest.approx(loss, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize(("share", "problem"), [("0", "above 0 and at most 1"), ("1.5", "above 0 and at most 1")])
def test_a_share_out_of_range_is_refused(
    tmp_path: Path, nlptrain: Callable[..., Done], share: str, problem: str
) -> None:
    done = nlptrain("suspects", tmp_path, "--output", tmp_path / "o.csv", "--share", share)
    assert done.code == 2
    assert problem in done.err
