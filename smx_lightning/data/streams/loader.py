"""A loader of a stream's batches, of which the next ones are read in a thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from smx_lightning.data.loading import BatchLoader
from smx_lightning.data.streams.memory import whole_batches
from smx_lightning.data.streams.order import StreamedBatches, StreamInOrder, StreamOrder
from smx_lightning.data.streams.rows import StreamedRows
from smx_lightning.data.streams.windows import Share, windows
from smx_lightning.processes.ahead import Ahead


class StreamLoader(BatchLoader):
    """A :class:`~smx_lightning.data.BatchLoader` of rows that are read in order, window by window.

    A thread reads and encodes the next window while the present one is served. It begins anew in
    the middle of an epoch at the window of the first batch that is wanted: no earlier row group is
    read, but for the beginning of the one in which that window begins.

    Args:
        dataset: The rows.
        batch_size: Rows of a batch, over all processes together.
        shuffle: A new order every epoch.
        seed: The order is a pure function of this and the epoch.
        rank: Of this process; asked of torch.distributed where it is ``None``.
        world_size: Number of processes that share the rows; likewise.
        batch_sampler: In place of all these, as Lightning does when it makes a loader anew.
        kwargs: Passed on to DataLoader.
    """

    def __init__(
        self,
        dataset: StreamedRows,
        *,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        batch_sampler: Any = None,
        **kwargs: Any,
    ) -> None:
        if batch_sampler is None:
            window = whole_batches(dataset.window, batch_size)
            kind = StreamOrder if shuffle else StreamInOrder
            order = kind(dataset, window=window, shuffle=shuffle, seed=seed)
            batch_sampler = StreamedBatches(
                order, batch_size, rank=rank, world_size=world_size, tensors=True
            )
        super().__init__(dataset, batch_sampler=batch_sampler, **kwargs)

    def batches(self) -> Iterable[Any]:
        """Shares of batches, from the batch on that the batch sampler starts at.

        Raises:
            InputError: For files that were changed, cannot be read, or hold what the schema does
                not take.
        """
        rows = cast("StreamedRows", self.dataset)
        sampler: Any = self.batch_sampler
        own: StreamedBatches = getattr(sampler, "_batch_sampler", sampler)  # in Lightning's wrapper
        rows.files.check_unchanged()
        epoch = own.order.of_epoch()
        window, begun = divmod(own.start * own.batch_size, epoch.window)
        served = begun // own.batch_size  # batches of that window
        seen = iter(sampler)  # Lightning asks it which rows it has predicted
        ahead = Ahead()
        share = Share(own.batch_size, *own.place())
        for batches in ahead.of(windows(rows, epoch, share, window, ahead.ended)):
            del batches[:served]
            served = 0
            batches.reverse()
            while batches:  # the last batch alone holds the window then, until it is done with
                next(seen)
                yield batches.pop()
        rows.files.check_unchanged()  # what was written in their place may have as many rows
