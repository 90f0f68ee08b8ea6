"""Rows of tables: CSV, Parquet, Feather or a folder of them, by the schema in the ONNX file."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx_export.errors import FileError, TableWarning
from smx_export.predict.source import ALL, NONE, Block, Source
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.frames import Frames
from smx_lightning.errors import InputError
from smx_lightning.errors.extras import tables_needed
from smx_lightning.errors.text import printable, shortened
from smx_lightning.processes.predictions import headings
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.reading import batches

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".csv", ".tsv", ".gz", ".parquet", ".feather", ".arrow"}
Keep = str | Sequence[str]
MOST = 2**16  # rows at a time


def is_table(path: str | Path) -> bool:
    """Whether a path is that of a table, or of a folder of them, by its name."""
    return Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES


def source_of_table(
    classifier: OnnxClassifier, path: str | Path, most: int, keep: Keep, on_nan: Any
) -> Source:
    """All rows of a table, at most so many at a time.

    Args:
        classifier: Its file says which columns the features are, and how.
        path: Of a file or a folder.
        most: Rows of a block, at most.
        keep: ``all`` columns are kept beside the answers, ``none``, or those named.
        on_nan: What becomes of missing values that the file has no number for.

    Raises:
        FileError: Where there is no such table, or it does not fit the model.
    """
    if not Path(path).exists():
        raise FileError(f"expected a table at {path}, found none; check the path")
    if classifier._mixed is not None:
        raise FileError(
            f"expected a file of one input of real numbers for the table {path}, got "
            f"{classifier!r}; save the rows with numpy.savez"
        )
    with tables_needed():
        import pyarrow as pa
    parts = batches(path, rows=min(most, MOST))
    first = next(parts, None)
    if first is None:
        return Source(0, pa.schema([]), iter(()))
    columns = _kept(first.schema, keep, path)
    frames = classifier._frames or _by_position(classifier, first.schema, path)
    frames = Frames(frames.schema, on_nan)
    kept = pa.schema([first.schema.field(at) for at in columns])
    _tell_of_names(classifier, kept)
    blocks = _blocks(itertools.chain([first], parts), frames, columns, path)
    return Source(_total(path), kept, blocks, lambda: _warn(frames.told()))


def _blocks(
    parts: Iterator[pa.RecordBatch], frames: Frames, columns: list[int], path: str | Path
) -> Iterator[Block]:
    first = 0
    for part in parts:
        try:
            rows = frames.rows(part)
        except InputError as error:
            counted = f" (rows counted from row {first:,} of it)" if first else ""
            raise FileError(f"{path}{counted}: {error}") from error
        yield Block(str(path), first, rows, part.select(columns))
        first += part.num_rows


def _by_position(classifier: OnnxClassifier, schema: pa.Schema, path: str | Path) -> Frames:
    """The columns in their order, where the file names none and they can be no others."""
    import pyarrow as pa

    def is_number(kind: Any) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))

    others = [field.name for field in schema if not is_number(field.type)]
    if others or len(schema) != classifier.num_features or len({*schema.names}) < len(schema):
        got = f"{len(schema)} columns, {_listed(others)} no numbers" if others else _listed(schema)
        raise FileError(
            f"expected {classifier.num_features} columns of numbers in {path}, as the file names no"
            f" features, got {got}; leave the others out of the table, or export a model with "
            "feature_names or a schema"
        )
    _warn(
        f"the file names no features: the columns of {path} are taken in their order, "
        f"{_listed(schema.names)}"
    )
    return Frames(Schema(tuple(map(Column, schema.names))), "raise")


def _kept(schema: pa.Schema, keep: Keep, path: str | Path) -> list[int]:
    """Places of the columns that are kept."""
    if keep == ALL:
        return [*range(len(schema))]
    wanted = [] if keep == NONE else [keep] if isinstance(keep, str) else [*keep]
    for name in wanted:
        count = len(schema.get_all_field_indices(name))
        if count != 1:
            got = "none" if count == 0 else f"{count} of them"
            raise FileError(
                f"expected one column {printable(name)!r} in {path} to keep, got {got}; choose "
                f"from {_listed(schema.names)}"
            )
    return [schema.get_field_index(name) for name in wanted]


def _tell_of_names(classifier: OnnxClassifier, kept: pa.Schema) -> None:
    """Say which of our names had to give way to the table's own."""
    options = {"top_k": classifier.top_k}
    usual = headings(classifier.class_names, **options)
    given = headings(classifier.class_names, **options, kept=kept.names)
    pairs = zip(
        (usual.row, usual.label, *usual.answers), (given.row, given.label, *given.answers),
        strict=True,
    )  # fmt: skip
    moved = [f"{name!r} is called {other!r}" for name, other in pairs if name != other]
    if moved:
        _warn(f"the table has columns of these names: {_listed(moved)}")


def _total(path: str | Path) -> int | None:
    """How many rows there are, where footers tell it."""
    import pyarrow.parquet as pq

    path = Path(path)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or any(file.suffix.lower() != ".parquet" for file in files):
        return None
    return sum(pq.read_metadata(file).num_rows for file in files)


def _listed(names: Sequence[Any]) -> str:
    told = [getattr(name, "name", name) for name in names]
    return shortened(", ".join(map(printable, told)) or "none", 300)


def _warn(sentence: str) -> None:
    if sentence:
        warnings.warn(sentence, TableWarning, stacklevel=2)
