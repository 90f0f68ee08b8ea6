"""Rows of tables: CSV, Parquet, Feather or a folder of them, by the schema in the ONNX file."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx_export.errors import FileError, TableWarning
from smx_export.predict.source import ALL, NONE, Block, Source
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.frames import Frames
from smx_export.runtime.policy import OnNan
from smx_lightning.errors.text import printable
from smx_lightning.processes.predictions import headings
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import listed
from smx_lightning.tables.reading import ROWS, files_of, parts
from smx_lightning.tables.sources.suffixes import SUFFIXES, is_text, suffix_of

if TYPE_CHECKING:
    import pyarrow as pa

    from smx_lightning.tables.reading import Part
    from smx_lightning.tables.schema import Kind

PARQUET = "parquet"
Keep = str | Sequence[str]


@dataclass(frozen=True)
class TableOptions:
    """How tables are read, and which of their columns are kept.

    Attributes:
        keep: ``all`` columns are kept beside the answers, ``none``, or those named.
        separator: Between the columns of CSV files; a tab for ``.tsv``, else a comma.
        decimal: The decimal point of CSV files.
    """

    keep: Keep = ALL
    separator: str | None = None
    decimal: str = "."


def source_of_table(
    classifier: OnnxClassifier,
    path: str | Path,
    most: int,
    options: TableOptions,
    on_nan: OnNan,
    *,
    typed: bool,
) -> Source:
    """All rows of a table, at most so many at a time.

    Args:
        classifier: Its file says which columns the features are, and how.
        path: Of a file or a folder.
        most: Rows of a block, at most.
        options: Of the table.
        on_nan: What becomes of missing values that the file has no number for.
        typed: Whether the kept columns of CSV files are numbers where they look so; else they stay
            the text that they are.

    Raises:
        InputError: Where there is no such table, it does not fit the model, or pyarrow is missing.
    """
    known = _schema(classifier, path)
    read: dict[str, Any] = {"rows": min(most, ROWS), "schema": known}
    read |= {"separator": options.separator, "decimal": options.decimal}
    names = _names(path, read)
    notes = []
    if known is None:
        known = _by_position(classifier, names, path)
        notes = [f"the file names no features: in their order were taken {listed(names)}"]
    columns = _kept(names, options.keep, path)
    used = {column.name for column in known.columns}
    used |= {names[at] for at in columns} if typed else set()
    as_text: dict[str, Kind] = dict.fromkeys({*names} - used, "category")
    given = parts(path, **{**read, "schema": known, "kinds": as_text})
    first = next(given, None)
    if first is None:  # not even a part of no rows
        return Source(0, _empty(), iter(()))
    kept = first.batch.select(columns).schema
    _tell_of_names(classifier, kept)
    frames = Frames(known, on_nan)
    blocks = _blocks(itertools.chain([first], given), frames, columns)
    return Source(_total(path), kept, blocks, lambda: _warn(*notes, *frames.notes))


def _schema(classifier: OnnxClassifier, path: str | Path) -> Schema | None:
    """What the file says of its features; ``None`` where it names none."""
    if classifier._mixed is not None:
        raise FileError(
            f"expected a file of one input of real numbers for the table {path}, got "
            f"{classifier!r}; save the rows with numpy.savez"
        )
    return None if classifier._frames is None else classifier._frames.schema


def _blocks(given: Iterator[Part], frames: Frames, columns: list[int]) -> Iterator[Block]:
    for batch, place in given:
        rows = frames.rows(batch, place)
        yield Block(place.source, place.first, rows, batch.select(columns))


def _empty() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([])


def _names(path: str | Path, read: dict[str, Any]) -> list[str]:
    """The columns of a table, of which no more than the beginning is read."""
    first = next(parts(path, **read), None)
    return [] if first is None else list(first.batch.schema.names)


def _by_position(classifier: OnnxClassifier, names: list[str], path: str | Path) -> Schema:
    """The columns in their order, where the file names none and they can be no others.

    That they are numbers is known when they are read.
    """
    if len(names) != classifier.num_features or len({*names}) < len(names):
        raise FileError(
            f"expected {classifier.num_features} columns of numbers in {path}, as the file names no"
            f" features, got {len(names)}: {listed(names) or 'none'}; leave out what is no feature,"
            " or export a model with feature_names or a schema"
        )
    return Schema(tuple(map(Column, names)))


def _kept(names: list[str], keep: Keep, path: str | Path) -> list[int]:
    """Places of the columns that are kept."""
    if keep == ALL:
        return [*range(len(names))]
    wanted = [] if keep == NONE else [keep] if isinstance(keep, str) else [*dict.fromkeys(keep)]
    for name in wanted:
        if (count := names.count(name)) != 1:
            got = "none" if count == 0 else f"{count} of them"
            raise FileError(
                f"expected one column {printable(name)!r} in {path} to keep, got {got}; choose "
                f"from {listed(names)}"
            )
    return [names.index(name) for name in wanted]


def _tell_of_names(classifier: OnnxClassifier, kept: pa.Schema) -> None:
    """Say which of our names had to give way to the table's own."""
    told: list[list[str]] = []
    for own in ((), kept.names):
        found = headings(classifier.class_names, top_k=classifier.top_k, kept=own)
        told.append([found.row, found.label, *found.answers])
    moved = [f"{name!r} as {other!r}" for name, other in zip(*told, strict=True) if name != other]
    if moved:
        _warn(f"the table has columns of the answers' names: these are written {listed(moved)}")


def _total(path: str | Path) -> int | None:
    """How many rows there are, where footers tell it."""
    import pyarrow.parquet as pq

    files = files_of(path)
    if any(is_text(file) or SUFFIXES[suffix_of(file)] != PARQUET for file in files):
        return None
    return sum(int(pq.read_metadata(file).num_rows) for file in files)


def _warn(*sentences: str) -> None:
    for sentence in sentences:
        warnings.warn(sentence, TableWarning, stacklevel=2)
