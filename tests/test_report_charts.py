"""Pictures show their numbers: where the marks stand, and what the tables beside them say."""

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from nlptrain.report.axes import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, number, tick_step
from nlptrain.report.bars import LEFT as BARS_LEFT
from nlptrain.report.bars import RIGHT as BARS_RIGHT
from nlptrain.report.bars import bars, histogram
from nlptrain.report.blocks import Chart, Table
from nlptrain.report.curves import Series, lines, thinned
from nlptrain.report.grids import cloud, heat_map
from tests.report_runs import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
TABLE = Table("t", ["a"], [])
RNG = np.random.default_rng(2)


def parsed(chart: Chart) -> Any:
    return ElementTree.fromstring(str(chart.svg))


def points(chart: Chart, line: int = 0) -> list[tuple[float, float]]:
    found = parsed(chart).findall(f"{SVG}polyline")[line].get("points")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


def every_chart(names: list[str]) -> list[Chart]:
    title = names[0]
    values = RNG.normal(size=(2, 30))
    count = len(names)
    return [
        lines(title, (names[0], names[1]), [Series(name, [(1, 2.0), (2, 3.0)]) for name in names[:3]]),
        bars(title, names[0], names, [0.5] * count, [(0.4, 0.6)] * count, TABLE),
        histogram(title, (names[0], names[1]), [0, 1, 2], [3, 4]),
        cloud(title, (names[0], names[1]), values[0], values[1], TABLE),
        heat_map(title, (names[0], names[1]), names, np.eye(count, dtype=int)),
    ]


@pytest.mark.parametrize("chart", every_chart(HOSTILE), ids=["lines", "bars", "histogram", "cloud", "heat map"])
def test_a_chart_is_xml_with_role_name_and_description_whatever_the_names(chart: Chart) -> None:
    svg = parsed(chart)
    assert svg.get("role") == "img"
    assert svg[0].tag == f"{SVG}title"
    assert svg[0].text.startswith("<script>alert(1)")
    assert svg[1].tag == f"{SVG}desc"
    assert {one.tag.removeprefix(SVG) for one in svg.iter()} <= {
        "svg",
        "title",
        "desc",
        "text",
        "line",
        "polyline",
        "rect",
        "circle",
    }
    allowed = {"class", "role", "viewBox", "fill-opacity", "text-anchor", "transform", "points", "width", "height", "r"}
    allowed |= {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy"}
    assert {name for one in svg.iter() for name in one.attrib} <= allowed


def test_the_highest_and_the_lowest_value_of_a_curve_stand_at_the_ends_of_its_axis() -> None:
    chart = lines("t", ("step", "loss"), [Series("a", [(0, 0.0), (50, 2.0), (100, 4.0)])])
    assert points(chart) == [
        (LEFT, HEIGHT - 42),
        ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - 42) / 2),
        (WIDTH - RIGHT, TOP),
    ]
    assert chart.table.rows == [["0", "0"], ["50", "2"], ["100", "4"]]


def test_equal_ratios_take_equal_room_on_a_logarithmic_axis() -> None:
    found = points(
        lines("t", ("x", "y"), [Series("a", [(1, 1.0), (10, 10.0), (100, 100.0)])], logarithmic=(True, True))
    )
    (x0, y0), (x1, y1), (x2, y2) = found
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.11)


def test_a_long_curve_keeps_its_ends_and_its_peaks_and_says_how_many_points_there_are() -> None:
    curve = [(float(step), 1.0) for step in range(10_000)]
    curve[4321], curve[8765] = (4321.0, 99.0), (8765.0, -99.0)
    kept = thinned(curve)
    assert len(kept) <= 240
    assert {curve[0], curve[-1], curve[4321], curve[8765]} <= set(kept)
    table = lines("loss", ("step", "loss"), [Series("a", curve)]).table
    assert table.caption == f"loss: {len(kept)} of 10000 points, highest and lowest kept"
    assert ["4321", "99"] in table.rows


def test_curves_of_different_steps_share_one_table() -> None:
    chart = lines("t", ("step", "loss"), [Series("a", [(1, 2.0), (2, 3.0)]), Series("b", [(2, 4.0)], dots=True)])
    assert chart.table.head == ["step", "a", "b"]
    assert chart.table.rows == [["1", "2", ""], ["2", "3", "4"]]


def test_bars_begin_at_zero_and_are_as_long_as_their_values() -> None:
    chart = bars("t", "share", ["a", "b"], [0.25, 1.0], [(0.0, 0.5), (1.0, 1.0)], TABLE, top=1.0)
    widths = [float(one.get("width")) for one in parsed(chart).findall(f"{SVG}rect")]
    assert widths == pytest.approx([(WIDTH - BARS_LEFT - BARS_RIGHT) / 4, WIDTH - BARS_LEFT - BARS_RIGHT])


def test_columns_of_a_histogram_are_as_high_as_their_counts() -> None:
    chart = histogram("t", ("value", "rows"), [0, 1, 2, 3], [1, 4, 0])
    heights = [float(one.get("height")) for one in parsed(chart).findall(f"{SVG}rect")]
    assert heights[0] * 4 == pytest.approx(heights[1])
    assert heights[2] == 0
    assert chart.table.rows == [["0", "1", "1"], ["1", "2", "4"], ["2", "3", "0"]]


def test_a_heat_map_has_the_percents_in_its_cells_and_the_counts_in_its_table() -> None:
    chart = heat_map("t", ("predicted", "true"), ["a", "b"], np.array([[3, 1], [0, 6]]))
    shown = [one.text for one in parsed(chart).findall(f"{SVG}text")]
    assert [text for text in shown if re.fullmatch(r"\d+|·", text)] == ["75", "25", "·", "100"]
    assert chart.table.rows == [["a", "3", "1"], ["b", "0", "6"]]
    strengths = [float(one.get("fill-opacity")) for one in parsed(chart).findall(f"{SVG}rect")]
    assert strengths == [0.375, 0.125, 0.0, 0.5]


def test_few_pairs_are_dots_and_many_are_counted_in_cells() -> None:
    x = RNG.normal(size=1000)
    assert len(parsed(cloud("t", ("x", "y"), x, x, TABLE)).findall(f"{SVG}circle")) == 1000
    x = RNG.normal(size=50_000)
    many = cloud("t", ("x", "y"), x, x + RNG.normal(size=50_000), TABLE)
    assert not parsed(many).findall(f"{SVG}circle")
    assert 10 < len(parsed(many).findall(f"{SVG}rect")) <= 24 * 24


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.7, 12.9), (1e-7, 3e-5), (99_990.0, 100_000.0), (0.9, 0.91)])
def test_ticks_are_few_round_and_inside(ends: tuple[float, float]) -> None:
    axis = Axis("a", *ends, 0, 100)
    assert 2 <= len(axis.ticks) <= 6
    assert all(ends[0] - 1e-9 <= tick <= ends[1] + 1e-9 for tick in axis.ticks)
    assert {f"{tick_step(*ends):e}"[0]} <= set("125")


def test_numbers_are_short_and_whole_ones_are_whole() -> None:
    assert [number(value) for value in (12345.0, 0.00002, 1 / 3, -2.0)] == ["12345", "2e-5", "0.3333", "-2"]


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_one_point_and_constant_curves_are_drawn(value: float) -> None:
    assert points(lines("t", ("x", "y"), [Series("a", [(1.0, value), (2.0, value)])]))
    assert parsed(lines("t", ("x", "y"), [Series("a", [(3.0, value)])])).findall(f"{SVG}circle")
