"""Rows on which the chosen class is about to change: solved for, on either side of the border.

Of a sparse activation likewise where a probability is just 0, and just above it. The border of a
class lies where the two best classes tie or, of a threshold, where the probability is γ. It is
found by bisection between two rows with different answers, in float64. From there rows lie at
distances of which each is a quarter of the last, down to what the dtype of the inputs can tell, so
that some lie just beyond what rounding allows, and others .001 and .01 nats away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import Probe, Space

NAME, SUPPORT = "near the border", "where a probability becomes 0"
Decide = Callable[[NDArray[np.floating]], NDArray[np.int64]]  # inputs (n, …) → classes (n,)
BISECTIONS = 40
HALVINGS = range(7, 25, 2)  # distances from the border, as powers of 1/2 of that between the two
CROSSINGS = 64  # pairs of rows
DOUBLINGS = 24


def near_the_border(
    space: Space,
    starts: NDArray[np.floating],
    decide: Decide,
    *,
    name: str = NAME,
    crossings: int = CROSSINGS,
    bisections: int = BISECTIONS,
    seed: int = 10,
) -> Iterator[Probe]:
    """Rows on both sides of the borders between rows that are answered differently.

    Args:
        space: Where the inputs lie.
        starts: Rows (n, *input_shape) with as many different answers as possible.
        decide: The right answers.
        name: What the rows are called.
        crossings: How many borders.
        bisections: How often the way between two rows is halved.
        seed: Of which two rows are joined.
    """
    rng = np.random.default_rng(seed)
    one, other = _pairs(decide(starts), crossings, rng)
    if not len(one):
        return
    flat = starts.reshape(len(starts), -1).astype(np.float64)
    a, b = flat[one], flat[other]
    first = decide(space.shaped(a))
    low, high = np.zeros((len(a), 1)), np.ones((len(a), 1))
    for _ in range(bisections):
        middle = (low + high) / 2
        same = (decide(space.shaped(a + middle * (b - a))) == first)[:, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    for halvings in HALVINGS:
        away = 2.0**-halvings
        rows = [a + (border + away * side) * (b - a) for side, border in ((-1, low), (1, high))]
        yield Probe(name, space.shaped(np.concatenate(rows)), regular=True)


def champions(
    space: Space, classes: NDArray[np.intp], directions: NDArray[np.float64], decide: Decide
) -> NDArray[np.floating]:
    """For each class a row that is answered with it, as far as there is one in its direction.

    Args:
        space: Where the inputs lie.
        classes: Some classes (n,).
        directions: (n, d), in deviations, along which each gains on the others.
        decide: The right answers.

    Returns:
        At most n rows, (…, *input_shape).
    """
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.where(length > 0, length, 1)
    found, left = [], np.arange(len(classes))
    for doubling in range(DOUBLINGS):
        rows = space.shaped(space.centre + 2.0 ** (doubling - 4) * space.spread * unit[left])
        wins = decide(rows) == classes[left]
        found.append(rows[wins])
        left = left[~wins]
        if not len(left):
            break
    return np.concatenate(found)


def _pairs(
    answers: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of rows with different answers, in which each answer occurs as soon as possible."""
    order = rng.permutation(len(answers))
    # The first of each answer, then the second of each, and so on.
    turn = np.zeros(len(answers), np.intp)
    seen: dict[int, int] = {}
    for i in order:
        turn[i] = seen.setdefault(int(answers[i]), 0)
        seen[int(answers[i])] += 1
    one = order[np.argsort(turn[order], kind="stable")]
    other = np.array([rng.permutation(np.flatnonzero(answers != answers[i]))[:1] for i in one])
    if not other.size:
        return one[:0], one[:0]
    return one[:count], other[:count, 0]
