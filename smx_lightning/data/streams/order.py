"""The order in which a stream's rows are served: a pure function of (seed, epoch).

Conventions
-----------
The row groups are read in an order of the epoch. Their rows, one group after the other, are cut
into windows of ``window`` rows, and each window is shuffled by itself: at most two windows of rows
are in memory, one that is served and one that is read. A window holds whole batches, so that batch
b begins at row ``b · batch_size mod window`` of window ``b · batch_size // window``, and an epoch
can begin there without looking at earlier row groups.

Rows have three numbers: their *index*, in the order of the files; their *position*, in the order in
which they are read; their *place*, in the order in which they are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.sharing import EpochOrder, GlobalBatches, InOrder

if TYPE_CHECKING:
    from smx_lightning.data.streams.rows import StreamedRows

GROUPS = 0  # what is shuffled; window k has the number k + 1


@dataclass(frozen=True)
class Pass:
    """One pass over a stream's rows.

    Attributes:
        counts: (groups,) rows of each row group, in the order of the files.
        groups: (groups,) the row groups in the order in which they are read.
        window: Rows of a window.
        seeds: Seed and epoch; ``None`` where the rows are served as they are read.
    """

    counts: NDArray[np.int64]
    groups: NDArray[np.int64]
    window: int
    seeds: tuple[int, int] | None

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """(groups,) the position behind the last row of each group that is read."""
        return np.cumsum(self.counts[self.groups])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(groups,) the index of the first row of each row group, in the order of the files."""
        return np.cumsum(self.counts) - self.counts

    @property
    def windows(self) -> range:
        """The numbers of the windows."""
        return range(-(-self._rows // self.window))

    @property
    def _rows(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def order(self, window: int) -> Tensor:
        """Positions in a window, in the order in which its rows are served, (rows,) int64."""
        rows = min(self.window, self._rows - window * self.window)
        if self.seeds is None:
            return torch.arange(rows)
        return shuffled(rows, *self.seeds, window + 1)

    def indices(self, window: int) -> Tensor:
        """The indices of a window's rows, in the order in which they are served."""
        first = window * self.window
        order = self.order(window)
        position = first + np.arange(len(order))
        group = np.searchsorted(self.ends, position, "right")
        behind = self.ends[group] - position
        of_file = self.groups[group]
        return torch.from_numpy(self.starts[of_file] + self.counts[of_file] - behind)[order]

    def remaining(self, window: int) -> tuple[NDArray[np.int64], int]:
        """The row groups from a window on, and how many rows of the first were read before."""
        position = window * self.window
        k = int(np.searchsorted(self.ends, position, "right"))
        group = self.groups[k:]
        before = position - int(self.ends[k] - self.counts[group[0]]) if len(group) else 0
        return group, before


def shuffled(rows: int, *seeds: int) -> Tensor:
    """0..rows-1 in an order that is a pure function of the seeds."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(int(state[0])))


class StreamOrder(EpochOrder):
    """All rows of a stream in the order of one epoch, the same on every process.

    Args:
        dataset: What the rows are of.
        window: Rows that are shuffled among one another.
        shuffle: A new order every epoch, or the rows as they are.
        seed: The order is a pure function of this and the epoch.
    """

    def __init__(
        self, dataset: StreamedRows, *, window: int, shuffle: bool = False, seed: int = 0
    ) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed)
        self.window, self.counts = window, dataset.counts

    def of_epoch(self) -> Pass:
        """The pass of the epoch that was set last; groups without a row are left out."""
        groups = np.flatnonzero(self.counts)
        if not self.shuffle:
            return Pass(self.counts, groups, self.window, None)
        order = shuffled(len(groups), self.seed, self.epoch, GROUPS).numpy()
        return Pass(self.counts, groups[order], self.window, (self.seed, self.epoch))

    def indices(self) -> Tensor:
        """The order of the epoch that was set last, (n,) int64: all of it in memory."""
        epoch = self.of_epoch()
        parts = [epoch.indices(window) for window in epoch.windows]
        return torch.cat(parts) if parts else torch.arange(0)


class StreamInOrder(StreamOrder, InOrder):
    """Known to Lightning as unshuffled."""


class StreamedBatches(GlobalBatches):
    """The share of every batch that belongs to this process, as indices, a window at a time."""

    def __iter__(self) -> Iterator[Any]:
        rank, world_size = self.place()
        start, self.start = self.start * self.batch_size, 0
        epoch = self.order.of_epoch()
        for window in epoch.windows[start // epoch.window :]:
            rows = epoch.indices(window)[max(start - window * epoch.window, 0) :]
            for batch in torch.split(rows, self.batch_size):
                share = batch[rank::world_size]
                yield share if self.tensors else share.tolist()

    @property
    def order(self) -> StreamOrder:
        """The sampler."""
        return cast("StreamOrder", self.sampler)
