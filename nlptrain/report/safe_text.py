"""Text from data made harmless: nothing in it can hide, reorder or mark up what stands around it."""

import re
import unicodedata

LONGEST = 400
# what changes the direction of the text around it, and all other characters without a form of their own
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# joins letters in Persian, Hindi and emoji
_HARMLESS = frozenset("\u200c\u200d")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()<>&#|~$!]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def visible(text: str) -> str:
    r"""The text with line ends and tabs as spaces, and every character that could hide or reorder text by its number.

    A right-to-left override, for example, becomes ``<U+202E>``, in angle quotes.
    """
    spaced = " ".join(re.split(r"[\r\n\t]+", text))
    return "".join(f"\u2039U+{ord(c):04X}\u203a" if _hides(c) else c for c in spaced)


def clipped(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how many characters there are in all."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()} … ({len(text):,} characters)"


def width(text: str) -> float:
    """About how many pixels wide, rather too many, in the letters of 12 pixels of a picture."""
    return sum(map(_width, text))


def short(text: str, pixels: float) -> str:
    """For a label in a picture: as much of the text as there is room for."""
    shown = visible(text)
    if width(shown) <= pixels:
        return shown
    while shown and width(shown) > pixels - 12:
        shown = shown[:-1]
    return f"{shown}…"


def markdown(text: str) -> str:
    """The text as CommonMark and GitHub show it literally: no mark-up, HTML, formula or link to a page in it."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", visible(text))


def _width(character: str) -> float:
    if character in "MWmw@%" or unicodedata.east_asian_width(character) in "WF":
        return 12.5
    return 9.0 if character.isupper() else 7.2


def _hides(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _HARMLESS
