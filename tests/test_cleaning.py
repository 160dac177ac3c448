"""Cleaning steps against what Unicode and HTML say, and a whole run that was trained on cleaned texts."""

import csv
import html
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nlptrain.config.load import load
from nlptrain.config.schema import DataConfig
from nlptrain.data.cleaning import MAX_ROUNDS, STEPS, clean, traced
from nlptrain.data.load import load_splits
from nlptrain.errors import ConfigError, DataError
from nlptrain.tasks import TaskSpec
from tests.command_line import Done, write_csv

OWN = TaskSpec("own", "classification", ("text",))
NFC, CONTROL, ENTITIES, TAGS, WHITESPACE, LOWERCASE = STEPS
# what each step is about, so that random texts meet it
PIECES = ["<", ">", "</", "<b>", "</b>", "<br/>", "<p class='x'>", "<!--", "-->", "<script>", "</script>", "<i", "'"]
PIECES += ['"', "&", "&amp;", "&lt;", "lt;", "amp;", "&#38;", "&#x1F600;", "&notit;", "#60;", "Σ", "İ", "ß", "e\u0301"]
PIECES += [
    "\u200b",
    "\u200d",
    "\xa0",
    "\x85",
    "\x1f",
    "\x00",
    "\n",
    " ",
    "a",
    "b",
    "title",
    "<title>",
    "</textarea>",
    "/",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)
INLINE, BREAKING = ["b", "a", "span"], ["p", "br", "td"]


@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="<" * 40 + "b>" * 40)
@example(text="&" + "amp;" * 40)
@example(text="<scr<script>x</script>ipt>y</script>")
def test_every_step_leaves_what_it_gives(step: str, text: str) -> None:
    once = STEPS[step](text)
    assert STEPS[step](once) == once


@given(text=st.text())
def test_nfc_changes_no_canonical_meaning(text: str) -> None:
    found = clean(text, [NFC])
    assert unicodedata.is_normalized("NFC", found)
    assert unicodedata.normalize("NFD", found) == unicodedata.normalize("NFD", text)


def test_control_takes_cc_and_the_invisible_and_nothing_else() -> None:
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    changed = {char: clean(char, [CONTROL]) for char in everything if clean(char, [CONTROL]) != char}
    spaces = {char for char, instead in changed.items() if instead == " "}
    assert spaces == {c for c in everything if unicodedata.category(c) == "Cc" and c.isspace()}
    gone = {char for char, instead in changed.items() if instead == ""}
    marks = set(map(unicodedata.lookup, ["LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK"]))
    direction = marks | {c for c in everything if unicodedata.bidirectional(c) in EXPLICIT}
    controls = {c for c in everything if unicodedata.category(c) == "Cc"} - spaces
    assert gone == controls | direction | set("\xad\u200b\u2060\ufeff")


EXPLICIT = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("depth", range(4))
@given(text=st.text(alphabet="ab<>&\"' ;é"))
def test_entities_are_decoded_however_often_they_were_escaped(depth: int, text: str) -> None:
    text = text.replace("&", "+")  # an escaped text that itself spells an entity has no one meaning
    escaped = text
    for _ in range(depth):
        escaped = html.escape(escaped)
    assert clean(escaped, [ENTITIES]) == text


@given(text=TEXTS)
def test_whitespace_splits_where_a_space_is_and_joins_by_one(text: str) -> None:
    words = [word for word in re.split("|".join(SPACES), text) if word]
    assert clean(text, [WHITESPACE]) == " ".join(words)


SPACES = [re.escape(chr(code)) for code in range(0x110000) if chr(code).isspace()]


@given(text=st.text())
def test_lowercase_is_lower_and_keeps_the_spelling(text: str) -> None:
    assert clean(text, [LOWERCASE]) == text.lower()
    assert clean("STRAßE", [LOWERCASE]) == "straße"


def element(content: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from([*INLINE, *BREAKING]), st.booleans(), st.lists(content, max_size=3))


TREES = st.recursive(st.text(alphabet="ab<>&\"'= \n;", max_size=6), element, max_leaves=12)


def source(node: Any) -> str:
    if isinstance(node, str):
        return html.escape(node)
    tag, attributes, children = node
    given = """ title="a > b" class='<b>' """ if attributes else ""
    return f"<{tag}{given}><!-- <p> -->{''.join(map(source, children))}</{tag.upper()} >"


def shown(node: Any) -> str:
    if isinstance(node, str):
        return node
    tag, _, children = node
    edge = " " if tag in BREAKING else ""
    return f"{edge}{''.join(map(shown, children))}{edge}"


@given(tree=TREES)
def test_tags_of_a_page_go_and_its_text_stays(tree: Any) -> None:
    assert html.unescape(clean(source(tree), [TAGS])) == shown(tree)


@given(text=st.text(alphabet="ab1 <>&;/!'\"=-#").filter(lambda text: not re.search("<(/?[ab][ />]|!-)", text)))
def test_a_text_without_a_tag_stays_to_the_letter(text: str) -> None:
    assert clean(text, [TAGS]) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if a < b and b > c", "if a < b and b > c"),
        ("x<y and y>z, I <3 you </3", "x<y and y>z, I <3 you </3"),
        ("<user> wrote <url>", "<user> wrote <url>"),
        ("an open <b", "an open <b"),
        ("AT&T &amp; <i>R&D</i>", "AT&T &amp; R&D"),
        ("<b>bo</b>ld<br>next<BR/>last", "bold next last"),
        ("<script>if (a < b) '<p>'</script>text<style>p {}</style>", "  text  "),
        ("<!DOCTYPE html><b>x</b>", "x"),
        ("never <!-- closed <b>x</b>", "never <!-- closed <b>x</b>"),
        ("<a href='?a=1&amp;b>c'\n>link</a>", "link"),
    ],
)
def test_only_a_complete_tag_of_html_is_one(text: str, expected: str) -> None:
    assert clean(text, [TAGS]) == expected


def test_a_hostile_nesting_ends_soon_and_without_a_tag() -> None:
    deep = 5 * MAX_ROUNDS
    assert clean("<" * deep + "b>" * deep, [TAGS]) == "b>" * (deep - MAX_ROUNDS)
    assert clean("&" + "amp;" * deep, [ENTITIES]) == "amp;" * (deep - MAX_ROUNDS)


def test_the_order_of_the_list_is_the_order_of_the_work() -> None:
    text = "&lt;B&gt; is <b>a</b> tag"
    assert clean(text, [TAGS, ENTITIES]) == "<B> is a tag"
    assert clean(text, [ENTITIES, TAGS]) == " is a tag"
    assert clean(text, [TAGS, ENTITIES, LOWERCASE]) == "<b> is a tag"


def test_a_step_is_traced_where_it_changes_what_the_earlier_left() -> None:
    assert traced(" A&nbsp;", [WHITESPACE, ENTITIES, WHITESPACE]) == ("A", [WHITESPACE, ENTITIES, WHITESPACE])
    assert traced("plain", list(STEPS)) == ("plain", [])


def test_the_configuration_knows_the_steps_of_the_table() -> None:
    (known,) = get_args(DataConfig.model_fields["clean"].annotation)
    assert list(get_args(known)) == list(STEPS)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [("[nfc, lowercas]", "did you mean 'lowercase'?"), ("[nfc, nfc]", "nfc stands twice"), ("nfc", "list")],
)
def test_a_wrong_step_is_refused(tmp_path: Path, steps: str, expected: str) -> None:
    (tmp_path / "card.yaml").write_text(f"task: sst2\ndata: {{clean: {steps}}}\n")
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(tmp_path / "card.yaml")


def split(folder: Path, train: list[tuple[str, str]], **options: Any) -> Any:
    test = [("<i>One</i>", "x"), ("other", "y")]
    files = {name: str(write_csv(folder / f"{name}.csv", rows)) for name, rows in (("train", train), ("test", test))}
    return load_splits(OWN, DataConfig(**files, validation=files["test"], **options), seed=0)


def test_leaks_repeats_and_blanks_are_those_of_the_cleaned_texts(tmp_path: Path) -> None:
    train = [("one&nbsp;", "x"), ("two", "y"), ("<b>two</b>", "y"), ("<br>", "x"), ("three", "x")]
    steps = {"clean": [ENTITIES, TAGS, WHITESPACE]}
    with pytest.raises(DataError, match="no text in 1 row"):
        split(tmp_path, train, **steps)
    with pytest.raises(DataError, match=r"\(lines 2\)|line 2"):
        split(tmp_path, train, **steps, empty_text="allow")
    found = split(tmp_path, train, **steps, empty_text="drop", leakage="drop", duplicates="drop")
    assert found.rows["train"]["text"][:] == ["two", "three"]
    assert found.facts["train"]["cleaned"] == {ENTITIES: 1, TAGS: 2, WHITESPACE: 2}
    assert found.facts["test"]["cleaned"] == {TAGS: 1}
    assert split(tmp_path, train).rows["train"].num_rows == 5


@pytest.fixture
def web(card: Path, tmp_path: Path) -> Path:
    """The card's experiment, its texts written as HTML."""
    for name in ("train", "test"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            rows = [tuple(row) for row in csv.reader(file)][1:]
        escaped = [(f"<p title='bad'>{text.replace(' ', '&nbsp;')}</p>", label) for text, label in rows]
        write_csv(tmp_path / f"{name}.html.csv", escaped)
        card.write_text(card.read_text().replace(f"{name}.csv", f"{name}.html.csv"))
    return card


WEB = f"data.clean=[{TAGS}, {ENTITIES}, {WHITESPACE}]"


def test_a_run_on_cleaned_html_is_the_run_on_plain_text(
    nlptrain: Callable[..., Done], web: Path, tmp_path: Path
) -> None:
    done = nlptrain("train", web, WEB, "--json")
    assert done.code == 0, done.err
    result, run = json.loads(done.out), tmp_path / "run"
    assert result["data"]["train"]["cleaned"] == {TAGS: 120, ENTITIES: 120, WHITESPACE: 120}
    assert json.loads((run / "model" / "config.json").read_text())["text_cleaning"] == [TAGS, ENTITIES, WHITESPACE]
    plain = web.read_text().replace(".html.csv", ".csv")
    (tmp_path / "plain.yaml").write_text(plain)
    other = nlptrain("train", tmp_path / "plain.yaml", f"training.output_dir={tmp_path / 'plain'}", "--json")
    assert result["metrics"] == json.loads(other.out)["metrics"]
    evaluated = nlptrain("evaluate", run, "--data", tmp_path / "test.html.csv", "--json")
    assert json.loads(evaluated.out)["metrics"] == pytest.approx(result["metrics"]["test"], abs=1e-6)


@pytest.mark.parametrize("architecture", ["cross_encoder", "stock"])
def test_a_program_that_cleans_by_the_model_folder_gets_the_predictions(
    nlptrain: Callable[..., Done], web: Path, tmp_path: Path, architecture: str
) -> None:
    words = ("training.max_steps=9", "training.bf16=false", f"model.architecture={architecture}")
    assert nlptrain("train", web, WEB, *words).code == 0
    texts = ["<b>good</b>&nbsp;film", "a bad <br> film", "<p></p>", "good & sad <3"]
    write_csv(tmp_path / "new.csv", [(text,) for text in texts], ("text",))
    assert (
        nlptrain("predict", tmp_path / "run", "--data", tmp_path / "new.csv", "--output", tmp_path / "o.jsonl").code
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    assert [row["flag"] for row in rows] == ["", "", "empty", ""]
    from transformers import pipeline

    serve = pipeline("text-classification", model=str(tmp_path / "run" / "model"), device="cpu")

    def positive(given: list[str]) -> list[float]:
        return [next(o["score"] for o in row if o["label"] == "positive") for row in serve(given, top_k=None)]

    ours = [row["probability_positive"] for row in rows]
    steps = serve.model.config.text_cleaning
    assert positive([clean(text, steps) for text in texts]) == pytest.approx(ours, abs=1e-6)
    assert positive(texts) != pytest.approx(ours, abs=1e-4)


def test_a_run_continues_and_opens_only_with_its_own_steps(
    nlptrain: Callable[..., Done], web: Path, tmp_path: Path
) -> None:
    assert nlptrain("train", web, WEB, "training.max_steps=2").code == 0
    done = nlptrain("train", web, "training.max_steps=2", f"data.clean=[{TAGS}]", "--resume")
    assert (done.code, "data.clean: ['html_tags', 'html_entities', 'whitespace'] in the run" in done.err) == (4, True)
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"text_cleaning": [TAGS]}))
    done = nlptrain("evaluate", tmp_path / "run", "--data", tmp_path / "test.html.csv")
    assert (done.code, "text_cleaning ['html_tags']" in done.err) == (4, True)
