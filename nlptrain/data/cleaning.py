"""Named steps that clean a text, in the order in which a configuration lists them.

A row keeps the text as it was written. What is cleaned is what is made of it: its tokens, and the key by which repeats
and leaks are found. Each step is idempotent: what it gives, it leaves as it is.

The order has a meaning. ``html_tags, html_entities`` reads HTML as a browser does: in ``&lt;b&gt; is a tag`` the text
speaks of ``<b>``, which stays. ``html_entities, html_tags`` is for HTML that was escaped as a whole: ``<b>`` goes.

A trained model names its steps in ``text_cleaning`` of its config.json. They are not in its tokenizer: it has no place
for a parser, looks for special tokens before it normalises, and of some classes (BERT's) is built anew with a
normaliser of its own when it is loaded. So `transformers.pipeline` sees a text as it is given: clean it first.

    serve = pipeline("text-classification", model=folder)
    serve([clean(text, serve.model.config.text_cleaning) for text in texts])
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from html.parser import HTMLParser

# soft hyphen, zero-width space, word joiner, byte order mark; marks, embeddings, overrides and isolates of direction.
# The zero-width joiners stay: emoji, Persian and the scripts of India are spelt with them.
_INVISIBLE = (0xAD, 0x200B, 0x2060, 0xFEFF, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: " " if chr(code).isspace() else None for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL_TABLE: dict[int, str | None] = {**_CONTROLS, **dict.fromkeys(_INVISIBLE)}

_WITHIN_A_LINE = (
    "a abbr acronym b basefont bdi bdo big blink cite code data del dfn em font i ins kbd label mark nobr q rb rp "
    "rt rtc ruby s samp small span strike strong sub sup time tt u var wbr"
)
_BREAKS_A_LINE = (
    "address applet area article aside audio base bgsound blockquote body br button canvas caption center col "
    "colgroup datalist dd details dialog dir div dl dt embed fieldset figcaption figure footer form frame "
    "frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html iframe img input legend li link main map marquee math "
    "menu meta meter nav noembed noframes noscript object ol optgroup option output p param picture plaintext pre "
    "progress script search section select slot source style summary svg table tbody td template textarea tfoot "
    "th thead title tr track ul video xmp"
)
_INLINE = frozenset(_WITHIN_A_LINE.split())
_NAMES = "|".join([*_WITHIN_A_LINE.split(), *_BREAKS_A_LINE.split()])
_HIDDEN = ("script", "style")
# a hostile text of 100 kB that nests without a limit would take minutes
MAX_ROUNDS = 10
_NO_TAG = re.compile(rf"<(?!/?(?:{_NAMES})[ \t\n\r\f/>]|!--|!doctype[ \t\n\r\f])", re.IGNORECASE)


def nfc(text: str) -> str:
    """Unicode normalisation form C: a letter and its combining accent become one character."""
    return unicodedata.normalize("NFC", text)


def control(text: str) -> str:
    """Without control and invisible characters.

    Of category Cc, tab, line breaks and separators (U+0009 to U+000D, U+001C to U+001F, U+0085) become a space each;
    the others go. So do the soft hyphen U+00AD, U+200B, U+2060, U+FEFF and the marks of writing direction U+061C,
    U+200E, U+200F, U+202A to U+202E and U+2066 to U+2069. U+200C and U+200D stay.
    """
    return text.translate(_CONTROL_TABLE)


def html_entities(text: str) -> str:
    """Character references such as ``&amp;`` become what they stand for, also where a text was escaped several times.

    As in HTML, some names need no semicolon: ``&copy=1`` becomes ``©=1``.
    """
    return _until_stable(html.unescape, text, "&")


def html_tags(text: str) -> str:
    """Without the tags of HTML, comments, the doctype, and what stands in script and style.

    A tag that breaks a line (br, p, td, ...) leaves a space, one within a line (b, a, span, ...) nothing. Only a
    complete tag of an element that HTML knows is one: ``a < b``, ``<3``, ``<user>`` and an unclosed ``<b`` stay, and
    everything else to the letter. Where a quote or comment within a tag is never closed, the rest stays.
    """
    return _until_stable(_without_tags, text, "<")


def whitespace(text: str) -> str:
    """Runs of white space of any kind become one space; none stands at the ends."""
    return " ".join(text.split())


def lowercase(text: str) -> str:
    """Lower case by `str.lower`; casefold would also spell words anew (ß as ss) in ways no vocabulary was made of."""
    return text.lower()


STEPS: dict[str, Callable[[str], str]] = {
    "nfc": nfc,
    "control": control,
    "html_entities": html_entities,
    "html_tags": html_tags,
    "whitespace": whitespace,
    "lowercase": lowercase,
}


def clean(text: str, steps: Iterable[str]) -> str:
    """`text` after the `steps`, names of `STEPS`, in their order."""
    return traced(text, steps)[0]


def traced(text: str, steps: Iterable[str]) -> tuple[str, list[str]]:
    """As `clean`, and the steps that changed the text as the earlier ones had left it."""
    changed = []
    for step in steps:
        before, text = text, STEPS[step](text)
        changed += [step] if text != before else []
    return text, changed


def _until_stable(step: Callable[[str], str], text: str, opening: str) -> str:
    """`step` again and again; a text that nests deeper than any writer would loses the character that opens."""
    for _ in range(MAX_ROUNDS):
        before, text = text, step(text)
        if text == before:
            return text
    return text.replace(opening, "")


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    # the parser finds where tags end; it sees a copy of equal length in which nothing but a tag can begin, and no
    # second line, so that an offset in it is an index of the text
    parser = _Tags()
    parser.feed(_NO_TAG.sub("x", text).translate({ord("&"): "x", ord("\n"): " "}))
    rest = parser.offset_reached()
    ends = [start for start, _ in parser.found[1:]] + [rest]
    pieces = [
        text[start:end] if instead is None else instead
        for (start, instead), end in zip(parser.found, ends, strict=False)
    ]
    return "".join([*pieces, text[rest:]])


class _Tags(HTMLParser):
    """Where each tag and each stretch of text begins, and what to put there: None for the text itself."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[int, str | None]] = []
        self.hidden = ""

    def offset_reached(self) -> int:
        return self.getpos()[1]

    def handle_data(self, data: str) -> None:
        self._put("" if self.hidden else None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._put("" if tag in _INLINE else " ")
        self.hidden = tag if tag in _HIDDEN else self.hidden

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._put("" if tag in _INLINE else " ")

    def handle_endtag(self, tag: str) -> None:
        self._put("" if tag in _INLINE else " ")
        self.hidden = "" if tag == self.hidden else self.hidden

    def handle_comment(self, data: str) -> None:
        self._put("")

    def handle_decl(self, decl: str) -> None:
        self._put("")

    def _put(self, instead: str | None) -> None:
        self.found.append((self.offset_reached(), instead))
