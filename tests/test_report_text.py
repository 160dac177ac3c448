"""Text from data is harmless in every form of a report."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlptrain.report.safe_text import clipped, markdown, short, visible, width
from tests.report_runs import HOSTILE


@given(st.text())
def test_nothing_in_visible_text_hides_or_reorders(text: str) -> None:
    assert not set(visible(text)) & {
        *map(chr, range(32)),
        *"\x7f\u200e\u200f\u202a\u202d\u202e\u2066\u2069\u2028\ufeff",
    }


def test_hidden_characters_are_named_and_others_stay() -> None:
    assert visible("a\u202eb\x00") == "a\u2039U+202E\u203ab\u2039U+0000\u203a"
    assert visible("zwei\r\nZeilen\tلا 漢字 👩\u200d🚀") == "zwei Zeilen لا 漢字 👩\u200d🚀"


@given(st.text())
def test_visible_text_can_be_written_and_has_nothing_left_to_show(text: str) -> None:
    shown = visible(text)
    assert shown.encode().decode() == shown
    assert visible(shown) == shown


@pytest.mark.parametrize("text", [*HOSTILE, "a | b", "#x", "$x^2$", "![x](http://a)", "www.a.example", "~~a~~"])
def test_markdown_escapes_whatever_has_a_meaning(text: str) -> None:
    found, marked, at = markdown(text), set("\\`*_{}[]()<>&#|~$!"), 0
    while at < len(found):
        assert found[at] == "\\" or found[at] not in marked
        at += 2 if found[at] == "\\" else 1
    assert not re.search(r"(?<!\\)://|(?<=www)\.", found)
    assert "\n" not in found


def test_long_texts_are_cut_and_say_so() -> None:
    assert clipped("x" * 400) == "x" * 400
    assert clipped("x" * 1401) == "x" * 400 + " … (1,401 characters)"
    assert width(short("W" * 50, 84)) <= 84 + 7.2
    assert short("fits", 84) == "fits"
