"""The model card: what huggingface_hub reads in it, and that nobody's own card is replaced."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from nlptrain.report.write import report
from tests.report_runs import HOSTILE, classification, regression, tagged


@pytest.mark.parametrize("make", [classification, regression, tagged])
def test_the_hub_reads_every_defined_score_with_n_and_interval(make: object, tmp_path: Path) -> None:
    run = make(tmp_path / "run")  # type: ignore[operator]
    path = Path(report([run])["card"])
    assert path == run / "model" / "README.md"
    data = ModelCard.load(path).data
    record = json.loads((run / "results.json").read_text("utf-8"))
    scores = {name: value for name, value in record["metrics"]["test"].items() if value is not None}
    assert {one.metric_type: one.metric_value for one in data.eval_results} == pytest.approx(scores)
    primary = next(iter(record["intervals"]["test"]))
    one = next(one for one in data.eval_results if one.metric_type == primary)
    ends = record["intervals"]["test"][primary]
    assert one.metric_args == {
        "n": record["rows"]["test"],
        "greater_is_better": True,
        "level": 0.95,
        "low": ends["low"],
        "high": ends["high"],
    }
    assert f"n = {record['rows']['test']}, 95 % interval {ends['low']:.4f} to {ends['high']:.4f}" in one.metric_name
    assert data.library_name == "transformers"
    assert data.pipeline_tag == ("token-classification" if make is tagged else "text-classification")


def test_names_out_of_data_do_not_break_out_of_the_card(tmp_path: Path) -> None:
    names = [f"{text}: - [x]\n---\n" for text in HOSTILE[:2]]
    run = classification(tmp_path / "run", names=names)
    card = ModelCard.load(Path(report([run])["card"]))
    assert card.data.library_name == "transformers"
    assert card.content.splitlines().count("---") == 2
    assert "<script" not in card.content.replace("\\<", "")


def test_a_card_of_ours_is_replaced_and_anybody_elses_is_not(tmp_path: Path) -> None:
    run = regression(tmp_path / "run")
    path = Path(report([run])["card"])
    first = path.read_bytes()
    assert report([run])["card"] == str(path)
    assert path.read_bytes() == first
    path.write_text("mine", "utf-8")
    assert report([run])["card"] is None
    assert path.read_text("utf-8") == "mine"


def test_with_an_output_nothing_is_written_into_the_run(tmp_path: Path) -> None:
    run = classification(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = report([run], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model_card.md", "report.html", "report.md"]
    assert found["card"] == str(tmp_path / "out" / "model_card.md")
