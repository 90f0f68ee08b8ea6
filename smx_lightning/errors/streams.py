"""What is printed, when the terminal, the disk or the reader at the other end has its limits."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smx_lightning.errors.text import printable
from smx_lightning.errors.unreadable import reason

PATIENCE = 5.0  # seconds between two lines about what is under way
Say = Callable[[str], None]


def tolerate_encodings() -> None:
    """Let what the terminal's encoding lacks be printed as an escape, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # not of what stands in for a stream
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def written_out(program: str, code: int, failed: int) -> int:
    """The exit code once what was printed has gone where it goes.

    Python would only find out at its end, when it is too late for an exit code of ours. Who stops
    reading, as ``head`` does, has read enough.

    Args:
        program: Its name, for the sentence.
        code: The exit code so far.
        failed: That where the output cannot be written.
    """
    try:
        if sys.stdout is not None:  # as it is where the shell has closed it
            sys.stdout.flush()
        return code
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again
        if isinstance(error, BrokenPipeError):
            return code
        said = f"expected to write the output, got: {reason(error)}; make room, or redirect it"
        print(printable(f"{program}: {said}"), file=sys.stderr)
        return failed


@dataclass
class Doing:
    """What is under way, in words that change as it goes on."""

    words: str


def on_stderr(line: str) -> None:
    """Print a line beside the output."""
    print(printable(line), file=sys.stderr, flush=True)


@contextmanager
def said_meanwhile(say: Say | None, words: Callable[[], str]) -> Iterator[None]:
    """Say every few seconds what is under way, from a thread of its own: it may be one long call.

    Args:
        say: Told it; nobody where that is ``None``.
        words: What is under way.
    """
    if say is None:
        yield
        return
    done = threading.Event()

    def tell() -> None:
        while not done.wait(PATIENCE):
            say(words())

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
