"""Where tables come from: files by their suffix, folders of them, and tables in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".feather": "feather", ".arrow": "feather"}


def batches(source: Any, *, rows: int = 2**16) -> Iterator[pa.RecordBatch]:
    """A table in parts of at most so many rows, in its own order.

    Args:
        source: A path of a file or a folder, or anything that speaks the Arrow PyCapsule interface.
        rows: Of a part, at most.

    Raises:
        InputError: For what is no table; it says what was found.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if hasattr(source, "__arrow_c_stream__"):
        yield from pa.table(source).to_batches(max_chunksize=rows)
        return
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"expected one of {', '.join(SUFFIXES)}, got {path}")
    yield from ds.dataset(path, format=SUFFIXES[path.suffix.lower()]).to_batches(batch_size=rows)
