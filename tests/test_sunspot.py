"""The sunspot comparison: nothing of the held-out years leaks, its gradient descent descends, its picture is one."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import sunspot
from sunspot_picture import HEIGHT, WIDTH, Axis, picture

from nlptrain.refine import Head, refine
from nlptrain.refine.fit import over, prepare
from nlptrain.refine.objective import Limits

HELD_OUT = 1790


def written(folder: Path, numbers: np.ndarray, first: int = 1700) -> Path:
    file = folder / "numbers.dat"
    file.write_text("\n".join(f"{first + at}\t{number:.3f}" for at, number in enumerate(numbers)))
    return file


def wave(years: int = 120) -> np.ndarray:
    at = np.arange(years)
    return 50 + 40 * np.sin(2 * np.pi * at / 11) + np.random.default_rng(0).normal(size=years)


@pytest.mark.parametrize("name", list(sunspot.METHODS))
def test_held_out_years_change_neither_the_fit_nor_the_scale(name: str, tmp_path: Path) -> None:
    numbers = wave()
    changed = numbers.copy()
    changed[HELD_OUT - 1700 :] *= 3
    one, other = (sunspot.read(written(tmp_path, values), HELD_OUT) for values in (numbers, changed))
    assert (one.mean, one.deviation) == (other.mean, other.deviation)
    assert sunspot.regression(one).certificate == sunspot.regression(other).certificate
    first, second = (sunspot.fit(sunspot.METHODS[name], series, 1, 0.01, 20) for series in (one, other))
    assert (first.history, first.fitted) == (second.history, second.fitted)
    # the first held-out year is predicted from fitted ones alone
    assert first.predictions[0] == second.predictions[0]
    assert first.predictions[1] != second.predictions[1]
    assert first.held_out < 0.1


def test_the_rows_are_ten_years_and_the_one_after_them(tmp_path: Path) -> None:
    series = sunspot.read(written(tmp_path, np.arange(120.0)), HELD_OUT)
    numbers = np.hstack([series.lags, series.targets[:, None]]) * series.deviation + series.mean
    np.testing.assert_allclose(numbers, (series.years - 1700)[:, None] + np.arange(-10, 1), atol=1e-9)
    assert series.years[series.held_out].tolist() == list(range(HELD_OUT, 1820))


def test_gradient_descent_comes_to_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, head = rng.normal(size=(60, 3)), Head(3, 1)
    y = x @ [1.0, 2.0, -1.0] + rng.normal(size=60)
    problem = prepare(x, y, head, np.ones(4), loss="mse", proximal=False)
    solution = sunspot.gradient_descent(problem.objective(over(problem.data), 0.1), np.ones(4), Limits(1e-6, 200))
    best = refine(x, y, head, np.zeros(4), loss="mse", proximal=False, l2=0.1)
    np.testing.assert_allclose(solution.point, best.point, atol=1e-5)
    assert (np.diff(solution.history) <= 1e-12).all()
    assert len(solution.history) < 50


@pytest.mark.parametrize("held_out", [1705, 1819, 1900])
def test_too_few_years_on_a_side_are_refused(held_out: int, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected more than 11 and 2 or more, of 1700 to 1819"):
        sunspot.read(written(tmp_path, wave()), held_out)


def test_a_gap_in_the_years_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, wave())
    file.write_text(file.read_text().replace("1750\t", "1751\t"))
    with pytest.raises(SystemExit, match="each year one after the last"):
        sunspot.read(file, HELD_OUT)


def test_an_axis_is_linear_or_logarithmic() -> None:
    assert [Axis("x", 0, 10, 100, 0)(value) for value in (0, 5, 10)] == [100, 50, 0]
    assert [Axis("x", 1, 100, 0, 50, logarithmic=True)(value) for value in (1, 10, 100)] == pytest.approx([0, 25, 50])


def test_the_picture_holds_all_three_and_stays_inside() -> None:
    curves = {"first": [1.0, 0.5], "a <b>": [1.0, 0.2, 0.1], "third": [1.0]}
    text = picture(curves, [1921, 1922], [5.0, 190.0], {name: [-4.0, 100.0] for name in curves})
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    lines = [line.get("points", "") for line in root.iter(f"{space}polyline")]
    assert len(lines) == 9  # a mark in the legend, an objective and predictions of each
    points = np.array([point.split(",") for line in lines for point in line.split()], dtype=float)
    assert (points >= 0).all()
    assert (points <= [WIDTH, HEIGHT]).all()
    assert {"first", "a <b>", "third", "observed"} <= {node.text for node in root.iter(f"{space}text")}
    assert len(list(root.iter(f"{space}circle"))) == 3


def test_on_sunspots_curvature_pays_in_iterations(real_data: Path) -> None:
    file = real_data / "sunspot" / "sunspot.dat"
    if not file.is_file():
        pytest.skip("needs sunspot/sunspot.dat in the folder of real data sets")
    series = sunspot.read(file, 1921)
    found = {
        name: [sunspot.fit(solver, series, seed, 0.01, 30) for seed in range(1, 6)]
        for name, solver in sunspot.METHODS.items()
    }
    descent, bfgs, newton = (np.median([fit.history[-1] for fit in fits]) for fits in found.values())
    assert newton < bfgs < descent
    assert max(fit.held_out for fits in found.values() for fit in fits) < 0.3
