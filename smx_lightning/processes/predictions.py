"""Predictions as a CSV file, and what its columns are called. No torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smx_lightning.errors.text import csv_text
from smx_lightning.processes.files import written_whole

MISSING = -1  # label of a row that has no answer
ROW, CLASS = "row", "class"
Write = Callable[..., None]


class Headings(NamedTuple):
    """What the columns of predictions are called.

    Attributes:
        row: The number of a row, from 0.
        label: The name of its class.
        answers: A probability a class; or name and probability of each of the most probable ones.
    """

    row: str
    label: str
    answers: list[str]


def headings(
    class_names: Sequence[str], *, top_k: int | None = None, kept: Sequence[str] = ()
) -> Headings:
    """Names that none of the kept columns has: what has one of ours stays, and ours gives way.

    >>> headings(["a"], kept=["row", "class", "x"])
    Headings(row='predicted row', label='predicted class', answers=['p(a)'])

    Args:
        class_names: One name a class.
        top_k: How many of the most probable classes there are, where not all are written.
        kept: Names of the input's own columns.
    """
    if top_k is None:
        answers = [f"p({name})" for name in class_names]
    else:
        answers = [f(f"top {r}") for r in range(1, top_k + 1) for f in (str, "p({})".format)]
    taken = {*kept}

    def free(name: str) -> str:
        while name in taken:
            name = f"predicted {name}"
        return name

    return Headings(free(ROW), free(CLASS), [*map(free, answers)])


@contextmanager
def predictions_csv(
    path: str | Path,
    class_names: Sequence[str],
    *,
    top_k: int | None = None,
    kept: Sequence[str] | None = None,
) -> Iterator[Write]:
    """A function that appends rows to a CSV file, which appears when all of them are written.

    Its columns are row, counted from 0; class, the name as :func:`csv_text` has it, empty where the
    label is -1; and one p(name) a class. Of the most probable classes alone, they are followed by
    the name and the probability of each, best first: top 1, p(top 1), top 2, … Behind the row stand
    the kept columns of a table, where there is one: see :func:`headings`. Of a table probabilities
    have the fewest digits that give the same float32 again, of arrays seven.

    Args:
        path: The file.
        class_names: One name a class.
        top_k: How many of the most probable classes there are, where not all are written.
        kept: Names of the input's own columns, ``None`` where it is no table.

    Yields:
        A function of labels (n,) and probabilities (n, classes), to be called a block at a time; of
        the most probable classes, of labels (n,), these (n, k), and their probabilities (n, k). Of
        a table ``own=`` are the kept columns, a list of cells each.

    Raises:
        InputError: Where the file cannot be written.
    """
    names = headings(class_names, top_k=top_k, kept=kept or ())
    digits = _seven if kept is None else _shortest
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = [names.row, *(kept or ()), names.label, *names.answers]
        writer.writerow(map(csv_text, header) if kept else header)
        cells = [csv_text(name) for name in class_names]
        written = 0

        def named(label: int) -> str:
            return "" if label == MISSING else cells[label]

        def write(
            labels: Sequence[int],
            *answers: Sequence[Sequence[Any]],
            own: Sequence[Sequence[str]] = (),
        ) -> None:
            nonlocal written
            cells_of = zip(*own, strict=True) if own else [()] * len(labels)
            for label, mine, *row in zip(labels, cells_of, *answers, strict=True):
                numbers = [*map(digits, row[-1])]
                if top_k is not None:  # each behind its class
                    pairs = zip(map(named, row[0]), numbers, strict=True)
                    numbers = [cell for pair in pairs for cell in pair]
                writer.writerow([written, *mine, named(label), *numbers])
                written += 1

        yield write


def _seven(value: float) -> str:
    return f"{value:.7g}"


def _shortest(value: float) -> str:
    """The fewest digits that are the same float32 again."""
    return str(np.float32(value))
