"""Rows of the kinds that data are: whole numbers, none below zero, few that are not zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    d, (low, high) = space.width, space.bounds or (0.0, 1.0)
    both = (*DEVIATIONS, *np.negative(DEVIATIONS))
    # Each as where it begins, how far it goes from there, and which way, of one or all features.
    made: list[tuple[Any, Any, Any]] = [(space.centre, space.spread, k) for k in (0.0, *both)]
    made += [(space.centre, k * space.spread, None) for k in both]
    made += [(0.0, 1.0, value) for value in (*CONSTANTS, *np.negative(CONSTANTS))]
    made += [(low, high - low, share) for share in (0.0, 0.5, 1.0)]
    made += [((low + high) / 2, (high - low) / 2, None)] * 4
    if rows < len(made):
        made = [made[i] for i in rng.permutation(len(made))[:rows]]
    x = np.empty((len(made), d))
    for row, (start, size, way) in zip(x, made, strict=True):
        row[:] = start + size * (rng.choice([-1.0, 1.0], d) if way is None else way)
    return x


def _kept(space: Space, rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which entries are not zero: another share in each row."""
    share = np.resize(DENSITIES, rows)[:, None]
    return np.asarray(rng.random((rows, space.width)) < share)
