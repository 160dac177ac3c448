"""The report of run folders: what it says, that hostile rows do nothing in it, and what it says of missing parts."""

import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from nlptrain.report import refinement
from nlptrain.report.blocks import Chart, Quoted, Table
from nlptrain.report.facts import RunFacts
from nlptrain.report.means import equal_parts, mean_interval
from nlptrain.report.run_page import page
from nlptrain.report.write import report
from tests.command_line import Done
from tests.report_runs import HOSTILE, classification, regression, tagged, write_run

VOID = {"meta", "link", "br"}
# of attributes that make a browser ask for something, or run something
ASKING = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping", "xlink:href", "style"}


class Strict(HTMLParser):
    """Refuses what is not closed in order, and keeps elements, text and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def block(run: Path, section: str, title: str) -> Any:
    """A table or chart of a run's page."""
    found = next(one for one in page(RunFacts.read(run)).sections if one.title == section)
    return next(
        one
        for one in found.blocks
        if isinstance(one, Chart | Table) and title in (one.title if isinstance(one, Chart) else one.caption)
    )


def missing(run: Path) -> dict[str, Any]:
    return {one.title: one.missing for one in page(RunFacts.read(run)).sections if one.missing}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "classification": classification(folder / "classes"),
        "regression": regression(folder / "scores"),
        "token_classification": tagged(folder / "tags"),
    }
    for run in made.values():
        report([run])
    return made


@pytest.fixture(params=["classification", "regression", "token_classification"])
def document(request: pytest.FixtureRequest, runs: dict[str, Path]) -> str:
    return (runs[request.param] / "report.html").read_text("utf-8")


def test_the_page_is_well_formed_and_every_picture_is_xml_with_a_name(document: str) -> None:
    found = Strict(document)
    pictures = re.findall(r"<svg.*?</svg>", document, re.DOTALL)
    assert len(pictures) == len(found.all("figure")) > 5
    for picture in pictures:
        svg = ElementTree.fromstring(picture)
        assert svg.get("role") == "img"
        assert svg[0].tag.endswith("title")
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = [(attributes["href"] or "").removeprefix("#") for attributes in found.all("a")]
    assert set(targets) <= set(ids)
    assert [tag for tag, _ in found.elements if tag in ("header", "nav", "main", "h1")] == [
        "header",
        "h1",
        "nav",
        "main",
    ]
    assert found.all("html") == [{"lang": "en"}]
    assert {one.get("scope") for one in found.all("th")} == {"col", "row"}
    assert len(found.all("caption")) == len(found.all("table"))


def test_the_page_asks_for_nothing_and_only_its_style_may_apply(document: str) -> None:
    found = Strict(document)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    names = {name for _, attributes in found.elements for name in attributes}
    assert not names & ASKING
    assert not [name for name in names if name.startswith("on")]
    assert all((attributes["href"] or "").startswith("#") for attributes in found.all("a"))
    policy = next(one["content"] for one in found.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none'; style-src 'sha256-")
    (style,) = re.findall(r"<style>(.*?)</style>", document, re.DOTALL)
    assert not re.search(r"url\(|@import", style)


def test_hostile_rows_are_text_in_every_form(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    found = Strict((run / "report.html").read_text("utf-8"))
    shown = "".join(found.shown)
    for text in HOSTILE[:3]:
        assert text in shown, text
    assert "\u2039U+202E\u203agnp.exe" in shown
    # a cell that is copied into a sheet begins with a quotation mark, not with a formula
    assert not [line for line in shown.splitlines() if line.startswith("=")]
    summary = (run / "report.md").read_text("utf-8")
    assert "<script" not in re.sub(r"\\.", "", summary)
    for text in (shown, summary):
        assert not set(text) & {*map(chr, {*range(32)} - {10}), "\u202e", "\u2066", "\u200f"}


def test_the_answer_stands_in_one_line_beside_its_interval_and_the_best_baseline(runs: dict[str, Path]) -> None:
    assert page(RunFacts.read(runs["classification"])).answer == (
        "accuracy 0.8000 on 40 test rows (95 % interval 0.7500 to 0.8400); the best that needs no fine-tuning, tfidf, "
        "reaches 0.5000, which is worse."
    )


def test_the_parts_of_the_page_stand_in_their_order(runs: dict[str, Path]) -> None:
    titles = [section.title for section in page(RunFacts.read(runs["classification"])).sections]
    assert titles == [
        *("What was asked", "Scores", "Learning curves", "Learning rate", "Gradient norm", "Confusion matrix"),
        *("Calibration", "Slices", "Most confident mistakes", "Data", "Time", "Environment and how to repeat it"),
    ]


def test_curves_are_those_of_the_history(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text("utf-8").splitlines()]
    table = block(run, "Learning curves", "Loss").table
    assert [float(row[1]) for row in table.rows] == [
        pytest.approx(one["loss"], 1e-3) for one in history if "loss" in one
    ]
    assert [row[2] for row in table.rows if row[2]] == ["0.75", "0.375", "0.25"]
    norm = block(run, "Gradient norm", "Norm")
    assert norm.note == "Gradients were clipped at a norm of 1: 8 of 12 logged steps (66.7%) were above it."


def test_confusion_and_calibration_count_every_row(runs: dict[str, Path]) -> None:
    assert block(runs["classification"], "Confusion matrix", "Percent").table.rows == [
        ["negative", "16", "4"],
        ["positive", "4", "16"],
    ]
    table = block(runs["classification"], "Calibration", "Reliability").table
    assert sum(int(row[-1]) for row in table.rows) == 40
    assert sum(int(row[-1]) * float(row[1]) for row in table.rows) == pytest.approx(32, abs=0.01)


def test_residuals_are_predicted_minus_true(runs: dict[str, Path]) -> None:
    rows = RunFacts.read(runs["regression"]).predictions
    assert rows is not None
    residuals = rows.outputs[:, 0] - rows.labels
    histogram = block(runs["regression"], "Predicted versus true", "Residuals")
    assert sum(int(row[2]) for row in histogram.table.rows) == 40
    assert f"Mean {residuals.mean():+.4f}" in histogram.note
    by_score = block(runs["regression"], "Predicted versus true", "Scores").table
    assert sum(int(row[1]) * float(row[3]) for row in by_score.rows) == pytest.approx(residuals.sum(), abs=0.01)


def test_more_classes_than_fit_are_one_row(tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(20)]
    labels = [n % 20 for n in range(400)] + [19] * 10
    run = write_run(
        tmp_path / "run", [f"row {n}" for n in range(410)], labels, np.eye(20)[labels].tolist(), names=names
    )
    table = block(run, "Confusion matrix", "Percent").table
    assert len(table.rows) == 10
    assert table.rows[-1][0] == "all others"
    assert "class 19" in table.head
    assert sum(int(cell) for row in table.rows for cell in row[1:]) == 410


def test_slices_hold_every_row_and_their_own_score(runs: dict[str, Path]) -> None:
    table = block(runs["classification"], "Slices", "By length").table
    assert sum(int(row[1]) for row in table.rows) == 40
    assert sum(int(row[1]) * float(row[2]) for row in table.rows) == pytest.approx(32, abs=0.05)


def test_parts_of_equal_size_keep_equal_values_together() -> None:
    values = np.array([3, 1, 1, 1, 1, 1, 2, 9, 9, 4])
    parts = equal_parts(values, 5)
    assert sorted(np.concatenate(parts)) == list(range(10))
    assert all(not set(values[a]) & set(values[b]) for a, b in zip(parts, parts[1:], strict=False))


def test_intervals_of_means_cover_95_percent() -> None:
    rng = np.random.default_rng(0)
    for draw, true in ((lambda: rng.random(60) < 0.9, 0.9), (lambda: rng.normal(2.0, 3.0, 60), 2.0)):
        ends = np.array([mean_interval(np.asarray(draw(), float)) for _ in range(2000)])
        assert 0.93 < ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean() < 0.97


def test_mistakes_are_the_wrong_rows_the_surest_first_with_their_texts(runs: dict[str, Path]) -> None:
    table = block(runs["classification"], "Most confident mistakes", "")
    assert [row[0] for row in table.rows] == [str(n + 2) for n in range(35, -1, -5)]
    line, answer, (text,) = table.rows[0]
    assert (line, text) == ("37", Quoted(HOSTILE[5] + " 35"))
    assert answer[0] == Quoted("negative", "predicted ")
    assert answer[2] == Quoted("positive", "true ")
    assert answer[1] == f"confidence {1 / (1 + np.exp(-1.875)):.4f}"


def test_largest_errors_and_wrong_tags(runs: dict[str, Path]) -> None:
    rows = RunFacts.read(runs["regression"]).predictions
    assert rows is not None
    worst = int(np.abs(rows.outputs[:, 0] - rows.labels).argmax())
    assert block(runs["regression"], "Largest errors", "").rows[0][0] == str(worst + 2)
    (row,) = block(runs["token_classification"], "Most confident mistakes", "").rows
    assert row[1] == ("1 wrong tags", Quoted("B-x O O", "predicted "), Quoted("B-x I-x O", "true "))


def test_a_text_that_has_changed_is_not_shown_as_the_one_that_was_judged(tmp_path: Path) -> None:
    run = classification(tmp_path / "run", texts=["plain text"])
    source = tmp_path / "run.csv"
    source.write_text(source.read_text("utf-8").replace("plain text 35", "another text"), "utf-8")
    assert block(run, "Most confident mistakes", "").rows[0][2] == "not there any more"
    assert missing(run)["Slices"] == [f"{source}: 1 of 40 rows are not there any more"]
    source.unlink()
    assert "there is no such file" in missing(run)["Most confident mistakes"][0]


def test_missing_parts_are_named_and_the_rest_is_there(tmp_path: Path) -> None:
    run = classification(tmp_path / "run", baselines={}, intervals={}, per_class={})
    (run / "history.jsonl").unlink()
    (run / "predictions" / "test.jsonl").unlink()
    found = missing(run)
    without_history = {"Learning curves", "Learning rate", "Gradient norm"}
    assert set(found) == without_history | {
        "Scores",
        "Confusion matrix",
        "Calibration",
        "Slices",
        "Most confident mistakes",
    }
    assert "history.jsonl cannot be read" in found["Learning rate"][0]
    assert found["Scores"] == ["the record holds no baselines", "the record holds no intervals"]
    assert "Not shown: the record holds no baselines." in Path(report([run])["html"]).read_text("utf-8")


def test_a_torn_history_is_shown_up_to_its_tear(tmp_path: Path) -> None:
    run = classification(tmp_path / "run")
    text = (run / "history.jsonl").read_text("utf-8")
    (run / "history.jsonl").write_text(text[: text.index('"step": 7') + 3], "utf-8")
    assert block(run, "Learning rate", "Rate").table.rows[-1][0] == "6"
    assert "history.jsonl:8 is not a log entry" in missing(run)["Learning rate"][0]


def test_a_collapsed_run_says_so_first(tmp_path: Path) -> None:
    labels = [n % 2 for n in range(20)]
    run = write_run(tmp_path / "run", list(map(str, range(20))), labels, [[1.0, 0.0]] * 20, names=["a", "b"])
    assert page(RunFacts.read(run)).answer.startswith(
        "The model collapsed on the 20 test rows: every row is predicted 'a'"
    )
    constant = write_run(tmp_path / "c", list(map(str, range(20))), [n / 4 for n in range(20)], [[2.0]] * 20)
    assert report([constant])["answer"].startswith("The model collapsed on the 20 test rows: all scores are about 2")
    assert "undefined" in (constant / "report.html").read_text("utf-8")


def test_an_undefined_score_counts_as_worst_in_the_answer(tmp_path: Path) -> None:
    run = regression(
        tmp_path / "run", metrics={"test": {"pearson": None}}, undefined={"test": {"pearson": "constant predictions"}}
    )
    answer = page(RunFacts.read(run)).answer
    assert answer == "pearson on 40 test rows is undefined: constant predictions. That counts as worst."


def test_nothing_scored_is_a_page_too(tmp_path: Path) -> None:
    run = classification(tmp_path / "run", metrics={}, undefined={}, intervals={}, per_class={}, baselines={})
    assert report([run])["answer"].startswith("Nothing was scored")


def test_a_certificate_is_shown_whatever_it_holds() -> None:
    certificate = {"solver": "newton", "converged": True, "condition": None, "l2_curve": [[0.1, 2.0], [1.0, 1.5]]}
    section = refinement.section({"after": {"certificate": certificate | {"history": [3.0, 2.5]}}, "changed": False})
    assert section is not None
    table, curve, history = section.blocks
    assert isinstance(table, Table)
    assert ["after.certificate.condition", "not known"] in table.rows
    assert ["changed", "no"] in table.rows
    assert isinstance(curve, Chart)
    assert curve.table.rows == [["0.1", "2"], ["1", "1.5"]]
    assert isinstance(history, Chart)
    assert history.table.rows == [["0", "3"], ["1", "2.5"]]
    assert refinement.section(None) is None


def test_several_runs_are_compared_and_their_curves_are_one_picture(
    tmp_path: Path, nlptrain: Callable[..., Done]
) -> None:
    runs = [regression(tmp_path / name, 80) for name in ("a", "b")]
    answers = [json.loads(line) for line in (runs[1] / "predictions" / "test.jsonl").read_text("utf-8").splitlines()]
    better = [one | {"output": [one["label"] + 0.1 * (one["output"][0] - one["label"])]} for one in answers]
    (runs[1] / "predictions" / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in better), "utf-8")
    done = nlptrain("report", *runs, "--output", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert f"{runs[1]} is better: pearson of {runs[1]} is" in found["answer"]
    assert found["card"] is None
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    Strict(text)
    curve = next(svg for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL) if "<title>Training loss" in svg)
    assert curve.count("<polyline") == 2
    assert found["answer"] in (tmp_path / "out" / "report.md").read_text("utf-8").replace("\\", "")


def test_runs_that_cannot_be_compared_stand_side_by_side(tmp_path: Path) -> None:
    runs = [regression(tmp_path / "a", 30), regression(tmp_path / "b", 31)]
    found = report(runs, tmp_path / "out")
    assert "pearson on test: mean" in found["answer"]
    assert "not the same rows" in found["missing"][0]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 4, "expected a run folder with config.yaml"),
        (["unfinished"], 4, "no results.json yet"),
        (["run", "run"], 2, "give --output DIR"),
        (["run", "--output", "file"], 2, "expected a folder, found the file"),
        (["run", "--output", "file/inside"], 2, "cannot create file/inside: Not a directory"),
        (["broken"], 4, "cannot be read as JSON"),
    ],
)
def test_wrong_use_is_an_error_with_its_place(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    nlptrain: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "unfinished", "broken"):
        classification(tmp_path / name)
    (tmp_path / "unfinished" / "results.json").unlink()
    (tmp_path / "broken" / "results.json").write_text("{", "utf-8")
    (tmp_path / "file").write_text("", "utf-8")
    done = nlptrain("report", *words)
    assert done.code == code
    assert message in done.err


def test_fifty_thousand_rows_make_a_page_under_three_megabytes(tmp_path: Path) -> None:
    for make in (classification, regression):
        run = make(tmp_path / make.__name__, 50_000)
        assert Path(report([run])["html"]).stat().st_size < 3_000_000


def test_the_command_that_repeats_a_run_gives_its_scores(
    card: Path, tmp_path: Path, nlptrain: Callable[..., Done]
) -> None:
    assert nlptrain("train", card).code == 0
    done = nlptrain("report", tmp_path / "run")
    assert done.code == 0, done.err
    summary = (tmp_path / "run" / "report.md").read_text("utf-8")
    (line,) = [line.strip() for line in summary.splitlines() if line.startswith("    nlptrain train")]
    assert nlptrain(*shlex.split(line)[1:]).code == 0
    first, again = (json.loads((tmp_path / name / "results.json").read_text("utf-8")) for name in ("run", "run-again"))
    assert first["metrics"] == again["metrics"]
    assert 0 <= first["training"]["padding_share"] < 1
    assert "Not shown" not in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_a_benchmark_s_record_is_shown_beside_the_first_recipe(tmp_path: Path) -> None:
    record = tmp_path / "speed.json"
    rates = {"stock": [100.0, 120.0, 110.0], "<b>ours": [165.0, 150.0, 170.0]}
    runs = {recipe: [{"texts_per_second": rate, "step_ms": 1} for rate in found] for recipe, found in rates.items()}
    record.write_text(json.dumps({"sst2": {"runs": runs, "ratio": 1.5}}))
    made = report([classification(tmp_path / "run")], measured=record)
    shown = " ".join(Strict(Path(made["html"]).read_text()).shown)
    assert re.search(r"stock\s+110\s+100 to 120\s+3\s+1\.00\s+<b>ours\s+165\s+150 to 170\s+3\s+1\.50", shown)


@pytest.mark.parametrize("text", ["", "[]", "{}x", '{"sst2": {"ratio": 1}}', '{"sst2": {"runs": {"a": []}}}', None])
def test_what_is_no_benchmark_s_record_is_refused(
    nlptrain: Callable[..., Done], tmp_path: Path, text: str | None
) -> None:
    record = tmp_path / "speed.json"
    if text is not None:
        record.write_text(text)
    run = classification(tmp_path / "run")
    done = nlptrain("report", run, "--speed", record)
    assert (done.code, done.out) == (2, "")
    assert f"error[E_SPEED]: --speed: {record}" in done.err
    assert not (run / "report.html").exists()
