"""The Parquet files of a source: which they are, their row groups, and whether they stay the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.data.streams.columns import common
from smx_lightning.data.streams.footers import Footer, footer
from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.files import at_home

if TYPE_CHECKING:
    import pyarrow as pa

Source = str | Path | Sequence[str | Path]

SUFFIXES = (".parquet", ".parq", ".pq")
OTHER_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".feather", ".arrow", ".ipc", ".orc", ".avro")
PAGE = 9 * 2**18  # bytes: a page and a dictionary of 1 MiB, as usual, and what is packed of them
LISTED = 10  # names in a sentence
LOCAL, DISTANT = 2**16, 2**20  # bytes that are read of a column at a time
AT_ONCE = 8  # footers: of distant files each is a question and an answer


@dataclass(frozen=True)
class ParquetFiles:
    """Files in the order of their paths, and their row groups in the order of the files.

    Attributes:
        filesystem: Of pyarrow, where they lie.
        paths: Of the files.
        names: Likewise, from the folder that was named on.
        stamps: Size and time of change of each, as the file system says.
        digests: A hash of each one's footer.
        file: (groups,) the file that each row group is in.
        index: (groups,) its number in that file.
        rows: (groups,) its rows.
        largest: Bytes of the largest row group, unpacked.
        schema: Of the columns that are read.
    """

    filesystem: Any
    paths: tuple[str, ...]
    names: tuple[str, ...]
    stamps: tuple[tuple[int | None, Any], ...]
    digests: tuple[str, ...]
    file: NDArray[np.int64]
    index: NDArray[np.int64]
    rows: NDArray[np.int64]
    largest: int
    schema: pa.Schema

    @property
    def buffer(self) -> int:
        """Bytes that are read of a column at a time."""
        return LOCAL if self.filesystem.type_name == "local" else DISTANT

    @property
    def held(self) -> int:
        """Bytes that decoding a row group takes beside its rows, at most."""
        columns = len(self.schema.names)
        return min(2 * self.largest, PAGE * columns) + self.buffer * columns

    def reading(self, names: Sequence[str]) -> ParquetFiles:
        """The same files, of which these columns are read.

        Raises:
            InputError: For a column that they have not.
        """
        missing = [name for name in names if name not in self.schema.names]
        if missing:
            raise InputError(
                f"expected a column {missing[0]!r} in {self.paths[0]} and the others, got "
                f"{', '.join(self.schema.names[:LISTED]) or 'none'}; name one of these"
            )
        import pyarrow as pa

        return replace(self, schema=pa.schema([self.schema.field(name) for name in names]))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these files from others: their names, and a hash of their footers."""
        hashed = hashlib.blake2b("".join(self.digests).encode(), digest_size=8).hexdigest()
        return {"files": list(self.names), "hash of footers": hashed}

    def check_unchanged(self) -> None:
        """Complain about files that are no longer those whose footers were read.

        Raises:
            InputError: For the first one that was changed or removed.
        """
        stamps = _stamps(self.filesystem, self.paths)
        for path, before, now in zip(self.paths, self.stamps, stamps, strict=True):
            if before != now:
                raise changed(path)


def changed(path: str) -> InputError:
    """The complaint about a file that was changed since its footer was read."""
    return InputError(
        f"expected the files to stay as they are while they are read, got {path}, which was "
        "changed or removed since; begin anew with files that nobody writes"
    )


def parquet_files(
    source: Source, filesystem: Any = None, *, wanted: Sequence[str] | None = None
) -> ParquetFiles:
    """The files of a source, whose footers are read and nothing else.

    Args:
        source: A file, a folder, or several of these; a folder's ``*.parquet`` at any depth, but
            what begins with ``_`` or ``.``. With a filesystem, paths there; else local ones and
            URIs such as ``s3://bucket/folder``.
        filesystem: Of pyarrow or fsspec.
        wanted: The columns that are needed; all by default.

    Raises:
        InputError: Where there is none, one cannot be read, or their columns differ.
    """
    places = [source] if isinstance(source, (str, Path)) else [*source]
    named: dict[str, str] = {}
    system = None
    for place in places:
        system, path = _located(place, filesystem)
        named |= _found(system, path)
    if not named:
        raise InputError(
            f"expected Parquet files at {', '.join(map(str, places)) or 'source'}, found none; "
            f"name a folder of {SUFFIXES[0]} files"
        )
    paths = sorted(named)
    stamps = _stamps(system, paths)
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as pool:
        footers = [*pool.map(lambda path: footer(system, path), paths)]
    return ParquetFiles(
        filesystem=system,
        paths=tuple(paths),
        names=tuple(named[path] for path in paths),
        stamps=stamps,
        digests=tuple(told.digest for told in footers),
        largest=max(told.largest for told in footers),
        schema=common(dict(zip(paths, (f.schema for f in footers), strict=True)), wanted),
        **_groups(footers),
    )


def _groups(footers: Sequence[Footer]) -> dict[str, NDArray[np.int64]]:
    counts = [len(told.rows) for told in footers]
    rows = [np.asarray(told.rows, np.int64) for told in footers]
    return {
        "file": np.repeat(np.arange(len(footers)), counts),
        "index": np.concatenate([np.arange(count) for count in counts]),
        "rows": np.concatenate(rows),
    }


def _located(place: str | Path, filesystem: Any) -> tuple[Any, str]:
    """A filesystem of pyarrow, and the path in it."""
    from pyarrow import ArrowInvalid, fs

    if filesystem is not None:
        if not isinstance(filesystem, fs.FileSystem):
            try:
                filesystem = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
            except (TypeError, AttributeError) as error:
                raise InputError(
                    "expected a filesystem of pyarrow or fsspec, got "
                    f"{type(filesystem).__name__}; give pyarrow.fs.S3FileSystem(), say"
                ) from error
        return filesystem, str(place).rstrip("/")
    if "://" not in str(place):
        return fs.LocalFileSystem(), str(at_home(place).absolute())
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(str(place))
    except (ArrowInvalid, OSError) as error:
        raise InputError(
            f"expected a place that pyarrow can open, got {place} ({reason(error)}); give "
            "filesystem= of fsspec or pyarrow, and the path in it"
        ) from error
    return found


def _found(system: Any, place: str) -> dict[str, str]:
    """Paths of the files at a place, and what they are called from there on."""
    from pyarrow import fs

    try:
        info = system.get_file_info(place)
        if info.type == fs.FileType.File:
            return {info.path: PurePosixPath(info.path).name}
        if info.type == fs.FileType.NotFound:
            raise InputError(f"expected Parquet files at {place}, found none; check the path")
        infos = system.get_file_info(fs.FileSelector(place, recursive=True))
    except OSError as error:
        raise InputError(
            f"expected Parquet files at {place}, got: {reason(error)}; check the path and its "
            "permissions"
        ) from error
    found = {}
    for info in infos:
        name = info.path[len(place) :].lstrip("/")
        if info.type != fs.FileType.File or any(part[0] in "_." for part in name.split("/")):
            continue
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in OTHER_TABLES:
            raise InputError(
                f"expected Parquet files alone in {place}, got {name}, whose rows would be left "
                "out; write it as Parquet, or begin its name with _"
            )
        if suffix in SUFFIXES:
            found[info.path] = name
    return found


def _stamps(system: Any, paths: Sequence[str]) -> tuple[tuple[int | None, Any], ...]:
    try:
        infos = system.get_file_info([*paths])
    except OSError as error:
        raise InputError(
            f"expected to look at {paths[0]} and the others, got: {reason(error)}; check that they "
            "can be reached"
        ) from error
    return tuple((info.size, info.mtime_ns) for info in infos)
