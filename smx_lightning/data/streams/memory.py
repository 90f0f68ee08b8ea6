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
SLICES = 80 * 10**6  # bytes: of a few slices, as they are decoded, encoded and looked at
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


def window_of(memory: int, row: int, *, batch_size: int, held: int) -> int:
    """Rows of a window, whole batches.

    Args:
        memory: Bytes, for everything that the stream holds.
        row: Bytes of a row's features.
        batch_size: Rows of a batch.
        held: Bytes that decoding takes beside the rows.

    Raises:
        InputError: Where not even a window of one batch fits.
    """
    batch = (row + BESIDE) * batch_size
    left = memory - SLICES - STREAMS * held
    if left < PARTS * batch:
        pages, least = STREAMS * held, SLICES + STREAMS * held + PARTS * batch
        remedy = (
            "take a smaller batch_size" if PARTS * batch > pages else "write smaller row groups"
        )
        raise InputError(
            f"expected memory of at least {-(-least // 10**6)} MB for these files, of which "
            f"{pages / 1e6:.0f} MB are for the pages of their columns and "
            f"{PARTS * batch / 1e6:.0f} MB for batches, "
            f"got {memory / 1e6:.4g} MB; give as much, or {remedy}"
        )
    return whole_batches(min(left // PARTS // (row + BESIDE), MOST), batch_size)


def entries_of(memory: int) -> int:
    """Entries of a slice: the larger the less it costs to begin one, up to 8 MB."""
    return min(max(memory // 2**10, ENTRIES), 4 * ENTRIES)


def whole_batches(rows: int, batch_size: int) -> int:
    """The largest multiple of the batch size that is not larger; of one batch at least.

    >>> whole_batches(1000, 256), whole_batches(10, 256)
    (768, 256)
    """
    return max(rows // batch_size, 1) * batch_size
