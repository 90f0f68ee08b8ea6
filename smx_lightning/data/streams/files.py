"""The Parquet files of a source: their row groups, and whether they stay as they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.data.streams.finding import found, located, once
from smx_lightning.data.streams.footers import Footer, footer
from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import reason
from smx_lightning.tables.encoding import listed
from smx_lightning.tables.sources.agreement import Agreement
from smx_lightning.tables.sources.suffixes import PARQUET

if TYPE_CHECKING:
    import pyarrow as pa

Source = str | Path | Sequence[str | Path]

PAGE = 9 * 2**18  # bytes: a page and a dictionary of 1 MiB, as usual, and what is packed of them
LOCAL, DISTANT = 2**16, 2**20  # bytes that are read of a column at a time
AT_ONCE = 8  # footers: of distant files each is a question and an answer


@dataclass(frozen=True)
class ParquetFiles:
    """Files in the order of their paths, and their row groups in the order of the files.

    Attributes:
        filesystem: Of pyarrow, where they lie.
        paths: Of the files.
        called: Likewise, from the folder that was named on.
        stamps: Size and time of change of each, as the file system says.
        digests: A hash of each one's footer.
        file: (groups,) the file that each row group is in.
        index: (groups,) its number in that file.
        rows: (groups,) its rows.
        largest: Bytes of the largest row group, unpacked.
        schemas: Of the columns of some file each, as many as differ.
        names: Of the columns that are read.
    """

    filesystem: Any
    paths: tuple[str, ...]
    called: tuple[str, ...]
    stamps: tuple[tuple[int | None, Any], ...]
    digests: tuple[str, ...]
    file: NDArray[np.int64]
    index: NDArray[np.int64]
    rows: NDArray[np.int64]
    largest: int
    schemas: tuple[pa.Schema, ...]
    names: tuple[str, ...]

    @property
    def buffer(self) -> int:
        """Bytes that are read of a column at a time."""
        return LOCAL if self.filesystem.type_name == "local" else DISTANT

    @property
    def held(self) -> int:
        """Bytes that decoding a row group takes beside its rows, at most."""
        columns = len(self.names)
        return min(2 * self.largest, PAGE * columns) + self.buffer * columns

    def reading(self, names: Sequence[str]) -> ParquetFiles:
        """The same files, of which these columns are read.

        Raises:
            InputError: For a column that they have not.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise InputError(
                f"expected the columns {listed([*names])} in {self.paths[0]}, found no "
                f"{listed(missing)} among {listed([*self.names]) or 'none'}; name others"
            )
        return replace(self, names=tuple(names))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these files from others: their names, and a hash of their footers."""
        hashed = hashlib.blake2b("".join(self.digests).encode(), digest_size=8).hexdigest()
        return {"files": list(self.called), "hash of footers": hashed}

    def check_unchanged(self, file: int | None = None) -> None:
        """Complain about files that are no longer those whose footers were read.

        Args:
            file: The number of one, which alone is looked at.

        Raises:
            InputError: For the first one that was changed or removed.
        """
        which = slice(None) if file is None else slice(file, file + 1)
        paths, stamps = self.paths[which], self.stamps[which]
        for path, before, now in zip(paths, stamps, _stamps(self.filesystem, paths), strict=True):
            if before != now:
                raise changed(path)


def changed(path: str) -> InputError:
    """The complaint about a file that was changed since its footer was read."""
    return InputError(
        f"expected the files to stay as they are while they are read, got {path}, which was "
        "changed or removed since; begin anew with files that nobody writes"
    )


def parquet_files(
    source: Source | None, filesystem: Any = None, *, wanted: Sequence[str] | None = None
) -> ParquetFiles:
    """The files of a source, whose footers are read and nothing else.

    Args:
        source: A file, a folder, or several of these; a folder's ``*.parquet`` at any depth, but
            what begins with ``_`` or ``.``. With a filesystem, paths there; else local ones and
            URIs such as ``s3://bucket/folder``.
        filesystem: Of pyarrow or fsspec.
        wanted: The columns in which the files must agree; all by default.

    Raises:
        InputError: Where there is none, one cannot be read, or their columns differ.
    """
    places = _places(source)
    named: dict[str, str] = {}
    system: Any = None
    for place in places:
        before, (system, path) = system, located(place, filesystem)
        if before is not None and not before.equals(system):
            raise InputError(
                f"expected all files in one filesystem, got {place} in another than {places[0]}; "
                "copy them to one place"
            )
        named |= found(system, path)
    if not named:
        raise InputError(
            f"expected Parquet files at {', '.join(map(str, places)) or 'source'}, found none; "
            f"name a folder of {PARQUET[0]} files"
        )
    named = once(system, named)
    paths = sorted(named)
    stamps = _stamps(system, paths)
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as pool:
        footers = [*pool.map(lambda path: footer(system, path), paths)]
    schemas = _agreed(paths, footers, wanted)
    return ParquetFiles(
        filesystem=system,
        paths=tuple(paths),
        called=tuple(named[path] for path in paths),
        stamps=stamps,
        digests=tuple(told.digest for told in footers),
        largest=max(told.largest for told in footers),
        schemas=schemas,
        names=tuple(schemas[0].names),
        **_groups(footers),
    )


def _places(source: Any) -> list[str | Path]:
    """One place or several.

    Raises:
        InputError: For what is no path, such as a table in memory.
    """
    table = isinstance(source, Mapping) or hasattr(source, "__arrow_c_stream__")
    one = table or isinstance(source, (str, bytes)) or not isinstance(source, Iterable)
    places: list[Any] = [source] if one else [*source]
    wrong = [place for place in places if not isinstance(place, (str, PathLike))]
    if wrong:
        raise InputError(
            f"expected Parquet files as a path, or a list of these, got {type(wrong[0]).__name__}; "
            "name a file or a folder; a table in memory is for TableDataModule"
        )
    return places


def _agreed(
    paths: Sequence[str], footers: Sequence[Footer], wanted: Sequence[str] | None
) -> tuple[pa.Schema, ...]:
    """The schemas that differ, which agree in names and kinds of columns."""
    import pyarrow as pa

    agreement, schemas, before = Agreement(), [], None
    for path, told in zip(paths, footers, strict=True):
        if before is not None and told.schema.equals(before):
            continue
        before = told.schema
        fields = [field for field in before if wanted is None or field.name in wanted]
        schemas.append(pa.schema(fields))
        twice = [name for name, count in Counter(schemas[-1].names).items() if count > 1]
        if twice:
            raise InputError(
                f"expected one column of each name in {path}, got several called {listed(twice)}; "
                "rename these"
            )
        agreement.check(schemas[-1], path)
    return tuple(schemas)


def _groups(footers: Sequence[Footer]) -> dict[str, NDArray[np.int64]]:
    counts = [len(told.rows) for told in footers]
    rows = [np.asarray(told.rows, np.int64) for told in footers]
    return {
        "file": np.repeat(np.arange(len(footers)), counts),
        "index": np.concatenate([np.arange(count) for count in counts]),
        "rows": np.concatenate(rows),
    }


def _stamps(system: Any, paths: Sequence[str]) -> tuple[tuple[int | None, Any], ...]:
    try:
        infos = system.get_file_info([*paths])
    except OSError as error:
        raise InputError(
            f"expected to look at {paths[0]} and the others, got: {reason(error)}; check that they "
            "can be reached"
        ) from error
    return tuple((info.size, info.mtime_ns) for info in infos)
