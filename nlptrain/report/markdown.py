"""A page as Markdown: instead of pictures their tables, where these are short, and nothing that is folded away."""

from collections.abc import Iterator, Sequence

from nlptrain.report.blocks import Block, Cell, Chart, Command, Page, Quoted, Table
from nlptrain.report.safe_text import markdown as escaped
from nlptrain.report.safe_text import visible

# a picture with a longer table is for the page alone
MOST_ROWS = 20


def markdown(page: Page) -> str:
    """The whole document."""
    return "\n\n".join(_parts(page)) + "\n"


def _parts(page: Page) -> Iterator[str]:
    yield f"# {escaped(page.title)}"
    yield f"**{escaped(page.answer)}**"
    for section in page.sections:
        written = [text for block in section.blocks if (text := _block(block))]
        written += [f"Not shown: {escaped(reason)}." for reason in section.missing]
        if written:
            yield f"## {escaped(section.title)}"
            yield from written


def _block(block: Block) -> str:
    if isinstance(block, str):
        return escaped(block)
    if isinstance(block, Table):
        return "" if block.folded else table(block)
    if isinstance(block, Chart):
        shown = [table(block.table)] if len(block.table.rows) <= MOST_ROWS else []
        return "\n\n".join([*shown, *([escaped(block.note)] if block.note else [])])
    # indented, so that no fence can end in it; a listing is in the run folder
    return f"    {visible(block.text)}" if isinstance(block, Command) else ""


def table(block: Table) -> str:
    """A table with its caption before it."""
    lines = [
        f"{escaped(block.caption)}:",
        "",
        _row([escaped(name) for name in block.head]),
        _row(["---"] * len(block.head)),
    ]
    return "\n".join([*lines, *(_row([_cell(cell) for cell in row]) for row in block.rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, tuple):
        return "<br>".join(map(_cell, cell))
    return f"{escaped(cell.before)}“{escaped(cell.text)}”" if isinstance(cell, Quoted) else escaped(cell)
