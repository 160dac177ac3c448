"""SIGTERM and SIGINT as an exception, so that nothing is left half-made."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nlptrain.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT)
Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Let `handler` have both signals for the length of the block; where the thread cannot, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt(number: int, _: FrameType | None) -> None:
    """Raise `StoppedError` where the program stands."""
    raise StoppedError(number, f"stopped by {signal.Signals(number).name}; continue with --resume")
