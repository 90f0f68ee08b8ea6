"""One export at a time in a process, whatever its threads ask for.

torch's exporter is not made for threads: it patches classes, filters of warnings and loggers for
the whole process while it traces, and so for models that other threads call. Those that only write
a linear model's file wait, too: the parity check calls the model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")

_turn = threading.RLock()


def in_turn(function: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """A function that waits until no other thread runs one of these; it may call others of them."""

    @wraps(function)
    def waiting(*args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        with _turn:
            return function(*args, **kwargs)

    return waiting


def _anew() -> None:
    """In a forked process, where the thread that had its turn does not exist."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
