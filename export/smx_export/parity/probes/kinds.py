"""Rows of the kinds that data are: whole numbers, none below zero, few that are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import Probe, Space

TOPS = (1, 2, 9, 16, 100, 255)  # of whole numbers: bits, digits, grey levels of 4 and 8 bits
DENSITIES = (1.0, 0.5, 0.25, 0.1, 0.02)  # shares of a row that are not zero
DEVIATIONS = (0.01, 0.1, 0.5, 1, 2, 3, 5, 10, 100)
CONSTANTS = (1e-3, 0.01, 0.1, 0.25, 0.5, 1, 2, 5, 10, 16, 100, 255, 1000)


def kinds(space: Space, *, rows: int = 96, seed: int = 7) -> Iterator[Probe]:
    """``rows`` of each kind."""
    rng = np.random.default_rng(seed)
    for name, made in (
        ("whole numbers", _whole),
        ("none below zero", _not_negative),
        ("sparse rows", _sparse),
        ("at the statistics", _at_statistics),
    ):
        yield Probe(name, space.shaped(space.fitting(made(space, rows, rng))), regular=True)


def _whole(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Up to each top, thick and thin, every third row of both signs; and the nearest to data."""
    top = np.resize(TOPS, rows)[:, None]
    x = np.asarray(rng.integers(0, top + 1, (rows, space.width)), np.float64)
    x *= _kept(space, rows, rng)
    x[2::3] *= rng.choice([-1, 1], x[2::3].shape)
    near = space.centre + space.spread * rng.standard_normal(x[::4].shape)
    x[::4] = np.rint(near)
    return x


def _not_negative(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """As the data were, without sign, thick and thin; and from zero to the bounds' upper end."""
    x = np.abs(space.centre + space.spread * rng.standard_normal((rows, space.width)))
    x *= _kept(space, rows, rng)
    high = (space.bounds or (0.0, 1.0))[1]
    x[1::3] = rng.uniform(0, abs(high), x[1::3].shape)
    return x


def _sparse(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Of both signs, in sizes around the deviation; some rows with two entries alone."""
    size = 10.0 ** rng.uniform(-2, 2, (rows, 1)) * space.spread
    x = size * rng.standard_normal((rows, space.width))
    kept = _kept(space, rows, rng)
    kept[::6] = False
    for row in kept[::6]:
        row[rng.integers(0, space.width, 2)] = True
    return np.asarray(x * kept)


def _at_statistics(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The mean, so many deviations from it, at either bound, and one value for all features."""
    d = space.width
    deviations = np.array([0, *DEVIATIONS, *np.negative(DEVIATIONS)])
    x = [space.centre + space.spread * deviations[:, None]]
    x += [space.centre + space.spread * step * rng.choice([-1, 1], (2, d)) for step in DEVIATIONS]
    if space.bounds is not None:
        low, high = space.bounds
        x += [np.full((1, d), low), np.full((1, d), high), rng.uniform(low, high, (8, d))]
        x += [rng.choice([low, high], (4, d)), np.full((1, d), (low + high) / 2)]
    values = np.array([*CONSTANTS, *np.negative(CONSTANTS)])
    x += [np.repeat(values[:, None], d, 1)]
    made = np.concatenate(x)
    return made if rows >= len(made) else made[rng.permutation(len(made))[:rows]]


def _kept(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which entries are not zero: another share in each row."""
    share = np.resize(DENSITIES, rows)[:, None]
    return np.asarray(rng.random((rows, space.width)) < share)
