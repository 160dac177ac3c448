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
    """Let `handler` have both signals for the length of the block; where the thread cannot, nothing changes.

    Raises:
        StoppedError: where the handler raised one in the block, also at its end if it went nowhere until then: Python
            drops what comes up in a destructor, and libraries may catch what comes up in them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised: list[StoppedError] = []

    def deliver(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except StoppedError as stop:
            raised.append(stop)
            raise

    before = {number: signal.signal(number, deliver) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    if raised:
        raise raised[0]


def interrupt(number: int, _: FrameType | None) -> None:
    """Raise `StoppedError` where the program stands."""
    raise StoppedError(number, f"stopped by {signal.Signals(number).name}; continue with --resume")
