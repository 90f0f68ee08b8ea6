"""A schema out of plain values, as JSON holds them, in a file nobody vouches for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_args

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable, printable, shortened
from smx_lightning.tables.schema import VERSION, Column, Kind, Schema, Unit

MOST = 2**20  # columns, categories or features of one schema: nothing longer is looked at
KNOWN = {"version", "columns", "target", "weight"}
OF_COLUMN = {"name", "kind", "missing", "fill", "unit", "categories", "other"}
UNITED = ("date", "number")  # kinds that may have a unit


def schema_told(told: Any) -> Schema:
    """The schema that plain values stand for.

    Raises:
        InputError: For what is none: other keys, types or versions, equal names, infinite numbers.
    """
    if not isinstance(told, Mapping) or not {*told} <= KNOWN or "columns" not in told:
        _refuse(f"a mapping of {', '.join(sorted(KNOWN))}", told)
    if type(told.get("version", VERSION)) is not int or told.get("version", VERSION) != VERSION:
        _refuse(f"version {VERSION}, the one that this release reads", told["version"])
    if not isinstance(told["columns"], (list, tuple)) or len(told["columns"]) > MOST:
        _refuse(f"a list of at most {MOST} columns", told["columns"])
    columns = tuple(map(_column, told["columns"]))
    target, weight = told.get("target"), told.get("weight")
    if isinstance(target, (list, tuple)):
        target = _names("target", target)
    elif target is not None:
        _text("target", target)
    if weight is not None:
        _text("weight", weight)
    schema = Schema(columns, target, weight)
    _check_names(schema)
    return schema


def check_features(names: Iterable[str]) -> None:
    """Complain about features of one name.

    Raises:
        InputError: It shows the name.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                f"expected features of different names, got two called {printable(name)!r}, of a "
                "column of that name or of one column's categories; rename a column"
            )
        seen.add(name)


def _check_names(schema: Schema) -> None:
    names = [column.name for column in schema.columns]
    names += [schema.target] if isinstance(schema.target, str) else schema.target or ()
    names += [] if schema.weight is None else [schema.weight]
    if len({*names}) < len(names):
        _refuse("columns of different names, target and weight among them", sorted(names))
    check_features(schema.feature_names)


def _column(told: Any) -> Column:
    if not isinstance(told, Mapping) or not {*told} <= OF_COLUMN or "name" not in told:
        _refuse(f"a column of name and others of {', '.join(sorted(OF_COLUMN))}", told)
    _text("name of a column", told["name"])
    kind, unit, fill = told.get("kind", "number"), told.get("unit"), told.get("fill")
    if kind not in get_args(Kind):
        _refuse(f"one of the kinds {', '.join(get_args(Kind))}", kind)
    if unit not in (None, *get_args(Unit)) or (unit is not None and kind not in UNITED):
        _refuse(f"one of the units {', '.join(get_args(Unit))}, of a date or a number", unit)
    if kind == "date" and unit is None:
        _refuse("a unit of a date", unit)
    if not isinstance(told.get("missing", False), bool):
        _refuse("missing of true or false", told["missing"])
    if fill is not None and (
        isinstance(fill, bool)
        or not isinstance(fill, (int, float))
        or kind == "category"
        or not abs(fill) <= sys.float_info.max
    ):
        _refuse("a finite fill of a column that is no category", fill)
    categories, other = (_names(name, told.get(name, ())) for name in ("categories", "other"))
    if (categories or other) and kind != "category":
        _refuse("categories of a category alone", kind)
    if {*categories} & {*other}:
        _refuse("categories that are not among other", sorted({*categories} & {*other}))
    return Column(
        **{
            **told,
            "fill": None if fill is None else float(fill),
            "categories": categories,
            "other": other,
        }
    )


def _names(what: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or len(values) > MOST:
        _refuse(f"{what} as a list of at most {MOST} texts", values)
    for value in values:
        _text(what, value)
    if len({*values}) < len(values):
        _refuse(f"{what} that differ", values)
    return tuple(values)


def _text(what: str, value: Any) -> None:
    if not isinstance(value, str):
        _refuse(f"{what} as text", value)
    check_encodable([value], what)


def _refuse(expected: str, got: Any) -> NoReturn:
    raise InputError(
        f"expected a schema with {expected}, got {shortened(printable(repr(got)), 200)}; take one "
        "that Schema.to_dict made"
    )
