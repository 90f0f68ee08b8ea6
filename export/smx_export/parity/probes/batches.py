"""Batches of all sizes: the same rows, some of them more than once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.rows import width_of
from smx_export.parity.probes.probe import CHUNK_ELEMENTS, MOST_REPEATED, Probe

# On either side of what kernels and loops are cut into.
SIZES = (
    1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 257, 513, 1025,
)  # fmt: skip
FEW_SIZES = (1, 2, 3, 33, 257)


def batches(
    rows: NDArray[np.floating], sizes: Sequence[int], *, classes: int, seed: int = 2
) -> Iterator[Probe]:
    """Batches of those sizes out of ``rows`` (n, …), as far as they fit in memory.

    The last row of each is its first again, and others recur as well where it is larger than n:
    one row, one answer, wherever it stands.
    """
    rng = np.random.default_rng(seed)
    width = width_of(rows)
    answered = max(4, CHUNK_ELEMENTS // max(width, classes))
    rows = rows if len(rows) <= answered else rows[:answered]
    most = min(MOST_REPEATED // width, max(4, CHUNK_ELEMENTS // classes))
    for size in sizes:
        if size <= most:
            at = rng.integers(0, len(rows), size)
            at[-1] = at[0] if size > 2 else size % len(rows)
            yield Probe(f"batch of {size}", rows, at=at)
