"""What a page is made of, before it is written as HTML or Markdown. All text is plain; writers escape it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

# between the ends of an interval in a cell: a line breaks after it, never before
TO = "\u00a0to "


@dataclass(frozen=True)
class Quoted:
    """Text out of data, shown in quotation marks and cut off from the direction of the text around it.

    Attributes:
        text: as it is.
        before: what it is, in our own words.
    """

    text: str
    before: str = ""


# several are lines below each other
Cell = str | Quoted | tuple[str | Quoted, ...]


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it.

    Attributes:
        caption: what the table shows.
        head: names of the columns.
        rows: each as long as `head`.
        wide: whether the cells hold running text, so that lines have to break.
        folded: whether it is opened only on demand.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    wide: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture and the numbers in it.

    Attributes:
        title: what it shows.
        svg: the picture, labelled.
        table: its numbers.
        note: what to know about it.
    """

    title: str
    svg: Markup
    table: Table
    note: str = ""

    def saying(self, note: str) -> "Chart":
        """The same chart with a note."""
        return replace(self, note=note)


@dataclass(frozen=True)
class Command:
    """Something to type."""

    text: str


@dataclass(frozen=True)
class Listing:
    """A file, folded away.

    Attributes:
        title: its name.
        text: its lines.
    """

    title: str
    text: str


Block = str | Table | Chart | Command | Listing


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    Attributes:
        title: the heading.
        blocks: in their order; a string is a paragraph.
        missing: why parts of it are not there, in sentences.
    """

    title: str
    blocks: Sequence[Block]
    missing: Sequence[str] = field(default=())

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return "-".join(self.title.lower().replace(",", "").split())


@dataclass(frozen=True)
class Page:
    """Everything that is said.

    Attributes:
        title: names the run or runs.
        answer: the result in one line.
        sections: in their order.
    """

    title: str
    answer: str
    sections: Sequence[Section]
