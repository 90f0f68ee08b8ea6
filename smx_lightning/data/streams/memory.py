"""How many rows a stream holds, of a memory that is given."""

from __future__ import annotations

import re

from smx_lightning.data.streams.reading import ENTRIES
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9} | {
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30
}  # fmt: skip
MOST = 2**18  # rows of a window: more shuffle no better, and the first batch waits for them
STREAMS = 2  # that may be open at a time: of training rows, and of those that are validated on
PARTS = 4  # of what is left beside them: two are windows, two are for what the model makes of rows
SLICES = 6  # as they are decoded, encoded and looked at
SLICE = 8 * ENTRIES  # bytes of the least one
BESIDES = 68 * 10**6  # bytes: what malloc keeps back, buffers of files
BESIDE = 16  # bytes of a row for label and weight


def bytes_of(memory: int | str) -> int:
    """A number of bytes, or one with a unit: ``512 MB``, ``1.5 GiB``.

    Raises:
        InputError: For anything else.

    >>> bytes_of("512 MB"), bytes_of("1.5GiB"), bytes_of(1000)
    (512000000, 1610612736, 1000)
    """
    if not isinstance(memory, str):
        return at_least("memory", memory, 1)
    units = {unit.lower(): size for unit, size in UNITS.items()}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", memory.strip().lower())
    if found is None or found[2] not in units or float(found[1]) == 0:
        raise InputError(
            f"memory must be bytes, or a number and one of {', '.join([*UNITS][1:])}, got "
            f"{memory!r}; give '512 MB', say"
        )
    return int(float(found[1]) * units[found[2]])


def shares_of(
    memory: int, row: int, *, batch_size: int, held: int, window: int | None = None
) -> tuple[int, int]:
    """Rows of a window, whole batches, and entries of a slice.

    The larger a slice the less it costs to begin one: an eighth of what is left over makes them
    larger, up to 16 MB.

    Args:
        memory: Bytes, for everything that the stream holds.
        row: Bytes of a row's features.
        batch_size: Rows of a batch.
        held: Bytes that decoding takes beside the rows.
        window: Rows of a window that is given: no memory refuses it.

    Raises:
        InputError: Where not even a window of one batch fits.
    """
    taken = BESIDES + SLICES * SLICE + STREAMS * held
    size = row + BESIDE
    least = PARTS * size * (window or batch_size)
    left = memory - taken
    if window is None and left < least:
        pages = STREAMS * held
        remedy = "take a smaller batch_size" if least > pages else "write smaller row groups"
        raise InputError(
            f"expected memory of at least {-(-(taken + least) // 10**6)} MB for these files, of "
            f"which {pages / 1e6:.0f} MB are for the pages of their columns and "
            f"{least / 1e6:.0f} MB for batches, "
            f"got {memory / 1e6:.4g} MB; give as much, or {remedy}"
        )
    more = max(min(left // 8, left - least, SLICES * 7 * SLICE), 0)
    fits = min((left - more) // PARTS // size, MOST)
    return window or whole_batches(fits, batch_size), ENTRIES + more // SLICES // 8


def whole_batches(rows: int, batch_size: int) -> int:
    """The largest multiple of the batch size that is not larger; of one batch at least.

    >>> whole_batches(1000, 256), whole_batches(10, 256)
    (768, 256)
    """
    return max(rows // batch_size, 1) * batch_size
