"""A table's own columns as cells of a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smx_lightning.errors import InputError
from smx_lightning.errors.text import csv_text, printable

if TYPE_CHECKING:
    import pyarrow as pa


def cells(name: str, column: pa.Array | pa.ChunkedArray) -> list[str]:
    """Each value as a text that reads as the same value again; nothing where it is missing.

    Numbers have the fewest digits that are the same number again, dates and times are as ISO 8601
    has them, with a space between the two; a text that a spreadsheet would take for a formula is as
    :func:`smx_lightning.errors.text.csv_text` has it.

    Args:
        name: Of the column, for the message.
        column: (n,) of any type that one cell can hold.

    Raises:
        InputError: For lists, records and bytes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    try:
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise pa.ArrowNotImplementedError("a cell holds one value")
        texts: list[Any] = pc.fill_null(column.cast(pa.string()), "").to_pylist()
    except pa.ArrowException as error:
        raise InputError(
            f"expected columns of which a CSV file can hold a value a cell, got {kind} in "
            f"{printable(name)!r}; leave it out with --keep, or write a .parquet file"
        ) from error
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        return texts
    return [csv_text(text) for text in texts]
