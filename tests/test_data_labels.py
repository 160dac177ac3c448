"""Labels and scores are taken as they are written or refused with their rows."""

import pytest

from nlptrain.data.labels import LabelMap, is_unlabelled, refuse_ambiguous, scores
from nlptrain.data.read import Where
from nlptrain.errors import DataError
from nlptrain.tasks import TASKS, TaskSpec

SST2, STSB = TASKS["sst2"], TASKS["stsb"]
OWN = TaskSpec("own", "classification", ("text",))
ANY_SCORE = TaskSpec("own", "regression", ("text",))


def where(values: list[str]) -> Where:
    return Where("rows.csv", range(2, len(values) + 2))


def test_learnt_names_are_sorted_and_integers_by_value() -> None:
    assert LabelMap.fit(["b", "a", "b"], OWN).names == ("a", "b")
    assert LabelMap.fit(["10", "9", "2"], OWN).names == ("2", "9", "10")
    assert LabelMap.fit(["10", "9", "x"], OWN).names == ("10", "9", "x")


def test_the_names_of_the_task_fix_the_ids_and_may_be_written_as_numbers() -> None:
    labels = LabelMap.fit([], SST2)
    values = ["positive", "negative"]
    assert labels.encode(values, where(values)) == [1, 0] == labels.encode(["1", "0"], where(values))


@pytest.mark.parametrize("values", [["1", "positive"], ["1.0", "0"], ["01", "0"], ["2", "0"], ["-1", "0"]])
def test_numbers_that_are_not_plainly_the_ids_are_unknown(values: list[str]) -> None:
    with pytest.raises(DataError, match=f"unknown label '{values[0]}' in 1 row"):
        LabelMap.fit([], SST2).encode(values, where(values))


def test_numbers_do_not_stand_for_learnt_names() -> None:
    with pytest.raises(DataError, match="unknown label '0'"):
        LabelMap(("neg", "pos")).encode(["0", "1"], where(["0", "1"]))


def test_missing_and_unknown_labels_are_reported_together_with_rows_and_hint() -> None:
    values = ["neg", "", "Pos", *["other"] * 12, " "]
    with pytest.raises(DataError) as caught:
        LabelMap(("neg", "pos")).encode(values, where(values))
    missing, first, second = caught.value.problems
    assert "no label in 2 rows (lines 3, 17)" in missing
    assert "'Pos' in 1 row (line 4)" in first
    assert "write 'pos'" in first
    assert "'other' in 12 rows (lines 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...)" in second


@pytest.mark.parametrize("pair", [("pos", "Pos"), ("pos", " pos"), ("1", "01"), ("é", "e\u0301")])
def test_training_labels_that_look_alike_are_refused(pair: tuple[str, str]) -> None:
    values = [*pair, "neg"]
    with pytest.raises(DataError, match="differ only by") as caught:
        refuse_ambiguous(values, where(values))
    assert all(f"{value!r} in 1 row (line {line})" in str(caught.value) for line, value in enumerate(pair, 2))


def test_minus_one_is_no_class_unless_it_is_listed() -> None:
    values = ["-1", "0", "1"]
    with pytest.raises(DataError, match=r"'-1' in 1 row \(line 2\)"):
        refuse_ambiguous(values, where(values))
    listed = TaskSpec("own", "classification", ("text",), labels=("-1", "0", "1"))
    assert LabelMap.fit(values, listed).encode(values, where(values)) == [0, 1, 2]


def test_only_minus_one_throughout_means_unlabelled() -> None:
    assert is_unlabelled(["-1", "-1"], SST2)
    assert is_unlabelled(["-1.0", "-1.0"], STSB)
    assert not is_unlabelled(["-1", "0"], SST2)
    assert not is_unlabelled(["-1", "-1"], ANY_SCORE)


def test_scores_are_the_numbers_that_float_reads() -> None:
    values = ["0", "5.0", "2.5e0", ".5", "1.", "+3"]
    assert scores(values, STSB, where(values)) == [float(value) for value in values]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nan", "not finite"),
        ("-inf", "not finite"),
        ("1e999", "not finite"),
        ("4,5", "not a number"),
        (" 4", "not a number"),
        ("1_0", "not a number"),
        ("7.2", "outside 0 to 5"),
        ("-0.1", "outside 0 to 5"),
        ("", "no label"),
    ],
)
def test_scores_that_are_not_plain_numbers_in_range_are_refused_with_their_line(value: str, message: str) -> None:
    values = ["1.0", value, "2.0"]
    with pytest.raises(DataError, match=rf"{message}.* in 1 row \(line 3\)|{message} in 1 row \(line 3\)"):
        scores(values, STSB, where(values))


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
def test_scores_without_a_range_must_still_be_finite(value: str) -> None:
    with pytest.raises(DataError, match=r"not finite in 1 row \(line 2\)"):
        scores([value, "1e6"], ANY_SCORE, where([value, "1e6"]))
