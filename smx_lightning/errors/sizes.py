"""Whether a file holds what it declares: asked before anything is inflated or memory is taken."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from smx_lightning.errors import InputError

try:
    import resource
except ImportError:  # not on Windows, where no limit is set on a process this way
    resource = None  # type: ignore[assignment]

INFLATED = 200  # times the stored bytes: data rarely reach 20, zeros a thousand
FREE = 1 << 30  # bytes that any file may inflate to
LONGEST_HEADER = 12 + 10_000  # bytes; numpy refuses longer ones, after it has read them
NPY = ".npy"
MAGIC = np.lib.format.MAGIC_PREFIX
_READERS = {  # by format version
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """Of an .npy file.

    Attributes:
        shape: As declared; a hostile one may be negative.
        fortran: Whether columns lie together.
        dtype: Of the entries.
        start: Byte at which they begin.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int

    @property
    def size(self) -> int:
        """Bytes that are declared; entries of none count as one byte."""
        return math.prod(self.shape) * max(1, self.dtype.itemsize)


def npy_header(file: IO[bytes]) -> Header:
    """Read the header of an .npy file, and little more.

    Raises:
        ValueError: As numpy does, where it is none.
    """
    start = io.BytesIO(file.read(LONGEST_HEADER))
    version = np.lib.format.read_magic(start)
    if version not in _READERS:
        raise ValueError(f"unknown version {version} of the .npy format")
    shape, fortran, dtype = _READERS[version](start)
    return Header(shape, fortran, dtype, start.tell())


def check_header(header: Header, held: int, what: str) -> None:
    """Complain about an array that is larger than the ``held`` bytes of its file.

    Raises:
        InputError: Then.
    """
    within = header.dtype.hasobject or header.start + header.size <= held
    if min(header.shape, default=0) < 0 or not within:
        raise InputError(
            f"expected {what} to be as large as it says, {header.size:,} bytes for shape "
            f"{header.shape}, got {max(0, held - header.start):,}; it is truncated or damaged: "
            "save it again"
        )


def check_inflation(size: int, stored: int, what: str) -> None:
    """Complain about content that is far larger than what is stored of it.

    Raises:
        InputError: Beyond :data:`FREE` bytes, where it is more than :data:`INFLATED` times as much.
    """
    if size > FREE and size > INFLATED * stored:
        raise InputError(
            f"expected {what} that inflates to at most {INFLATED} times what is stored of it, got "
            f"{size:,} bytes out of {stored:,}; where you trust it, store it uncompressed"
        )


def check_room(size: int, what: str) -> None:
    """Complain about what there is no memory for.

    Raises:
        InputError: Then.
    """
    room = free_memory()
    if size > room:
        raise InputError(
            f"expected {what} that fits in the free memory, {room:,} bytes, got {size:,}; use "
            "fewer rows or columns, or another machine"
        )


def check_members(archive: zipfile.ZipFile, names: Container[str], what: str) -> None:
    """Complain about arrays in an .npz file that are not as large as they say, or too large.

    Args:
        archive: The file.
        names: Of the arrays that will be read.
        what: The file in words.

    Raises:
        InputError: Then.
    """
    members = [m for m in archive.infolist() if m.filename.removesuffix(NPY) in names]
    size = sum(member.file_size for member in members)
    whole = Path(archive.filename or "").stat().st_size
    check_inflation(size, min(whole, sum(member.compress_size for member in members)), what)
    for member in members:
        with archive.open(member) as file:
            start = file.read(len(MAGIC))
        if member.filename.endswith(NPY) or start == MAGIC:  # numpy goes by the content
            with archive.open(member) as file:
                check_header(npy_header(file), member.file_size, f"{member.filename} in {what}")
    check_room(size, what)


def free_memory() -> int:
    """Bytes that this process may still take, as far as the system tells."""
    room = math.inf
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                room = 1024 * int(line.split()[1])
    except OSError:  # only Linux has it
        pass
    if resource is not None:
        limits = (
            resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
        )
        room = min([room, *(limit for limit in limits if limit != resource.RLIM_INFINITY)])
    return 2**63 if room == math.inf else int(room)
