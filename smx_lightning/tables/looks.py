"""Text that looks like numbers or dates which pyarrow does not take for such."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOOKED_AT = 1000  # values of a column
WITH_COMMA = "numbers with a decimal comma"
WITH_UNIT = "numbers with a sign beside them"
DATES = "dates"  # as data frames hold them that were read without being told of dates
OTHER_DATES = "dates that are not written as 2026-05-17"
_REMEDIES = {
    WITH_COMMA: "give decimal=','",
    WITH_UNIT: "take the sign out",
    DATES: "say so with kinds= ('date')",
    OTHER_DATES: "write them so",
}
_NUMBER = r"[+-]?(\d{1,3}([., \u00a0']\d{3})+|\d+)([.,]\d+)?"
_KINDS = {
    WITH_COMMA: re.compile(r"\s*[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+\s*"),
    WITH_UNIT: re.compile(rf"\s*([$€£]\s?{_NUMBER}|{_NUMBER}\s?[%$€£])\s*"),
    DATES: re.compile(
        r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2})?([.]\d+)?(Z|[+-]\d{2}:?\d{2})?)?"
    ),
    OTHER_DATES: re.compile(
        r"\s*\d{1,2}([./-])\d{1,2}\1(\d{4}|\d{2})([ T]\d{1,2}:\d{2}(:\d{2})?)?\s*"
    ),
}


def looks_like(text: str) -> str | None:
    """What a text looks like, in words; ``None`` where it is none of these."""
    found = (words for words, pattern in _KINDS.items() if pattern.fullmatch(text))
    return next(found, None)


def remedy_for(values: Iterable[str]) -> tuple[str, str] | None:
    """What all of some values look like, and what to do; ``None`` where it is nothing in common."""
    found = {looks_like(value) for _, value in zip(range(LOOKED_AT), values, strict=False)}
    words = found.pop() if len(found) == 1 else None
    return None if words is None else (words, _REMEDIES[words])
