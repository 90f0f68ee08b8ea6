"""X as scikit-learn has checked it → batches of tensors: dense, and such as torch may write to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_ENTRIES = 2**24  # of a part that is made dense or prepared: 128 MB of float64


class Parts(Sequence[tuple[Tensor, ...]]):
    """Rows in parts, each made anew whenever it is asked for: memory is one part.

    Args:
        x: (rows, features) of float32 or float64: an array, or a matrix of scipy.sparse by rows.
        along: Tensors (rows, …) that are cut likewise.
        prepare: What becomes of each part (rows, features) of x.
    """

    def __init__(self, x: Any, *along: Tensor, prepare: Callable[[Tensor], Tensor]) -> None:
        self._x, self._along, self._prepare = x, along, prepare
        self._size: int = max(MOST_ENTRIES // max(x.shape[1], 1), 1)

    def __len__(self) -> int:
        rows: int = self._x.shape[0]
        return math.ceil(rows / self._size)

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = slice(index * self._size, (index + 1) * self._size)
        x = self._prepare(dense(self._x[part]))
        return (x, *(tensor[part] for tensor in self._along))


def as_array(x: Any) -> Any:
    """A tensor as the array that it is, in its own dtype; anything else as it comes."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def dense(x: Any) -> Tensor:
    """Rows as a tensor: the array's own memory, or a copy of what is sparse or only to be read."""
    x = np.ascontiguousarray(x.toarray() if hasattr(x, "toarray") else x)
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def batches(
    x: Any, *along: Tensor, prepare: Callable[[Tensor], Tensor] | None = None
) -> Sequence[tuple[Tensor, ...]]:
    """The rows as :func:`smx_lightning.optim.minimise` takes them.

    In one piece where that needs no copy, or a small one; else in :class:`Parts`.

    Args:
        x: See :class:`Parts`.
        along: Likewise.
        prepare: Likewise; ``None``: nothing.
    """
    as_it_is = prepare is None and not hasattr(x, "toarray") and x.flags.writeable
    if as_it_is:
        return [(torch.from_numpy(x), *along)]
    parts = Parts(x, *along, prepare=prepare or (lambda rows: rows))
    return [*parts] if len(parts) == 1 else parts
