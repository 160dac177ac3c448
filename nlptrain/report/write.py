"""The stage of `nlptrain report`: read runs, make their page, and write it in its forms."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlptrain.errors import ConfigError
from nlptrain.report import run_page, several, speed
from nlptrain.report.blocks import Page
from nlptrain.report.card import MARK, card
from nlptrain.report.facts import RunFacts
from nlptrain.report.html import html
from nlptrain.report.markdown import markdown
from nlptrain.results import write_text
from nlptrain.run_folder import RunFolder


def report(paths: Sequence[Path], output: Path | None = None, measured: Path | None = None) -> dict[str, Any]:
    """Write report.html and report.md, and of a single run its model card.

    Args:
        paths: run folders, or folders of one run per seed.
        output: a folder for all of it; None: the run folder, with the card in its model folder as README.md.
        measured: a benchmark's record to show beside the rest, see `nlptrain.report.speed`; None: nothing of speed.

    Returns:
        JSON-ready: ``html``, ``markdown`` and ``card`` (paths; None: no card), ``answer``, and ``missing``: what the
        page could not show.

    Raises:
        ModelError: not a finished run, or runs of different tasks.
        ConfigError: several runs without an output, one that is no folder or cannot be made, or no such record.
        ResourceError: the file system refused; what was there is unchanged.
    """
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError("OUTPUT", f"--output: expected a folder, found the file {output}")
    single = len(paths) == 1 and (RunFolder(paths[0]).config.is_file() or not _holds_runs(paths[0]))
    if not single and output is None:
        raise ConfigError("USAGE", "a report of several runs belongs to none of them: give --output DIR")
    facts = RunFacts.read(paths[0]) if single else None
    page = run_page.page(facts) if facts else several.page(paths)
    page = replace(page, sections=[*page.sections, speed.section(measured)]) if measured else page
    folder = output or paths[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("OUTPUT", f"--output: cannot create {folder}: {error.strerror}") from error
    written = _write(page, folder)
    where = _write_card(facts, output) if facts else None
    missing = [reason for section in page.sections for reason in section.missing]
    return {**written, "card": where, "answer": page.answer, "missing": list(dict.fromkeys(missing))}


def _holds_runs(path: Path) -> bool:
    return any(path.glob("*/config.yaml"))


def _write(page: Page, folder: Path) -> dict[str, str]:
    files = {"html": folder / "report.html", "markdown": folder / "report.md"}
    write_text(files["html"], html(page))
    write_text(files["markdown"], markdown(page))
    return {name: str(path) for name, path in files.items()}


def _write_card(facts: RunFacts, output: Path | None) -> str | None:
    """Where the card is; None where a card that somebody wrote is in its place, or there is no model folder."""
    path = output / "model_card.md" if output else facts.folder.model / "README.md"
    if not path.parent.is_dir() or (path.exists() and MARK not in path.read_text("utf-8", errors="replace")):
        return None
    write_text(path, card(facts))
    return str(path)
