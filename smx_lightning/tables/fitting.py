"""A schema out of training rows, a part of a table at a time, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable
from smx_lightning.tables.encoding import columns_of, listed
from smx_lightning.tables.labels import Labels, label_values, row_weights
from smx_lightning.tables.places import SOMEWHERE, Place
from smx_lightning.tables.schema import Kind, Schema, check_features
from smx_lightning.tables.tallies import Tally
from smx_lightning.tables.twins import Twins

if TYPE_CHECKING:
    import pyarrow as pa

Missing = Literal["indicator", "refuse"]
INDEX = ("", "__index_level_0__")  # as pandas calls an index that has no name


class SchemaFit:
    """Finds out what the columns of a table are, and what they become.

    Rows without a label and rows of weight 0 count for nothing: means and categories are those of
    the rows that are trained on, and means are weighted.

    Args:
        target: The column of the labels, or the columns of a distribution over the classes.
        features: Names of the columns that become features, in this order; by default all but
            ``target`` and ``weight``.
        weight: The column of the rows' weights.
        drop: Names of columns that are left out.
        kinds: Of columns by name, where their type does not say it: ``number``, ``boolean``,
            ``date`` or ``category``.
        min_count: Categories of fewer rows, weights counted, share one feature.
        missing: What becomes of missing values: ``indicator`` has a feature for them, and the mean
            in their place; ``refuse`` complains.

    Attributes:
        notes: Sentences about what was found that the user should know, once there is a schema.
    """

    def __init__(
        self,
        target: str | Sequence[str],
        features: Sequence[str] | None = None,
        weight: str | None = None,
        *,
        drop: Sequence[str] = (),
        kinds: Mapping[str, Kind] | None = None,
        min_count: float = 1,
        missing: Missing = "indicator",
    ) -> None:
        self.target = target if isinstance(target, str) else tuple(target)
        self.features = None if features is None else _names("features", features)
        self.weight, self.drop = weight, _names("drop", drop)
        self.kinds = kinds_by_name(kinds)
        self.min_count, self.refuses = min_count, missing == "refuse"
        self.notes: tuple[str, ...] = ()
        self._check(missing)
        self.labels = Labels(self.target)
        self._tallies: dict[str, Tally] | None = None
        self._twins = Twins(self.target)

    def add(self, table: pa.Table | pa.RecordBatch, *, place: Place = SOMEWHERE) -> None:
        """Look at some training rows.

        Raises:
            InputError: For what cannot become features; it names column and row.
        """
        if self._tallies is None:
            self._tallies = {name: self._tally(name) for name in self._chosen(table, place)}
        self.labels.add(table, place)
        weights = row_weights(Schema((), weight=self.weight), table, place=place)
        counted = self._labelled(table, place)
        if weights is not None:
            counted &= weights > 0
        if not counted.all():
            index = np.flatnonzero(counted)
            table, place = table.take(_indices(index)), place.chosen(index)
            weights = None if weights is None else weights[index]
        if table.num_rows == 0:
            return
        weights = np.ones(table.num_rows) if weights is None else weights
        columns = columns_of(table, [*self._tallies], place)
        for tally, values in zip(self._tallies.values(), columns, strict=True):
            gaps = tally.add(values, weights, place)
            if gaps is not None and self.refuses and tally.kind is not None:
                raise InputError(
                    f"expected a value in every row of column {printable(tally.name)!r}, got none "
                    f"in {place.row(int(gaps.argmax()))} ({int(gaps.sum())} such rows); fill "
                    "these, or take missing='indicator'"
                )
        self._twins.add(table, dict(zip(self._tallies, columns, strict=True)))

    def schema(self) -> Schema:
        """What the columns are, by the rows that were added.

        Raises:
            InputError: Where there were none, for identifiers, and for features of one name.
        """
        tallies = (self._tallies or {}).values()
        if tallies and not any(tally.rows for tally in tallies):
            raise InputError(
                "expected rows with a label and a weight above 0 to find out what the columns are, "
                f"got none; check {listed([*self._targets, *self._weights])}"
            )
        found = {
            tally.name: tally.column(min_count=self.min_count, refuse_gaps=self.refuses)
            for tally in tallies
        }
        empty = [name for name, column in found.items() if column is None]
        if empty and self.features is not None:
            raise InputError(
                f"expected values in the columns of features=, got none in {listed(empty)}; leave "
                "these out"
            )
        columns = tuple(column for column in found.values() if column is not None)
        if not columns:
            raise InputError(
                f"expected columns with values besides {listed(self._targets)}, got none; add "
                "features to the table"
            )
        schema = Schema(columns, self.target, self.weight)
        check_features(schema.feature_names)
        looks = [note for tally in tallies if (note := tally.note())]
        self.notes = (*self._empty(empty), *looks, *self._twins.notes(self._targets))
        return schema

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, of the rows that were added, in order."""
        return self.labels.class_names

    @property
    def _targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else [*self.target]

    @property
    def _weights(self) -> list[str]:
        return [] if self.weight is None else [self.weight]

    def _check(self, missing: str) -> None:
        """Complain about arguments that contradict each other, or say nothing."""
        if missing not in get_args(Missing):
            raise InputError(
                f"expected missing of {' or '.join(get_args(Missing))}, got {missing!r}; take one"
            )
        wrong = [kind for kind in self.kinds.values() if kind not in get_args(Kind)]
        if wrong:
            raise InputError(
                f"expected kinds among {', '.join(get_args(Kind))}, got {wrong[0]!r}; take one"
            )
        number = isinstance(self.min_count, (int, float, np.number))
        if not number or isinstance(self.min_count, bool) or not self.min_count >= 0:
            raise InputError(
                f"min_count must be a number of at least 0, got {self.min_count!r}; 1 keeps every "
                "category"
            )
        if not isinstance(self.weight, (str, type(None))):
            raise InputError(
                f"expected weight as the name of one column, got {self.weight!r}; give it as text"
            )
        if self.features == ():
            raise InputError(
                "expected at least one name in features, got none; leave it out for all columns"
            )
        if len(self._targets) < (1 if isinstance(self.target, str) else 2):
            raise InputError(
                f"expected two or more columns of a distribution as target, got "
                f"{len(self._targets)}; give the name of one column as text"
            )
        spoken = [*self._targets, *self._weights]
        spoken += [*(self.features or ()), *self.drop]
        both = [name for name in spoken if spoken.count(name) > 1]
        if both:
            raise InputError(
                f"expected each column to be target, weight, one of features or dropped, got "
                f"{printable(both[0])!r} as two of these; name it once"
            )

    def _chosen(self, table: Any, place: Place) -> list[str]:
        """The names of the columns that become features."""
        found = table.schema.names
        named = [*self._targets, *self._weights]
        wanted = [*named, *(self.features or ()), *self.drop, *self.kinds]
        columns_of(table.slice(0, 0), [*dict.fromkeys(wanted)], place)
        if self.features is not None:
            return [*self.features]
        left_out = {*named, *self.drop}
        names = [name for name in found if name not in left_out]
        unnamed = [name for name in names if name in INDEX]
        if unnamed:
            raise InputError(
                f"expected a name for every column of {place.source}, got {unnamed[0]!r} for "
                f"column {found.index(unnamed[0])}, as an index that pandas writes has; write the "
                f"table without it (index=False), or leave it out with drop=[{unnamed[0]!r}]"
            )
        columns_of(table.slice(0, 0), names, place)
        return names

    def _tally(self, name: str) -> Tally:
        return Tally(name, self.kinds.get(name))

    def _labelled(self, table: Any, place: Place) -> Any:
        """Which rows have a label."""
        if isinstance(self.target, str):
            values = label_values(self.target, table, place)
            return values.is_valid().to_numpy(zero_copy_only=False).copy()
        columns = columns_of(table, [*self.target], place)
        gaps = [values.is_null(nan_is_null=True) for values in columns]
        return ~np.all([gap.to_numpy(zero_copy_only=False) for gap in gaps], axis=0)

    def _empty(self, names: Iterable[str]) -> tuple[str, ...]:
        names = [*names]
        if not names:
            return ()
        return (
            f"expected values in every column, got none at all in {listed(names)}; left out of the "
            "features, name them in drop= to say that they may be",
        )


def _indices(index: Any) -> Any:
    import pyarrow as pa

    return pa.array(index)


def kinds_by_name(given: Mapping[str, Kind] | None) -> dict[str, Kind]:
    """A copy of the kinds of columns by name.

    Raises:
        InputError: For what is no mapping.
    """
    if given is not None and not isinstance(given, Mapping):
        raise InputError(
            f"expected kinds as a mapping of names to kinds, got {given!r}; give "
            "{'zip': 'category'}, say"
        )
    return dict(given or {})


def _names(what: str, given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise InputError(
            f"expected {what} as a list of names, got the text {printable(given)!r}; give "
            f"[{printable(given)!r}]"
        )
    return tuple(map(str, given))
