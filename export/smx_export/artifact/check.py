"""One check of a file and its result, and how results are put into words and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Any

NAME_WIDTH = 33  # of the longest check's name


@dataclass(frozen=True)
class Check:
    """What is checked, whether it holds, and what was found."""

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        from smx_lightning.errors.text import printable  # prediction alone needs none of it

        verdict = "ok  " if self.passed else "FAIL"
        return printable(f"{verdict} {self.name:{NAME_WIDTH}}  {self.detail}")


def as_html(summary: str, text: str) -> str:
    """A line for notebooks, which opens to more; whatever a file has put into it is text."""
    from smx_lightning.errors.text import lines, printable

    shown = lines(text.split("\n"))
    return (
        f"<details><summary>{escape(printable(summary))}</summary><pre>{escape(shown)}</pre>"
        "</details>"
    )


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def strings_for_nan(value: Any) -> Any:
    """The same structure with NaN and infinity as strings, which JSON can hold."""
    if isinstance(value, dict):
        return {key: strings_for_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [strings_for_nan(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
