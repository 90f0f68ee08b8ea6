"""Which Parquet files a path means, on this machine or elsewhere."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.files import at_home
from smx_lightning.tables.sources.suffixes import PARQUET, holds_rows, is_hidden


def located(place: str | Path, filesystem: Any) -> tuple[Any, str]:
    """A filesystem of pyarrow, and the path in it."""
    from pyarrow import ArrowInvalid, fs

    if filesystem is not None:
        if not isinstance(filesystem, fs.FileSystem):
            if not hasattr(filesystem, "info"):
                raise InputError(
                    "expected a filesystem of pyarrow or fsspec, got "
                    f"{type(filesystem).__name__}; give pyarrow.fs.S3FileSystem(), say"
                )
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        return filesystem, str(place).rstrip("/")
    if "://" not in str(place):
        return fs.LocalFileSystem(), os.path.normpath(at_home(place).absolute())
    try:
        opened: tuple[Any, str] = fs.FileSystem.from_uri(str(place))
    except (ArrowInvalid, OSError) as error:
        raise InputError(
            f"expected a place that pyarrow can open, got {place} ({reason(error)}); give "
            "filesystem= of fsspec or pyarrow, and the path in it"
        ) from error
    return opened


def found(system: Any, place: str) -> dict[str, str]:
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
    names = {}
    for info in infos:
        name = info.path[len(place) :].lstrip("/")
        path = PurePosixPath(name)
        if info.type != fs.FileType.File or is_hidden(path):
            continue
        if path.suffix.lower() in PARQUET:
            names[info.path] = name
        elif holds_rows(path):
            raise InputError(
                f"expected Parquet files alone in {place}, got {name}, whose rows would be left "
                "out; write it as Parquet, or begin its name with _"
            )
    return names


def once(system: Any, named: dict[str, str]) -> dict[str, str]:
    """The same without the second name of a file, as a link or a folder within another gives it."""
    from pyarrow import fs

    if not isinstance(system, fs.LocalFileSystem):
        return named
    seen: dict[str, str] = {}
    for path in sorted(named):
        seen.setdefault(os.path.realpath(path), path)
    return {path: named[path] for path in seen.values()}
