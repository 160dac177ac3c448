"""Metrics against scikit-learn and scipy, and what happens where a metric has no value."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import evaluate
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

import nlptrain.metrics
from nlptrain.errors import ConfigError
from nlptrain.metrics import functions, modules
from nlptrain.metrics.registry import METRICS, MetricSpec
from nlptrain.metrics.scores import Scores, score, selection_value

Array = NDArray[Any]
NMSE_FOLDER = str(Path(nlptrain.metrics.__file__).parent / "nmse")
REGRESSION = [name for name, spec in METRICS.items() if spec.kind == "regression"]
CLASSIFICATION = [name for name, spec in METRICS.items() if spec.kind == "classification"]
VECTORS = [*CLASSIFICATION, *REGRESSION]

ORACLES: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": lambda p, y: sklearn_metrics.accuracy_score(y, p),
    "f1": lambda p, y: sklearn_metrics.f1_score(y, p, pos_label=1),
    "f1_macro": lambda p, y: sklearn_metrics.f1_score(y, p, average="macro"),
    "precision_macro": lambda p, y: sklearn_metrics.precision_score(y, p, average="macro"),
    "recall_macro": lambda p, y: sklearn_metrics.recall_score(y, p, average="macro"),
    "balanced_accuracy": lambda p, y: sklearn_metrics.balanced_accuracy_score(y, p),
    "matthews_correlation": lambda p, y: sklearn_metrics.matthews_corrcoef(y, p),
    "pearson": lambda p, y: stats.pearsonr(p, y)[0],
    "spearman": lambda p, y: stats.spearmanr(p, y)[0],
    "mse": lambda p, y: float(np.mean((p - y) ** 2)),
    "rmse": lambda p, y: float(np.sqrt(np.mean((p - y) ** 2))),
    "mae": lambda p, y: float(np.mean(np.abs(p - y))),
    "nmse": lambda p, y: 1 - sklearn_metrics.r2_score(y, p),
    "r2": lambda p, y: sklearn_metrics.r2_score(y, p),
}


def _vectors(spec: MetricSpec, seed: int, rows: int = 101) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    if spec.kind == "regression":
        scores = rng.uniform(0, 5, rows)
        return scores + rng.normal(0, 1.5, rows), scores
    classes = 2 if spec.name == "f1" else 4
    references = rng.integers(0, classes, rows)
    return np.where(rng.random(rows) < 0.6, references, rng.integers(0, classes, rows)), references


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of our own in the place of the user's."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr("evaluate.loading.init_dynamic_modules.__defaults__", ("evaluate_modules", tmp_path / "m"))
    return tmp_path


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach the network: refused, and counted in case the refusal is swallowed."""
    attempts: list[str] = []

    def refuse(*args: object, **_: object) -> NoReturn:
        attempts.append(repr(args))
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", VECTORS)
def test_every_metric_equals_its_reference_implementation(name: str, seed: int) -> None:
    predictions, references = _vectors(METRICS[name], seed)
    found = score([name], predictions, references)
    assert found.values[name] == pytest.approx(ORACLES[name](predictions, references), rel=1e-12, abs=1e-12)
    assert found.undefined == {}


@pytest.mark.parametrize("name", VECTORS)
def test_order_of_rows_does_not_matter(name: str) -> None:
    predictions, references = _vectors(METRICS[name], seed=3)
    order = np.random.default_rng(0).permutation(len(references))
    shuffled = functions.compute(name, predictions[order], references[order])
    assert shuffled == pytest.approx(functions.compute(name, predictions, references), rel=1e-12)


@pytest.mark.parametrize("name", VECTORS)
def test_direction_prefers_exact_predictions_and_the_worst_value_loses_to_both(name: str) -> None:
    predictions, references = _vectors(METRICS[name], seed=4)
    sign = 1 if METRICS[name].greater_is_better else -1
    exact = sign * functions.compute(name, references, references)
    noisy = sign * functions.compute(name, predictions, references)
    assert exact > noisy > sign * METRICS[name].worst
    assert np.isfinite(METRICS[name].worst)


def test_nmse_of_the_mean_predictor_is_one() -> None:
    references = np.random.default_rng(5).uniform(0, 5, 50)
    predictions = np.full(50, references.mean())
    assert functions.nmse(predictions, references) == pytest.approx(1, rel=1e-12)


def test_scores_carry_sixty_four_bits() -> None:
    references = np.array([0.0, 1.0, 2.0, 3.0])
    found = score(["mse", "nmse"], references + 2.0**-40, references).values
    # Exact in binary; float32 would round every prediction above 0 to its reference.
    assert found == {"mse": 2.0**-80, "nmse": 2.0**-80 / 1.25}


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_constant_predictions_have_no_correlation_but_a_reason_and_a_value_for_selection(name: str) -> None:
    found = score([name, "mse"], np.full(4, 0.1), np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.values[name] is None
    assert found.undefined == {name: "constant predictions"}
    assert selection_value(METRICS[name], found) == -1
    assert (
        selection_value(METRICS["mse"], found)
        == found.values["mse"]
        == pytest.approx((0.9**2 + 1.9**2 + 2.9**2 + 3.9**2) / 4)
    )


@pytest.mark.parametrize("name", ["pearson", "spearman", "nmse", "r2"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_constant_references_are_named_as_the_reason(name: str, constant: float) -> None:
    found = score([name], np.arange(7.0), np.full(7, constant))
    assert found == Scores({name: None}, {name: "constant references"})


def test_rounding_noise_on_a_constant_is_still_a_constant() -> None:
    noise = 3 + np.array([0, 1, 0, 2, 0]) * np.spacing(3.0)
    assert score(["pearson"], np.arange(5.0), noise).undefined == {"pearson": "constant references"}


def test_one_class_only_has_matthews_correlation_zero() -> None:
    zeros, mixed = np.zeros(4, int), np.array([0, 1, 0, 1])
    for predictions, references in ((zeros, zeros), (zeros, mixed), (mixed, zeros)):
        assert score(["matthews_correlation"], predictions, references).values == {"matthews_correlation": 0.0}


@pytest.mark.parametrize(
    ("predictions", "references", "reason"),
    [
        ([0, 1, 2], [0, 1, 1], "f1 is for the ids 0 and 1, found 0, 1, 2: use f1_macro"),
        ([0, 1, 1], [0, 1, -1], "f1 is for the ids 0 and 1, found -1, 0, 1: use f1_macro"),
        ([0, 0], [0, 0], "neither predictions nor references hold class 1"),
    ],
)
def test_f1_is_undefined_without_its_two_classes(predictions: list[int], references: list[int], reason: str) -> None:
    assert score(["f1"], np.array(predictions), np.array(references)) == Scores({"f1": None}, {"f1": reason})


@pytest.mark.filterwarnings("error")
def test_a_class_that_only_the_model_predicts_counts_as_in_scikit_learn_without_a_warning() -> None:
    predictions, references = np.array([0, 2, 1, 1]), np.array([0, 0, 1, 1])
    assert functions.balanced_accuracy(predictions, references) == 0.75
    assert functions.f1_macro(predictions, references) == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize("name", VECTORS)
def test_no_rows_have_no_score(name: str) -> None:
    empty = np.array([], np.int64 if METRICS[name].kind == "classification" else np.float64)
    assert score([name], empty, empty) == Scores({name: None}, {name: "there are no rows"})


def test_one_row_has_no_correlation() -> None:
    found = score(["pearson", "spearman"], np.array([1.0]), np.array([2.0]))
    assert set(found.undefined.values()) == {"a correlation needs at least two rows, found 1"}


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_leaves_no_number(broken: float) -> None:
    found = score(REGRESSION, np.array([1.0, broken, 3.0]), np.array([1.0, 2.0, 3.0]))
    assert found.values == dict.fromkeys(REGRESSION)
    assert found.undefined == dict.fromkeys(REGRESSION, "1 of 3 predictions are not finite")


def test_an_error_beyond_the_largest_float_is_undefined_rather_than_infinite() -> None:
    found = score(["mse", "mae"], np.array([1e200, 0.0]), np.array([0.0, 1.0]))
    assert found.undefined == {"mse": "the value is too large for a 64-bit float"}
    assert found.values == {"mse": None, "mae": pytest.approx(5e199)}


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (4,), ()])
def test_shapes_that_would_broadcast_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    predictions, references = np.zeros(shape), np.arange(5.0)
    for call in (
        lambda: score(["mse"], predictions, references),
        lambda: functions.compute("mse", predictions, references),
    ):
        with pytest.raises(ValueError, match="shape") as caught:
            call()
        assert str(shape) in str(caught.value)
        assert "(5,)" in str(caught.value)


def test_probabilities_are_not_truncated_to_class_ids() -> None:
    with pytest.raises(ValueError, match="expected integer class ids, found an array of float64"):
        score(["accuracy"], np.array([0.2, 0.9]), np.array([0, 1]))


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown metric 'acuracy': choose one of accuracy, f1,"):
        score(["acuracy"], np.array([0]), np.array([0]))


@pytest.mark.parametrize("names", [REGRESSION, CLASSIFICATION, ["mse"], ["mse", "nmse", "mse"]])
def test_a_bundle_keeps_the_names_that_were_asked_for(names: list[str]) -> None:
    references = np.array([0, 1, 1, 0])
    assert list(score(names, np.array([0, 1, 0, 0]), references).values) == list(dict.fromkeys(names))


def test_combine_does_not_rename_metrics_of_one_base_class() -> None:
    bundle = evaluate.combine([modules.load(name) for name in REGRESSION])
    found = bundle.compute(predictions=[1.0, 2.0, 4.0], references=[1.0, 2.5, 3.0])
    assert list(found) == REGRESSION


def test_batches_that_are_added_one_by_one_give_the_metric_of_all_rows() -> None:
    predictions, references = _vectors(METRICS["nmse"], seed=6)
    metric = modules.load("nmse")
    for start in range(0, len(references), 8):
        rows = slice(start, start + 8)
        metric.add_batch(predictions=predictions[rows], references=references[rows])
    assert metric.compute() == {"nmse": functions.nmse(predictions, references)}


def test_the_nmse_folder_loads_on_its_own_without_network(cache: Path, connections: list[str]) -> None:
    predictions, references = _vectors(METRICS["nmse"], seed=7)
    found = evaluate.load(NMSE_FOLDER, cache_dir=str(cache)).compute(predictions=predictions, references=references)
    assert found == {"nmse": functions.nmse(predictions, references)}
    assert connections == []


def test_scoring_touches_neither_network_nor_disk(cache: Path, connections: list[str]) -> None:
    assert score(["mse"], np.array([1.0, 2.0]), np.array([1.0, 4.0])).values == {"mse": 2.0}
    assert list(cache.rglob("*")) == []
    assert connections == []


def test_scoring_leaves_the_random_numbers_of_training_alone() -> None:
    np.random.seed(11)
    expected = np.random.random(3)
    np.random.seed(11)
    score(REGRESSION, np.arange(4.0), np.array([1.0, 0.0, 2.0, 5.0]))
    assert np.random.random(3).tolist() == expected.tolist()


def test_the_registry_loads_without_the_libraries_of_the_maths() -> None:
    heavy = "{'numpy', 'scipy', 'sklearn', 'torch', 'evaluate', 'datasets', 'transformers'}"
    code = f"import sys, nlptrain.metrics.registry; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
