"""Where predictions go: a CSV file, or a Parquet file that keeps the types of a table's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smx_export.errors import FileError
from smx_export.runtime.answers import Answer, Top
from smx_export.runtime.policy import MISSING
from smx_lightning.errors.extras import require_arrow
from smx_lightning.processes.files import written_whole
from smx_lightning.processes.predictions import headings, predictions_csv

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = ".parquet"
Write = Callable[[Answer | Top, "pa.RecordBatch | None"], None]


def is_parquet(path: str | Path) -> bool:
    """Whether answers that are written to a path become a Parquet file."""
    return Path(path).suffix.lower() == PARQUET


@contextmanager
def written_to(
    path: str | Path, class_names: Sequence[str], top_k: int | None, kept: pa.Schema | None
) -> Iterator[Write]:
    """A function that appends answers, and the table's own columns beside them.

    The file appears when all of them are written; its suffix says which kind it is.

    Args:
        path: The file.
        class_names: One name a class.
        top_k: How many of the most probable classes there are, where not all are written.
        kept: The table's own columns, ``None`` of arrays.

    Raises:
        InputError: Where it cannot be written.
        FileError: For columns that such a file cannot hold.
    """
    if is_parquet(path):
        with _parquet(path, class_names, top_k, kept) as write:
            yield write
        return
    names = None if kept is None else kept.names
    with predictions_csv(path, class_names, top_k=top_k, kept=names) as append:

        def write_cells(answer: Answer | Top, own: pa.RecordBatch | None) -> None:
            columns = (part.tolist() for part in answer)
            append(*columns, own=[] if own is None else _cells(own))

        yield write_cells


def _cells(own: pa.RecordBatch) -> list[list[str]]:
    from smx_lightning.tables.cells import cells

    return [cells(name, own.column(at)) for at, name in enumerate(own.schema.names)]


@contextmanager
def _parquet(
    path: str | Path, class_names: Sequence[str], top_k: int | None, kept: pa.Schema | None
) -> Iterator[Write]:
    """Types: int64 of row, text of classes, float32 of probabilities, and the table's own."""
    require_arrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    own_fields = [] if kept is None else [*kept]
    names = headings(class_names, top_k=top_k, kept=[field.name for field in own_fields])
    several = zip(names.answers, _answer_types(pa, top_k, len(names.answers)), strict=True)
    schema = pa.schema([(names.row, pa.int64()), *own_fields, (names.label, pa.string()), *several])
    texts, written = pa.array(class_names, pa.string()), 0

    def named(labels: Any) -> pa.Array:
        return texts.take(pa.array(np.ma.masked_equal(labels, MISSING), pa.int64()))

    with written_whole(path) as draft, _told(pa), pq.ParquetWriter(draft, schema) as writer:

        def write(answer: Answer | Top, own: pa.RecordBatch | None) -> None:
            nonlocal written
            rows = pa.array(np.arange(written, written + len(answer.label)))
            probs = [pa.array(column) for column in answer.probs.T]
            if isinstance(answer, Top):  # each behind its class
                pairs = zip(map(named, answer.classes.T), probs, strict=True)
                probs = [column for pair in pairs for column in pair]
            mine = [] if own is None else own.columns
            columns = [rows, *mine, named(answer.label), *probs]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            written += len(answer.label)

        yield write


def _answer_types(pa: Any, top_k: int | None, count: int) -> list[Any]:
    return [pa.float32()] * count if top_k is None else [pa.string(), pa.float32()] * top_k


@contextmanager
def _told(pa: Any) -> Iterator[None]:
    """One sentence where Parquet has no such type."""
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        raise FileError(
            f"expected columns of types that Parquet has, got: {str(error).splitlines()[0]}; leave "
            "such a column out with --keep"
        ) from error
