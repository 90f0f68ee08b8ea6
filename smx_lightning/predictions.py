"""Predictions as a CSV file, a row a row of the input. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smx_lightning.files import written_whole

MISSING = -1  # label of a row that has no answer

Write = Callable[[Sequence[int], Sequence[Sequence[float]]], None]


@contextmanager
def predictions_csv(path: str | Path, class_names: Sequence[str]) -> Iterator[Write]:
    """A function that appends rows to a CSV file, which appears when all of them are written.

    Its columns are row, counted from 0; class, the name, empty where the label is -1; and one
    p(name) a class.

    Args:
        path: The file.
        class_names: One name a class.

    Yields:
        A function of labels (n,) and probabilities (n, classes), to be called a block at a time.

    Raises:
        InputError: Where the file cannot be written.
    """
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "class", *(f"p({name})" for name in class_names)])
        written = 0

        def write(labels: Sequence[int], probs: Sequence[Sequence[float]]) -> None:
            nonlocal written
            for label, p in zip(labels, probs, strict=True):
                name = "" if label == MISSING else class_names[label]
                writer.writerow([written, name, *(f"{value:.7g}" for value in p)])
                written += 1

        yield write
