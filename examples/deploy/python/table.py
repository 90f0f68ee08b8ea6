"""A CSV file as rows of features, by the schema that a model of tables carries in its metadata."""

import csv
import json
import math
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LONGER, SHORTER = {"D": 86_400_000_000, "s": 1_000_000, "ms": 1000}, {"ns": 1000}  # microseconds
TRUTHS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0}
MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"}
MISSING |= {"1.#QNAN", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"}


def number(kind: str, text: str, unit: str) -> float:
    """What a cell of a column that is no category stands for; times without a zone are in UTC."""
    if kind == "boolean":
        return TRUTHS[text.lower()]
    if kind == "number":
        return float(text)
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return (time - EPOCH) // timedelta(microseconds=1) * SHORTER.get(unit, 1) / LONGER.get(unit, 1)


def features(column: dict[str, Any], text: str) -> list[float]:
    """A cell's features, as smx_lightning.tables makes them."""
    gap, kind, fill = text in MISSING, column.get("kind", "number"), column.get("fill")
    note = [float(gap)] if column.get("missing") else []
    if kind == "category":
        other = column.get("other", [])
        places = [not gap and text == name for name in column.get("categories", [])]
        return [*map(float, places + [not gap and text in other] * bool(other)), *note]
    try:
        value = number(kind, text, column.get("unit", "")) if not gap else float(fill)
    except (LookupError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} in column {column['name']!r}, which holds a {kind} a row")
    return [value, *note]


def rows(path: str, texts: dict[bytes, bytes]) -> Any:
    """All rows (n, features) of a CSV file, whose columns are found by name."""
    names = json.loads(texts.get(b"feature_names", b"[]"))
    schema = json.loads(texts[b"schema"]) if b"schema" in texts else None
    columns = schema["columns"] if schema else [{"name": name} for name in names]
    if not columns:
        raise ValueError("a model that names no columns, which takes .npy files alone")
    made, unknown = [], 0
    with open(path, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123
        for row in csv.DictReader(file, restval=""):
            if missing := [column["name"] for column in columns if column["name"] not in row]:
                raise ValueError(f"a table without column {missing[0]!r}")
            parts = [features(column, row[column["name"]]) for column in columns]
            cells = [row[c["name"]] for c in columns if c.get("kind") == "category"]
            places = [p for c, p in zip(columns, parts, strict=True) if c.get("kind") == "category"]
            unknown += sum(
                cell not in MISSING and not any(place)
                for cell, place in zip(cells, places, strict=True)
            )
            made.append([value for part in parts for value in part])
    if unknown:
        print(f"warning: {unknown} categories that the model does not know", file=sys.stderr)
    return np.array(made, float).reshape(len(made), len(names))
