"""Text files as streams: bytes that are not text are found, with their place, before the first line is used."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from nlptrain.errors import ConfigError, DataError

_BLOCK = 1 << 20
_MARK = "\ufeff"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)


@contextmanager
def text_file(path: Path, encoding: str, *, newline: str) -> Iterator[TextIO]:
    """A file that is text from end to end, opened after its byte order mark; needs the memory of one block.

    Args:
        path: the file.
        encoding: utf-8 may begin with a byte order mark.
        newline: as of `open`.

    Raises:
        DataError: unreadable, empty, or not text; the message names line and byte.
        ConfigError: unknown encoding.
    """
    try:
        codec = codecs.lookup(encoding).name.replace("utf-8-sig", "utf-8")
        file = path.open(encoding=codec, newline=newline)
    except (LookupError, ValueError) as error:
        raise ConfigError("DATA_ENCODING", f"data.encoding: {encoding!r} is not a text encoding; use utf-8") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        try:
            _check(path, codec)
            if file.read(1) != _MARK:
                file.seek(0)
            yield file
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError("DATA_FILE", f"{path}: cannot be read ({error.strerror}); check its permissions")


def _check(path: Path, codec: str) -> None:
    line, blank = 1, True
    for text in _decoded(path, codec):
        if (nul := text.find("\0")) >= 0:
            at = line + text.count("\n", 0, nul)
            problem = f"{path}:{at}: a NUL character, so not a text file"
            raise DataError("DATA_NUL", f"{problem}; save it as plain UTF-8 text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            at = line + text.count("\n", 0, error.start)
            problem = f"{path}:{at}: half a surrogate pair, which is no character"
            raise DataError("DATA_ENCODING", f"{problem}; save it as plain UTF-8 text") from error
        line, blank = line + text.count("\n"), blank and not text.removeprefix(_MARK).strip()
    if blank:
        raise DataError("DATA_EMPTY", f"{path}: expected rows, found an empty file; give a file with rows")


def _decoded(path: Path, codec: str) -> Iterator[str]:
    """The text, block by block."""
    decoder, offset = codecs.getincrementaldecoder(codec)(), 0
    with path.open("rb") as file:
        _refuse_mark(path, file.read(4), codec)
        file.seek(0)
        more = True
        while more:
            block = file.read(_BLOCK)
            more, held = bool(block), len(decoder.getstate()[0])
            try:
                yield decoder.decode(block, final=not more)
            except UnicodeDecodeError as error:
                at = offset - held + error.start
                raise DataError("DATA_ENCODING", _undecodable(path, error.object[error.start], at, codec)) from error
            except UnicodeError as error:  # no byte order mark where the codec needs one
                problem = f"{path}:1: not {codec}: {error}"
                raise DataError("DATA_ENCODING", f"{problem}; set data.encoding to what the file is") from error
            offset += len(block)


def _refuse_mark(path: Path, start: bytes, codec: str) -> None:
    """A byte order mark of another encoding than `codec` is an error."""
    name = next((name for mark, name in _MARKS if start.startswith(mark)), codec)
    if not codec.startswith(name):
        problem = f"{path}:1: expected {codec}, found the byte order mark of {name} at byte offset 0"
        raise DataError("DATA_ENCODING", f"{problem}; convert the file to UTF-8 or set data.encoding: {name}")


def _undecodable(path: Path, byte: int, offset: int, codec: str) -> str:
    problem = f"{path}:{_line(path, offset)}: byte 0x{byte:02x} at byte offset {offset} is not {codec}"
    hint = "latin-1" if codec == "utf-8" else "utf-8"
    return f"{problem}; convert the file to UTF-8, or say what it is, for example data.encoding: {hint}"


def _line(path: Path, offset: int) -> int:
    """The line of a byte, counted in line feeds."""
    line = 1
    with path.open("rb") as file:
        while offset > 0:
            block = file.read(min(_BLOCK, offset))
            line, offset = line + block.count(b"\n"), offset - max(len(block), 1)
    return line
