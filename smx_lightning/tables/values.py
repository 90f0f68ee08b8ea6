"""A column's values as numbers or as text, whatever Arrow type they have.

=================================== ======== ========================================
Arrow                               kind     the values
=================================== ======== ========================================
integers, floats, decimals          number   as float64
durations, times of day             number   in seconds
booleans                            boolean  0 or 1
dates                               date     days since 1970-01-01
timestamps                          date     seconds since 1970-01-01 UTC; those
                                             without a time zone are taken for UTC
text, dictionaries                  category the text; of a dictionary its entries'
null                                none     missing, in a column of any kind
others                              none     refused
=================================== ======== ========================================

NaN counts as missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable, shortened
from smx_lightning.tables.places import Place
from smx_lightning.tables.schema import Column, Kind, Unit

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = NDArray[np.float64]
TICKS: dict[str, int] = {"D": 1, "s": 86400} | {
    unit: 86400 * 10**power for unit, power in (("ms", 3), ("us", 6), ("ns", 9))
}  # a day


def kind_of(type_: pa.DataType) -> tuple[Kind, Unit | None] | None:
    """Kind and unit of a column of an Arrow type; ``None`` where it has none."""
    import pyarrow.types as types

    if types.is_dictionary(type_):
        type_ = type_.value_type
        return ("category", None) if is_text(type_) or types.is_integer(type_) else None
    if is_text(type_):
        return "category", None
    if types.is_boolean(type_):
        return "boolean", None
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number", None
    if types.is_duration(type_) or types.is_time(type_):
        return "number", "s"
    if types.is_date(type_):
        return "date", "D"
    return ("date", "s") if types.is_timestamp(type_) else None


def is_text(type_: pa.DataType) -> bool:
    """Whether an Arrow type is one of those of text."""
    import pyarrow.types as types

    view = getattr(types, "is_string_view", lambda _: False)
    return bool(types.is_string(type_) or types.is_large_string(type_) or view(type_))


def numbers(column: Column, values: Any, place: Place) -> Numbers:
    """A column's values (rows,), NaN where they are missing.

    Args:
        column: A number, a boolean or a date.
        values: An Arrow array.
        place: Of the rows.

    Raises:
        InputError: For values of another kind, and for infinite ones; it names column and row.
    """
    import pyarrow.types as types

    if types.is_null(values.type):
        return np.full(len(values), np.nan)
    if column.kind == "date" and is_text(values.type):
        values = _dates(column, values, place)
    found = kind_of(values.type)
    plain = found == ("number", None)
    if column.kind == "boolean" and plain:
        made = _plain(values)
        wrong = ~(np.isnan(made) | (made == 0) | (made == 1))
        if wrong.any():
            row = int(wrong.argmax())
            refuse(column, f"{made[row]:g} in {place.row(row)}")
        return made
    if found is None or found[0] != column.kind or (found[1] is None) != (column.unit is None):
        refuse(column, f"{values.type} in {place.source}")
    made = _plain(values) if column.unit is None else _in_units(values, column.unit)
    infinite = np.isinf(made)
    if infinite.any():
        raise InputError(
            f"expected finite numbers in column {printable(column.name)!r}, got "
            f"{made[infinite.argmax()]:g} in {place.row(int(infinite.argmax()))} "
            f"({int(infinite.sum())} such rows); remove these, or leave them empty"
        )
    return made


def texts(column: Column, values: Any, place: Place) -> Any:
    """A category's values (rows,) as an Arrow array of text, null where they are missing.

    Whole numbers and booleans are categories where a schema says so.

    Raises:
        InputError: For values of another kind; it names the column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_floating(values.type):  # as data frames hold integers with gaps
        values = pa.array(_plain(values), from_pandas=True)
        whole = pc.floor(values)
        if not pc.all(pc.equal(values, whole), min_count=0).as_py():
            refuse(column, f"{values.type} in {place.source}")
        values = whole.cast(pa.int64(), safe=False)
    numeric = types.is_integer(values.type)
    if numeric and column.categories and not any(map(_is_whole, column.categories)):
        raise InputError(
            f"expected column {printable(column.name)!r} to hold text, as "
            f"{shortened(printable(column.categories[0]), 60)!r}, got {values.type} in "
            f"{place.source}, and no category is a whole number; give the words that they stand for"
        )
    if not (
        numeric
        or is_text(values.type)
        or types.is_boolean(values.type)
        or types.is_null(values.type)
    ):
        refuse(column, f"{values.type} in {place.source}")
    return values.cast(pa.string())


def refuse(column: Column, got: str) -> NoReturn:
    """Complain about values of another kind.

    Raises:
        InputError: It names the column.
    """
    kinds = {
        "number": "numbers" if column.unit is None else "durations or times of day",
        "boolean": "booleans",
        "date": "dates or timestamps",
        "category": "text or whole numbers",
    }
    raise InputError(
        f"expected column {printable(column.name)!r} to hold {kinds[column.kind]}, got {got}; "
        "convert the column, or drop it with drop= before training"
    )


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _plain(values: Any) -> Numbers:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    elif types.is_decimal(values.type):
        values = values.cast(pa.float64())
    made = values.to_numpy(zero_copy_only=False)  # of integers with gaps that is float64
    return cast("Numbers", made.astype(np.float64, copy=False))


def ends(values: Any) -> tuple[int, int] | None:
    """The least and the largest of dates or durations, in nanoseconds; ``None`` of text."""
    import pyarrow.compute as pc

    if is_text(values.type) or values.null_count == len(values):
        return None
    counted, ticks = _ticks(values)
    found = pc.min_max(counted).as_py()
    per = TICKS["ns"] // ticks
    return found["min"] * per, found["max"] * per


def _ticks(values: Any) -> tuple[Any, int]:
    """Dates, durations or times of day as Arrow's integers, and how many of these are a day."""
    import pyarrow as pa
    import pyarrow.types as types

    type_ = values.type
    ticks = 1 if types.is_date32(type_) else TICKS["ms" if types.is_date64(type_) else type_.unit]
    if types.is_date32(type_) or types.is_time32(type_):
        values = values.cast(pa.int32())
    return values.cast(pa.int64()), ticks


def _in_units(values: Any, unit: str) -> Numbers:
    """Ticks of Arrow as a number of units: whole ones exactly, then the rest of one."""
    counted, ticks = _ticks(values)
    gaps = counted.is_null().to_numpy(zero_copy_only=False)
    whole = counted.fill_null(0).to_numpy(zero_copy_only=False)
    per, rest = divmod(ticks, TICKS[unit])
    if rest or per == 0:
        made = whole.astype(np.float64) * (TICKS[unit] // ticks)
    else:
        made = whole // per + (whole % per) / per
    made[gaps] = np.nan
    return cast("Numbers", made)


def _dates(column: Column, values: Any, place: Place) -> Any:
    """Text of ISO 8601 as timestamps, with or without a time zone, but all alike."""
    import pyarrow as pa

    for zone in (None, "UTC"):
        try:
            return values.cast(pa.string()).cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid as error:
            said = str(error)
    at = next(
        (k for k, value in enumerate(values.to_pylist()) if value and repr(value) in said), None
    )
    got = "other text" if at is None else f"{printable(values[at].as_py())!r}"
    where = place.source if at is None else place.row(at)
    refuse(column, f"{got} in {where}, which is no date of ISO 8601 as 2026-05-17")
