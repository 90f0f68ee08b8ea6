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

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

Kind = Literal["number", "boolean", "date", "category"]
Unit = Literal["s", "ms", "us", "ns", "D"]
VERSION = 1  # of the JSON form
OTHER = "other"


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
        from smx_lightning.tables.told import schema_told

        return schema_told(told)
