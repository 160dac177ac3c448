"""Sentences with human sentiment ratings for the demo: fetched by hash, checked, split and written as CSV.

The source is the sdist of vaderSentiment 3.3.2 (MIT licence), which carries the rated sentences of C. J. Hutto and
E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014. Tweets
and product-review sentences are used; the film sentences are not, because they are those of the SST-2 benchmark.
Only the standard library and pip are needed: ``python scripts/demo_data.py FOLDER``.
"""

import argparse
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

REQUIREMENT = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
OUTER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {"tweets": "tweets", "reviews": "amazonReviewSnippets"}
MAX_MEMBER_BYTES = 8_000_000
SPLITS = ("train", "validation", "test")

README = """Sentences with human sentiment ratings, for the demo of nlptrain. Made by scripts/demo_data.py.

source   {requirement} from the Python package index, member
         additional_resources/hutto_ICWSM_2014.tar.gz, UTF-8; tweets and product-review sentences only
sha256   {sha256}
paper    C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
         Social Media Text", ICWSM 2014
licence  MIT, Copyright (c) 2016 C. J. Hutto; the texts are their writers'
columns  id, source, text (HTML entities as in the source), label (sign of the rating), rating (mean of at
         least 20 raters, -4 to 4)
splits   by hash; sentences of one review and equal texts stay in one split
dropped  {zeros} rows rated exactly 0
rows     {counts}

{sums}
"""


class DemoDataError(Exception):
    """The demo data cannot be fetched or are not what is expected."""


class Row(NamedTuple):
    """One sentence with its mean rating, -4 to 4, as written in the source."""

    id: str
    source: str
    text: str
    rating: str

    @property
    def label(self) -> str:
        """Sign of the rating as a word."""
        return "positive" if float(self.rating) > 0 else "negative"

    @property
    def group(self) -> str:
        """The review (`12` of `12_3`) or tweet the sentence comes from."""
        return f"{self.source}-{self.id.partition('_')[0]}"

    @property
    def key(self) -> str:
        """The text without differences of case, spacing and Unicode form."""
        return " ".join(unicodedata.normalize("NFC", self.text).casefold().split())


def download() -> bytes:
    """The sdist as pip delivers it.

    pip asks the package's own build script for metadata, after it has compared the hash; the build tools are those
    already installed.

    Raises:
        DemoDataError: pip could not fetch a file with that hash.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n", encoding="utf-8")
        options = ["--no-deps", "--no-binary", "vaderSentiment", "--no-build-isolation", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", "-qq", "--retries", "1", *options]
        done = subprocess.run([*command, "-r", wanted, "-d", folder], capture_output=True, text=True, check=False)
        found = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or len(found) != 1:
            said = next((line for line in done.stderr.splitlines() if "ERROR:" in line), done.stderr.strip()[-200:])
            raise DemoDataError(
                f"pip could not fetch {REQUIREMENT} (it says: {said.removeprefix('ERROR: ')}); "
                "check that the package index can be reached, then run this again"
            )
        return found[0].read_bytes()


def read(sdist: bytes, sha256: str = SHA256) -> list[Row]:
    """The rated sentences of an sdist, in the order of the source; nothing is unpacked to disk.

    Raises:
        DemoDataError: the hash, a member or a line is not as expected.
    """
    found = hashlib.sha256(sdist).hexdigest()
    if found != sha256:
        raise DemoDataError(f"expected a file with sha256 {sha256}, found {found}; it was not opened")
    inner = _member(sdist, OUTER)
    return [
        _row(source, number, line)
        for source, stem in SOURCES.items()
        for number, line in _lines(_member(inner, f"hutto_ICWSM_2014/{stem}_GroundTruth.txt"))
    ]


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        found = [member for member in tar if member.name == name and member.isreg() and member.size <= MAX_MEMBER_BYTES]
        stream = tar.extractfile(found[0]) if len(found) == 1 else None
        if stream is None:
            raise DemoDataError(f"expected one plain file {name} of at most {MAX_MEMBER_BYTES} bytes in the archive")
        return stream.read()


def _lines(text: bytes) -> list[tuple[int, str]]:
    # Not splitlines(): a sentence may hold a character that it takes for the end of a line.
    lines = text.decode("utf-8").replace("\r\n", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line]


def _row(source: str, number: int, line: str) -> Row:
    match = re.fullmatch(r"(\d+(?:_\d+)?)\t(-?\d+(?:\.\d+)?)\t(.*\S.*)", line)
    if match is None:
        raise DemoDataError(f"{source}, line {number}: expected id, rating and text between tabs, found {line[:80]!r}")
    return Row(match[1], source, match[3], match[2])


def split(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by split, about 80/10/10, decided by the hash of each row's group alone.

    Groups that share a text count as one. Rows rated exactly zero have no sign and must be left out before.
    """
    rows = list(rows)
    root: dict[str, str] = {}
    first: dict[str, str] = {}
    for row in rows:
        one, other = sorted((_find(root, row.group), _find(root, first.setdefault(row.key, row.group))))
        root[other] = one
    parts: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        tenth = int(hashlib.sha256(_find(root, row.group).encode()).hexdigest(), 16) % 10
        parts[{0: "test", 1: "validation"}.get(tenth, "train")].append(row)
    return parts


def _find(root: dict[str, str], group: str) -> str:
    while root.get(group, group) != group:
        group = root[group]
    return group


def make(folder: Path, fetch: Callable[[], bytes] = download, sha256: str = SHA256) -> bool:
    """Write the three CSV files and README.txt, which records their hashes and comes last.

    Returns:
        False when the files already stand there as recorded and nothing was done.

    Raises:
        DemoDataError: see `download` and `read`.
    """
    if is_complete(folder):
        return False
    rows = read(fetch(), sha256)
    rated = [row for row in rows if float(row.rating) != 0]
    folder.mkdir(parents=True, exist_ok=True)
    parts = split(rated)
    tables = {f"{name}.csv": _table(part).encode("utf-8") for name, part in parts.items()}
    for name, table in tables.items():
        _replace(folder / name, table)
    text = README.format(
        requirement=REQUIREMENT,
        sha256=sha256,
        zeros=len(rows) - len(rated),
        counts=", ".join(f"{name} {_count(part)}" for name, part in parts.items()),
        sums="\n".join(f"{hashlib.sha256(table).hexdigest()}  {name}" for name, table in tables.items()),
    )
    _replace(folder / "README.txt", text.encode("utf-8"))
    return True


def is_complete(folder: Path) -> bool:
    """Whether every CSV file is there and has the hash that README.txt records."""
    readme = folder / "README.txt"
    record = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    sums = {name: sha256 for sha256, name in re.findall(r"^([0-9a-f]{64})  (\w+\.csv)$", record, flags=re.MULTILINE)}
    paths = {name: folder / f"{name}.csv" for name in SPLITS}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sums.get(path.name)
        for path in paths.values()
    )


def _table(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "text", "label", "rating"])
    writer.writerows([f"{row.source}-{row.id}", row.source, row.text, row.label, row.rating] for row in rows)
    return text.getvalue()


def _count(rows: list[Row]) -> str:
    labels = Counter(row.label for row in rows)
    return f"{len(rows)} ({labels['negative']} negative, {labels['positive']} positive)"


def _replace(path: Path, content: bytes) -> None:
    # Beside its place, then renamed: a reader never meets half a file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def main() -> int:
    """Write the data to the folder named on the command line; exit code 3 when they cannot be had."""
    parser = argparse.ArgumentParser(description="Fetch rated sentences and write train, validation and test CSV.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    try:
        made = make(folder)
    except DemoDataError as error:
        print(f"demo_data: error: {error}", file=sys.stderr)
        return 3
    print(f"demo_data: {folder} {'written' if made else 'is complete'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
