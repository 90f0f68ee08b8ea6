"""Labels and weights of a table's rows.

Labels are text, integers or booleans; whole floating-point numbers, as data frames hold integers
with gaps, are integers. Classes are sorted as :mod:`smx_lightning.data.labels` sorts them:
integers by value, text by its characters. Several columns are a distribution over as many classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable, printable
from smx_lightning.tables.encoding import columns_of, listed
from smx_lightning.tables.places import SOMEWHERE, Place
from smx_lightning.tables.schema import Column, Schema
from smx_lightning.tables.values import is_text, numbers

if TYPE_CHECKING:
    import pyarrow as pa

UNLABELLED = -1
MOST_CLASSES = 10**6


class Labels:
    """Collects the classes of a column, a part of a table at a time.

    Args:
        target: The column of the labels, or those of a distribution.
    """

    def __init__(self, target: str | tuple[str, ...]) -> None:
        self.target = target
        self.integers: bool | None = None
        self._values: set[int | str] = set()

    def add(self, table: pa.Table | pa.RecordBatch, place: Place = SOMEWHERE) -> None:
        """Take the labels of some rows.

        Raises:
            InputError: For a column that is missing or holds no labels.
        """
        if not isinstance(self.target, str):
            columns_of(table, [*self.target], place)
            return
        values = label_values(self.target, table, place)
        unique = {value for value in values.unique().to_pylist() if value is not None}
        integers = all(isinstance(value, int) for value in unique)
        if unique and self.integers not in (None, integers):
            raise InputError(
                f"expected labels of one kind in column {printable(self.target)!r}, got integers "
                f"and text, the latter or the former in {place.source}; make them all text"
            )
        if unique:
            self.integers = integers
        self._values |= unique
        if len(self._values) > MOST_CLASSES:
            raise InputError(
                f"expected at most {MOST_CLASSES} classes, got more in column "
                f"{printable(self.target)!r}; name the column of the labels with target="
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name a class, in order."""
        if not isinstance(self.target, str):
            return self.target
        names = tuple(map(str, sorted(self._values)))
        check_encodable(names, "names of classes")
        return names


def targets(
    schema: Schema,
    class_names: tuple[str, ...],
    table: pa.Table | pa.RecordBatch,
    *,
    place: Place = SOMEWHERE,
) -> NDArray[np.int64] | NDArray[np.float64]:
    """Class indices (rows,), −1 where there is no label, or distributions (rows, classes).

    Counts, as of votes, become distributions; a row all of whose entries are missing is NaN.
    Integer labels are the names of classes, or, where no class is called by an integer, indices.

    Raises:
        InputError: For labels of no class, and for what is no distribution; it names the row.
    """
    if isinstance(schema.target, tuple):
        return _distributions(schema.target, table, place)
    if schema.target is None:
        raise InputError("expected a schema with a target, got none; train with target=")
    values = label_values(schema.target, table, place)
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    text = _text(values)
    named = not types.is_integer(values.type) or any(map(_is_integer, class_names))
    known = class_names if named else tuple(map(str, range(len(class_names))))
    index = pc.fill_null(pc.index_in(text, pa.array(known, pa.string())), UNLABELLED)
    made = index.to_numpy(zero_copy_only=False).astype(np.int64)
    wrong = np.flatnonzero((made < 0) & text.is_valid().to_numpy(zero_copy_only=False))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"expected labels among the {len(class_names)} classes {listed([*known])} in column "
            f"{printable(schema.target)!r}, got {printable(text[row].as_py())!r} in "
            f"{place.row(row)} ({len(wrong)} such rows); leave the label of other classes empty, "
            "or train with them"
        )
    return cast("NDArray[np.int64]", made)


def row_weights(
    schema: Schema, table: pa.Table | pa.RecordBatch, *, place: Place = SOMEWHERE
) -> NDArray[np.float64] | None:
    """Weights (rows,), each finite and at least 0; ``None`` where the schema has no such column.

    Raises:
        InputError: For other weights; it names the row.
    """
    if schema.weight is None:
        return None
    (values,) = columns_of(table, [schema.weight], place)
    made = numbers(Column(schema.weight), values, place)
    wrong = np.flatnonzero(~(made >= 0))
    if len(wrong):
        row = int(wrong[0])
        got = "none" if np.isnan(made[row]) else f"{made[row]:g}"
        raise InputError(
            f"expected weights of at least 0 in column {printable(schema.weight)!r}, got {got} in "
            f"{place.row(row)} ({len(wrong)} such rows); 0 leaves a row out"
        )
    return made


def label_values(target: str, table: Any, place: Place) -> Any:
    """The labels (rows,) as an Arrow array of integers or text, null where there is none.

    Raises:
        InputError: For other types, and fractions.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    (values,) = columns_of(table, [target], place)
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_boolean(values.type):  # as numpy and Python spell them
        return pc.if_else(values, "True", "False")
    if types.is_null(values.type):
        return values.cast(pa.string())
    if types.is_floating(values.type) or types.is_decimal(values.type):
        values = pa.array(numbers(Column(target), values, place), from_pandas=True)
        whole = pc.floor(values)
        fraction = pc.index(pc.equal(values, whole), False).as_py()
        if fraction >= 0:
            raise InputError(
                f"expected labels in column {printable(target)!r}, got the number "
                f"{values[fraction].as_py():g} in {place.row(fraction)}; classes are text, whole "
                "numbers or booleans: put numbers into bins first, or name another target="
            )
        return whole.cast(pa.int64(), safe=False)
    if types.is_integer(values.type) or is_text(values.type):
        return values
    raise InputError(
        f"expected labels in column {printable(target)!r}, got {values.type} in {place.source}; "
        "classes are text, whole numbers or booleans: convert it, or name another target="
    )


def _text(values: Any) -> Any:
    import pyarrow as pa

    return values.cast(pa.string())


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _distributions(names: tuple[str, ...], table: Any, place: Place) -> NDArray[np.float64]:
    columns = columns_of(table, [*names], place)
    given = np.stack([numbers(Column(n), c, place) for n, c in zip(names, columns, strict=True)], 1)
    gaps = np.isnan(given)
    sums = given.sum(1)
    wrong = np.flatnonzero((gaps.any(1) & ~gaps.all(1)) | (given < 0).any(1) | (sums == 0))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"expected a distribution in the columns {listed([*names])}, numbers of at least 0 not "
            f"all of which are 0, got {', '.join(f'{v:g}' for v in given[row][:10])} in "
            f"{place.row(row)} ({len(wrong)} such rows); leave all of them empty where there is "
            "no label"
        )
    return cast("NDArray[np.float64]", given / sums[:, None])
