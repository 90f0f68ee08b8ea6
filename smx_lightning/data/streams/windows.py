"""Windows of rows as batches: the share of them that belongs to this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.streams.order import Pass
from smx_lightning.data.streams.reading import Slice, slices
from smx_lightning.data.streams.rows import Arrays, StreamedRows
from smx_lightning.processes.ahead import Ahead
from smx_lightning.tables.unknown import Unknown

OTHERS = -1  # in place of a row's place: it belongs to another process


@dataclass(frozen=True)
class Share:
    """Which rows of a batch belong to this process: every ``world_size``-th from the rank-th on."""

    batch_size: int
    rank: int = 0
    world_size: int = 1

    def places(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the positions in a window, (rows,), the places among this process's rows.

        Args:
            order: The positions in the order in which they are served, (rows,).
        """
        own = np.arange(len(order)) % self.batch_size % self.world_size == self.rank
        places = np.full(len(order), OTHERS)
        places[order[own]] = np.arange(own.sum())
        return places

    def sizes(self, rows: int) -> list[int]:
        """How many rows of each batch of a window of so many rows are this process's."""
        batches = [min(self.batch_size, rows - k) for k in range(0, rows, self.batch_size)]
        return [len(range(self.rank, size, self.world_size)) for size in batches]


def windows(
    rows: StreamedRows, epoch: Pass, share: Share, first: int, ended: threading.Event
) -> Iterator[list[Any]]:
    """The batches of each window, from a window on.

    Each process decodes every row group, and encodes and keeps its own rows.

    Args:
        rows: What is read.
        epoch: In which order.
        share: Which rows are this process's.
        first: The window that comes first.
        ended: Set where nobody waits for the window any more.

    Warns:
        UserWarning: At the end, of what the schema does not know: how many rows of which column.

    Raises:
        InputError: For rows that cannot be read or encoded.
    """
    groups, before = epoch.remaining(first)
    read = slices(rows.files, rows.part, groups, rows.entries)
    source = _Source(Ahead().of(read))  # one is decoded while another one is encoded
    while before:  # rows of the window before, of the same row group
        before -= len(source.next(before).rows)
    unknown = Unknown()
    for window in epoch.windows[first:]:
        places = share.places(epoch.order(window).numpy())
        room = rows.empty(int((places != OTHERS).sum()))
        done = 0
        while done < len(places):
            if ended.is_set():
                return
            piece = source.next(len(places) - done)
            place = places[done : done + len(piece.rows)]
            done += len(place)
            own = place != OTHERS
            if own.any():
                with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
                    encoded = rows.encoded(piece.chosen(own), unknown)
                _fill(room, place[own], encoded)
        yield _batches(room, share.sizes(len(places)))
    for note in unknown.notes:
        rank_zero_warn(note)


class _Source:
    """Wanted rows one after the other, as many at a time as are asked for, or fewer."""

    def __init__(self, source: Iterator[Slice]) -> None:
        self.source = source
        self.rest: Slice | None = None

    def next(self, most: int) -> Slice:
        """Some rows: one at least, and not more than so many."""
        piece, self.rest = (self.rest or next(self.source)).cut(most)
        if not len(self.rest.rows):
            self.rest = None
        return piece


def _fill(room: tuple[Tensor, ...], places: NDArray[np.int64], rows: Arrays) -> None:
    """Put each encoded row where it will be served from; at once, where they stay in order."""
    first, last = int(places[0]), int(places[-1])
    in_order = bool((np.diff(places) == 1).all())
    for part, values in zip(room, rows, strict=True):
        part.numpy()[slice(first, last + 1) if in_order else places] = values


def _batches(room: tuple[Tensor, ...], sizes: list[int]) -> list[Any]:
    """Batches (x, y), (x, y, weight) or x alone, views of a window."""
    parts = [torch.split(part, sizes) for part in room]
    return [*parts[0]] if len(parts) == 1 else [*zip(*parts, strict=True)]
