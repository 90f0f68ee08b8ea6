"""Ending a program in order where a signal ends it: its drafts and processes go with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("SIGTERM", "SIGHUP")  # Python itself makes a KeyboardInterrupt of SIGINT


class Ended(KeyboardInterrupt):
    """A signal that would have ended the process at once; its number is the argument."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Raise :class:`Ended` on signals that nobody handles or ignores, in the main thread."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in NAMES if here and hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def code_of(end: KeyboardInterrupt) -> int:
    """What shells give a process that a signal ended."""
    number = end.args[0] if isinstance(end, Ended) else signal.SIGINT
    return exit_code(number)


def exit_code(number: int) -> int:
    """What shells give a process that a signal ended."""
    return 128 + int(number)


def _raise(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    raise Ended(number)
