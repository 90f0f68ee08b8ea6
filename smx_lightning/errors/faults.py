"""What ended a program, as a sentence and an exit code: the input, somebody's code, or ours.

1 means failed parity in both programs, and Python gives every exception 1. So each of them gets a
code here, none of which is 1.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from smx_lightning.errors import InputError
from smx_lightning.errors.text import one_line
from smx_lightning.errors.unreadable import reason, sentence_of

BAD_INPUT = 2
BUG = 70  # EX_SOFTWARE of BSD's sysexits.h
NOBODY_READS = 141  # what shells give a process that SIGPIPE ended

OUR_PACKAGES = ("smx_lightning", "smx_export")
INSTALLED = ("site-packages", "dist-packages")
STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
# What torch says where memory is short, which is no MemoryError of Python's.
NO_MEMORY = re.compile(r"DefaultCPUAllocator: |out of memory|can't allocate memory")
# What is left to a process of several where another one has ended or cannot be reached: gloo's
# words, and torch's kinds.
LEFT_ALONE = re.compile(r"Connection (closed|reset) by peer")
UNREACHED = ("DistBackendError", "DistNetworkError", "DistStoreError")


class Fault(NamedTuple):
    """What ended a program.

    Attributes:
        code: The exit code.
        sentence: What was expected, what was given, and the remedy.
        puzzling: Whether the traceback is needed to find it.
    """

    code: int
    sentence: str
    puzzling: bool = False


def fault_of(error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> Fault:
    """What ended a program, by the exception that nobody caught.

    Args:
        error: With its traceback and its causes: parsers and Trainers wrap what they catch.
        expected: Other exceptions than InputError that say what was wrong with the input.
    """
    for cause in causes(error):
        if (sentence := _of_input(cause, (InputError, *expected))) is not None:
            return Fault(BAD_INPUT, sentence)
        if isinstance(cause, BrokenPipeError):
            return Fault(NOBODY_READS, "")
        if isinstance(cause, OSError) and not isinstance(cause, ImportError):
            return Fault(BAD_INPUT, sentence_of(cause))
        if (where := users_line(cause)) is not None:
            return Fault(BAD_INPUT, _of_user(cause, where), puzzling=True)
        error = cause
    if isinstance(error, ImportError):
        return _not_imported(error)
    if _complains(error):
        return Fault(BAD_INPUT, one_line(error))
    if isinstance(error, RuntimeError) and (
        LEFT_ALONE.search(str(error)) or type(error).__name__ in UNREACHED
    ):
        return Fault(
            BAD_INPUT,
            f"expected all processes of this run to reach one another, got: {one_line(error)}; "
            "what another one said is the reason, or the network",
        )
    if isinstance(error, SystemExit):
        return Fault(BAD_INPUT, f"expected to run to the end, got exit code {error.code!r}", True)
    return Fault(
        BUG,
        f"failed where it should not, with {_named(error)}{_at(_last(error))}; please report it",
        puzzling=True,
    )


def users_line(error: BaseException) -> traceback.FrameSummary | None:
    """The last line in code that is neither ours nor installed, on the way to an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename is not None:  # of a module on its way in
        frames.append(traceback.FrameSummary(error.filename, error.lineno, "<module>"))
    return next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)


def _is_users(name: str) -> bool:
    path = Path(name)
    if name.startswith("<") or any(part in INSTALLED for part in path.parts):
        return False
    return not _is_ours(name) and not _within(name, STANDARD)


def _is_ours(name: str) -> bool:
    packages = (sys.modules[package] for package in OUR_PACKAGES if package in sys.modules)
    return _within(name, tuple(folder for package in packages for folder in package.__path__))


def _within(name: str, folders: tuple[str, ...]) -> bool:
    return any(Path(name).is_relative_to(folder) for folder in folders)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what led to it, from the last to the first."""
    seen: set[int] = set()
    root: BaseException | None = error
    while root is not None and id(root) not in seen:
        seen.add(id(root))
        yield root
        root = root.__cause__ or (None if root.__suppress_context__ else root.__context__)


def _of_input(error: BaseException, expected: tuple[type[BaseException], ...]) -> str | None:
    """What an exception says of the input, if it speaks of it."""
    if isinstance(error, expected):
        return one_line(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))
    ):
        return f"expected input that there is memory for, got more ({reason(error)}); use less"
    return None


def _of_user(error: BaseException, where: traceback.FrameSummary) -> str:
    what = "an exit" if isinstance(error, SystemExit) else _named(error)
    return f"expected {_shown(where.filename)} to run, got {what}{_at(where)}; mend it there"


def _not_imported(error: ImportError) -> Fault:
    if str(error.name or "").partition(".")[0] in OUR_PACKAGES:
        return Fault(BUG, f"is not installed as a whole: {reason(error)}; install it again", True)
    return Fault(
        BAD_INPUT,
        f"expected what this needs to be installed, got: {one_line(error)}; install it, or leave "
        "out what needs it",
    )


def _complains(error: BaseException) -> bool:
    """Whether a library, or ours, says by an exception that an argument is of no use to it.

    A ValueError does, unless a line of ours met it without having raised it; Lightning says so by
    other kinds, too, as of a callback's monitor that nobody logs.
    """
    last = _last(error)
    raised = last is not None and (last.line or "").startswith("raise")
    if isinstance(error, Warning):  # which the user has made errors
        return True
    if isinstance(error, ValueError):
        return raised or last is None or not _is_ours(last.filename)
    path = "" if last is None else _shown(last.filename)
    return raised and isinstance(error, (RuntimeError, TypeError)) and path.startswith("lightning")


def _last(error: BaseException) -> traceback.FrameSummary | None:
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1] if frames else None


def _named(error: BaseException) -> str:
    name, said = type(error).__name__, one_line(error)
    return f"{name}: {said}" if said else name


def _at(frame: traceback.FrameSummary | None) -> str:
    return (
        "" if frame is None else f" in {frame.name}, {_shown(frame.filename)} line {frame.lineno}"
    )


def _shown(name: str) -> str:
    """A path as short as it can be: of this folder, of a package, or as it is."""
    path = Path(name)
    for mark in INSTALLED:
        if mark in path.parts:
            return str(Path(*path.parts[path.parts.index(mark) + 1 :]))
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
