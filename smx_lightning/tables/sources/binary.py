"""Tables in binary files: Parquet, and Feather or Arrow's IPC format; and what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smx_lightning.errors import InputError
from smx_lightning.errors.sizes import check_room
from smx_lightning.errors.text import one_line
from smx_lightning.errors.unreadable import sentence_of
from smx_lightning.tables.sources.suffixes import PARQUET

PARQUET_MAGIC, ARROW_MAGIC, FEATHER_1 = b"PAR1", b"ARROW1", b"FEA1"


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """What pyarrow says of a file, as one sentence that names it.

    Raises:
        InputError: In place of pyarrow's own exceptions.
    """
    import pyarrow as pa

    try:
        yield
    except InputError:
        raise
    except pa.ArrowCapacityError as error:
        raise InputError(f"expected a smaller table in {path}, got: {one_line(error)}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            f"expected a table that can be read in {path}, got: {one_line(error)}; the file is "
            "damaged or of another format: save it again"
        ) from error
    except OSError as error:
        said = sentence_of(error) if error.filename else None
        raise InputError(
            said
            or f"expected a table that can be read in {path}, got: {one_line(error)}; the file is "
            "damaged or of another format: save it again"
        ) from error


def binary_parts(path: Path, rows: int) -> Iterator[Any]:
    """A file's rows in record batches; one without rows where there are none.

    Raises:
        InputError: Where the file is not what its suffix says.
    """
    start = _start(path)
    if path.suffix.lower() in PARQUET:
        if not start.startswith(PARQUET_MAGIC):
            _refuse(path, "a Parquet file, which begins with PAR1", start)
        yield from _of_parquet(path, rows)
    elif start.startswith(FEATHER_1):
        import pyarrow.feather

        yield from pyarrow.feather.read_table(str(path)).to_batches()
    else:
        yield from _of_arrow(path, start)


def check_rows(path: Path) -> None:
    """Complain about a Parquet file that says of itself that it does not fit in memory.

    Raises:
        InputError: Then; a value takes a byte at least.
    """
    import pyarrow.parquet as pq

    if path.suffix.lower() in PARQUET and _start(path).startswith(PARQUET_MAGIC):
        said = pq.read_metadata(path)
        check_room(max(0, said.num_rows) * said.num_columns, f"a table in {path}")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(ARROW_MAGIC))


def _of_parquet(path: Path, rows: int) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:  # not read_table, which takes folders' names for columns
        some = False
        for batch in file.iter_batches(batch_size=rows):
            some = True
            yield batch
        if not some:
            yield no_rows(file.schema_arrow)


def _of_arrow(path: Path, start: bytes) -> Iterator[Any]:
    """Of a file or a stream: both are called .arrow."""
    import pyarrow as pa

    if start == ARROW_MAGIC:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for k in range(reader.num_record_batches):
                yield reader.get_batch(k)
            if reader.num_record_batches == 0:
                yield no_rows(reader.schema)
        return
    if not start.startswith(b"\xff\xff\xff\xff"):
        _refuse(path, "a Feather or Arrow file", start)
    with path.open("rb") as stream, pa.ipc.open_stream(stream) as reader:
        yield no_rows(reader.schema)
        yield from reader


def no_rows(schema: Any) -> Any:
    """A record batch of a schema, without rows."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)


def _refuse(path: Path, expected: str, start: bytes) -> None:
    raise InputError(
        f"expected {expected}, got {start.hex() or 'nothing'} at the start of {path}; it may be "
        "another format under this name: save it again"
    )
