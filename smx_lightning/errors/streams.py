"""What is printed, when the terminal, the disk or the reader at the other end has its limits."""

from __future__ import annotations

import os
import sys

from smx_lightning.errors.text import printable
from smx_lightning.errors.unreadable import reason


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
