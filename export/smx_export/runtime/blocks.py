"""Rows for files that take one number of them alone: block by block, the last one filled up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]


def in_blocks(
    run: Callable[[NDArray[Any]], Arrays], x: NDArray[Any], batch: int
) -> list[NDArray[Any]]:
    """The outputs to rows (n, …), of which ``run`` takes ``batch`` at a time.

    The last block is filled up with its last row, whose further answers are dropped; of no rows at
    all one block of zeros is run, for the sake of the outputs' shapes.
    """
    answers = []
    for start in range(0, max(len(x), 1), batch):
        block = x[start : start + batch]
        missing = batch - len(block)
        if missing:
            more = block[-1:] if len(block) else np.zeros((1, *x.shape[1:]), x.dtype)
            block = np.concatenate([block, np.repeat(more, missing, axis=0)])
        answers.append([answer[: batch - missing] for answer in run(block)])
    if len(answers) == 1:
        return answers[0]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


class BlockSession:
    """An onnxruntime session of a file of one batch, which takes any number of rows.

    Args:
        session: What it is in all else.
        batch: The number of rows that the file takes.
    """

    def __init__(self, session: Any, batch: int) -> None:
        self._session, self._batch = session, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(
        self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]], *options: Any
    ) -> list[NDArray[Any]]:
        """The outputs of those names, as onnxruntime's own ``run`` gives them."""
        rows = np.arange(len(next(iter(feed.values()))))
        if not len(rows):  # one of zeros is run in their place
            feed = {name: np.zeros((1, *x.shape[1:]), x.dtype) for name, x in feed.items()}

        def run(at: NDArray[Any]) -> Arrays:
            block = {name: x[at] for name, x in feed.items()}
            answered: Arrays = self._session.run(names, block, *options)
            return answered

        return in_blocks(run, rows, self._batch)
