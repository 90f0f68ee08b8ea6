"""Where tables come from: files by their suffix, folders of them, and tables in memory.

A folder's files are read in the order of their names; hidden ones, those that begin with an
underscore, and what is no table are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smx_lightning.errors import InputError
from smx_lightning.errors.extras import require_arrow
from smx_lightning.errors.text import printable
from smx_lightning.tables.places import Place
from smx_lightning.tables.schema import Kind, Schema
from smx_lightning.tables.sources.agreement import Agreement
from smx_lightning.tables.sources.binary import binary_parts, check_rows, unreadable
from smx_lightning.tables.sources.in_memory import table_in_memory, without_views
from smx_lightning.tables.sources.suffixes import (
    SUFFIXES,
    holds_rows,
    is_hidden,
    is_text,
    suffix_of,
)
from smx_lightning.tables.sources.text import CsvFormat

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 2**16  # of a part


class Part(NamedTuple):
    """Some rows of a table.

    Attributes:
        batch: The rows.
        place: Where they come from.
    """

    batch: pa.RecordBatch
    place: Place


def batches(source: Any, *, rows: int = ROWS, **options: Any) -> Iterator[pa.RecordBatch]:
    """A table in parts of at most so many rows, in its own order; see :func:`parts`."""
    for part in parts(source, rows=rows, **options):
        yield part.batch


def parts(
    source: Any,
    *,
    rows: int = ROWS,
    schema: Schema | None = None,
    kinds: Mapping[str, Kind] | None = None,
    separator: str | None = None,
    decimal: str = ".",
) -> Iterator[Part]:
    """A table in parts of at most so many rows, in its own order, with where they come from.

    Args:
        source: A path of a file or a folder, a dict of columns, a Hugging Face Dataset, or anything
            that speaks the Arrow PyCapsule interface.
        rows: Of a part, at most.
        schema: Says how the columns of CSV files are to be read; what is not in it is read as it
            looks in the first megabytes.
        kinds: Of columns by name; they say it, too.
        separator: Between the columns of CSV files; a tab for ``.tsv``, else a comma.
        decimal: The decimal point of CSV files.

    Raises:
        InputError: For what is no table; it says what was found.
    """
    require_arrow()
    table = table_in_memory(source)
    if table is not None:
        first = 0
        for batch in table.to_batches(max_chunksize=rows):
            yield Part(batch, Place(first=first))
            first += batch.num_rows
        return
    agreed = Agreement(schema)
    form = CsvFormat(separator, decimal, schema, kinds or {})
    for path in files_of(source):
        name, first = str(path), 0
        with unreadable(path):
            made = form.batches(path) if is_text(path) else binary_parts(path, rows)
            for batch in made:
                agreed.check(batch.schema, name)
                for start in range(0, batch.num_rows, rows) or [0]:
                    part = batch.slice(start, rows)
                    yield Part(part, Place(name, first=first))
                    first += part.num_rows


def whole(
    source: Any,
    *,
    kinds: Mapping[str, Kind] | None = None,
    schema: Schema | None = None,
    separator: str | None = None,
    decimal: str = ".",
) -> tuple[pa.Table, Place]:
    """All of a table in memory, and where its rows come from; arguments as of :func:`parts`.

    What the columns of CSV files hold is told by all of their rows.

    Raises:
        InputError: For what is no table, and for files whose columns differ; it says which.
    """
    require_arrow()
    import pyarrow as pa

    table = table_in_memory(source)
    if table is not None:
        return table, Place()
    agreed = Agreement(schema)
    form = CsvFormat(separator, decimal, schema, kinds or {})
    tables, starts, rows = [], [], 0
    for path in files_of(source):
        with unreadable(path):
            if is_text(path):
                table = form.table(path)
            else:
                check_rows(path)
                found = [*binary_parts(path, ROWS)]
                table = without_views(pa.Table.from_batches(found))
        agreed.check(table.schema, str(path))
        starts.append((rows, str(path)))
        rows += table.num_rows
        tables.append(table)
    if len(tables) == 1:
        return tables[0], Place(str(source), tuple(starts))
    return agreed.joined(tables), Place(str(source), tuple(starts))


def files_of(source: Any) -> list[Path]:
    """The files of a table, in order.

    Raises:
        InputError: Where there is none, or one of another kind.
    """
    try:
        path = Path(source).expanduser()
    except TypeError:
        raise InputError(
            f"expected a table: a path, a dict of columns or a data frame, got "
            f"{type(source).__name__}; make it one of these, for instance with pandas.DataFrame"
        ) from None
    if path.is_dir():
        found = sorted(path.iterdir(), key=lambda file: file.name)
        files = [file for file in found if _is_table(file)]
        if not files:
            names = ", ".join(printable(file.name) for file in found[:8]) or "nothing"
            raise InputError(
                f"expected files of a table ({', '.join(SUFFIXES)}) in the folder {path}, found "
                f"{names}; point at the folder that holds them"
            )
        read = {*files}
        for file in path.rglob("*"):
            name = file.relative_to(path)
            left = file not in read and holds_rows(file) and not is_hidden(name)
            if left and file.is_file():
                raise InputError(
                    f"expected all tables of {path} in the folder itself, in files of "
                    f"{', '.join(SUFFIXES)}, got {printable(str(name))}, whose rows would be left "
                    "out; move it or save it as one of these, or begin its name with _"
                )
        return files
    if not path.is_file():
        raise InputError(f"expected a table at {path}, found no file; check the path")
    if suffix_of(path) not in SUFFIXES:
        raise InputError(
            f"expected a table in a file of {', '.join(SUFFIXES)} (or .csv.gz), got {path}; save "
            "it as one of these"
        )
    return [path]


def _is_table(path: Path) -> bool:
    return path.is_file() and not is_hidden(Path(path.name)) and suffix_of(path) in SUFFIXES
