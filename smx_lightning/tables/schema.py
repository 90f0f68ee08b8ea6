"""What the columns of a table are, and which features they become.

Conventions
-----------
A column becomes one or more features, in this order, columns in the order of the schema:

========= ================================================== ===========================
kind      features                                           their names
========= ================================================== ===========================
number    the number, or ``fill`` where it is missing;       ``age``, ``age is missing``
          1 where it is missing, if ``missing``; with
          ``unit``, a duration or a time of day in it
boolean   0 or 1; likewise                                   ``smokes``, …
date      units since 1970-01-01 UTC; likewise               ``born``, …
category  1 in the place of the row's category, one place    ``colour = red``, …,
          a category; then one for ``other`` ones, and one   ``colour = other``,
          where it is missing                                ``colour is missing``
========= ================================================== ===========================

A category that is none of these has 0 in all places. Where ``other`` is itself a category, the
place of the others is called ``colour = (other)``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, NoReturn, get_args

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable, printable, shortened

Kind = Literal["number", "boolean", "date", "category"]
Unit = Literal["s", "ms", "us", "ns", "D"]
VERSION = 1  # of the JSON form
OTHER = "other"
MOST = 2**20  # columns, categories or features of one schema: nothing longer is looked at
KNOWN = {"version", "columns", "target", "weight"}
OF_COLUMN = {"name", "kind", "missing", "fill", "unit", "categories", "other"}
UNITED = ("date", "number")  # kinds that may have a unit


@dataclass(frozen=True)
class Column:
    """One column of a table, and what stands for it among the features.

    Attributes:
        name: As the table has it.
        kind: See the module.
        missing: Whether there is a feature for values that are missing.
        fill: Of numbers, booleans and dates: what stands in place of a missing value; ``None``
            where a missing one is refused.
        unit: Of dates, durations and times of day: ``s``, ``ms``, ``us``, ``ns`` or ``D`` (days).
        categories: In the order of their features.
        other: Categories that share one feature; none where it is empty.
    """

    name: str
    kind: Kind = "number"
    missing: bool = False
    fill: float | None = None
    unit: Unit | None = None
    categories: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One name a feature, in order."""
        gap = (f"{self.name} is missing",) if self.missing else ()
        if self.kind != "category":
            return (self.name, *gap)
        other = OTHER
        while other in self.categories:
            other = f"({other})"
        others = (f"{self.name} = {other}",) if self.other else ()
        return (*(f"{self.name} = {category}" for category in self.categories), *others, *gap)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, without those that are the default."""
        told: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                told[field.name] = [*value] if isinstance(value, tuple) else value
        return told


@dataclass(frozen=True)
class Schema:
    """The columns that become features, in the order of these, and the names of the others.

    Attributes:
        columns: Those of the features.
        target: The column of the labels, or the columns of a distribution over the classes.
        weight: The column of the rows' weights.
    """

    columns: tuple[Column, ...]
    target: str | tuple[str, ...] | None = None
    weight: str | None = None

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """One name a feature, all columns' in order."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON holds; the inverse is :meth:`from_dict`."""
        return {
            "version": VERSION,
            "columns": [column.to_dict() for column in self.columns],
            "target": [*self.target] if isinstance(self.target, tuple) else self.target,
            "weight": self.weight,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Schema:
        """Of what :meth:`to_dict` made, perhaps in a file nobody vouches for.

        Raises:
            InputError: For anything else; it says what.
        """
        return _schema(told)

    @classmethod
    def given(cls, schema: Any) -> Schema | None:
        """Of an argument: a Schema, the dict that stands for it, or ``None``.

        Raises:
            InputError: For anything else.
        """
        return schema if schema is None or isinstance(schema, Schema) else cls.from_dict(schema)


def _schema(told: Any) -> Schema:
    """The schema that plain values stand for; whatever else they are is refused."""
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
