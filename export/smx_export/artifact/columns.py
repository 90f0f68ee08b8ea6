"""What a file says of its features: their names, and the table's columns that they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smx_export.contract import FEATURE_NAMES, SCHEMA
from smx_export.errors import FileError
from smx_lightning.errors.text import printable, shortened
from smx_lightning.tables import Column, Schema

SHOWN_COLUMNS, SHOWN_NAMES, MOST_OF_A_NAME = 40, 6, 40
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def schema_in(metadata: Mapping[str, str], width: int, path: str | Path) -> Schema | None:
    """How a file's features come of a table's columns; ``None`` of a file that names none.

    Of a file that names its features alone, each is the number in the column of that name.

    Args:
        metadata: Of the file.
        width: Numbers in a row of its input.
        path: The file, for the message.

    Raises:
        FileError: Where they are not what they must be, or do not fit the file.
    """
    if not metadata.keys() & {FEATURE_NAMES, SCHEMA}:
        return None
    try:
        names = names_of(json.loads(metadata.get(FEATURE_NAMES, "null")))
        if SCHEMA not in metadata:
            found = Schema(tuple(map(Column, names)))
        else:
            found = schema_of(json.loads(metadata[SCHEMA]))
        fits = list(found.feature_names) == names and len(names) == width
    except UNREADABLE:
        fits = False
    if not fits:
        raise FileError(
            f"expected names of {width} features, and the columns that they come from, in the "
            f"metadata of {path}, got others; export the model again"
        )
    return found


def names_of(value: Any) -> list[str]:
    """Names of features out of JSON, if they are that.

    Raises:
        ValueError: For anything else.
    """
    texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
    if not texts or len({*value}) != len(value):
        raise ValueError(f"expected a list of different names, got {value!r:.40}")
    return list(value)


def schema_of(value: Any) -> Schema:
    """A schema out of JSON, if it is one.

    Raises: One of :data:`UNREADABLE`.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected a schema, got {value!r:.40}")
    return Schema.from_dict(value)


def in_words(schema: Schema) -> list[str]:
    """A line a column: its name, its kind, and what it becomes; the first ones of many."""
    shown = schema.columns[:SHOWN_COLUMNS]
    names = [shortened(printable(column.name), MOST_OF_A_NAME) for column in shown]
    wide = max(map(len, names), default=0)
    lines = [
        f"{name:{wide}}  {column.kind:8}  {_becomes(column)}".rstrip()
        for name, column in zip(names, shown, strict=True)
    ]
    more = len(schema.columns) - len(shown)
    return [*lines, f"… and {more:,} more"] if more else lines


def _becomes(column: Column) -> str:
    """Categories, unit, and what stands in place of a missing value."""
    parts = []
    if column.unit is not None:
        parts.append(f"in {column.unit} since 1970")
    if column.kind == "category":
        parts.append(listed(column.categories))
        parts += [f"other: {listed(column.other)}"] if column.other else []
        parts += ["missing as one of its own"] if column.missing else []
    elif column.fill is None:
        parts.append("missing refused")
    else:
        said = " and noted" if column.missing else ""
        parts.append(f"missing as {column.fill:.6g}{said}")
    return "; ".join(parts)


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many there are."""
    shown = ", ".join(shortened(name, MOST_OF_A_NAME) for name in names[:SHOWN_NAMES])
    return f"{shown}, … ({len(names):,} in all)" if len(names) > SHOWN_NAMES else shown


def difference(expected: Any, got: Any, at: str = "") -> str:
    """Where two values of JSON differ first, in words; nothing where they are the same."""
    if isinstance(expected, dict) and isinstance(got, dict):
        both: Any = {key: (expected.get(key), got.get(key)) for key in {**expected, **got}}
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        both = dict(enumerate(zip(expected, got, strict=True)))
    elif type(expected) is type(got) and expected == got:
        return ""
    else:
        where = f" as {at}" if at else ""
        return f"expected {_brief(expected)}{where}, got {_brief(got)}"
    faults = (difference(*pair, f"{at}[{json.dumps(key)}]") for key, pair in both.items())
    return next(filter(None, faults), "")


def _brief(value: Any) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), 2 * MOST_OF_A_NAME)
