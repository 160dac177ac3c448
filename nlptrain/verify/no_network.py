"""``python -m nlptrain.verify.no_network FILE WORDS...``: a command for which every connection is noted and refused."""

import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ADDRESSED = ("socket.connect", "socket.sendto", "socket.sendmsg")
_NAMED = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def refusing(path: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook (PEP 578) that writes a line of `path` for each connection and raises OSError.

    Sockets of the machine's own processes (AF_UNIX), by which workers hand over tensors, go nowhere and are let be.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NAMED or (event in _ADDRESSED and _is_far(arguments[0])):
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{event} {arguments[-1] if event in _ADDRESSED else arguments[0]}\n")
            raise OSError(f"no network here: {event}")

    return hook


def _is_far(found: socket.socket) -> bool:
    return found.family in (socket.AF_INET, socket.AF_INET6)


if __name__ == "__main__":
    seen = Path(sys.argv[1])
    seen.write_text("", encoding="utf-8")
    sys.addaudithook(refusing(seen))
    sys.argv = sys.argv[1:]
    runpy.run_module("nlptrain", run_name="__main__", alter_sys=True)
