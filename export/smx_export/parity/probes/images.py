"""Images of the plainest kinds: one grey, low contrast, checkerboards, gradients, single pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.ordinary import WHITE
from smx_export.parity.probes.probe import Probe, Space

ROWS_AT_A_TIME = 256
LEVELS = 256
CONTRASTS = (1, 2, 4, 8, 16, 32, 64)
PERIODS = (1, 2, 4, 7)


def images(space: Space, *, rows: int | None = None, seed: int = 8) -> Iterator[Probe]:
    """All those that no single pixel makes, or so many of them.

    Images of numbers are pixels mapped to the bounds.
    """
    rng = np.random.default_rng(seed)
    low, high = space.bounds or (0.0, 1.0)
    plain = _images(space.input_shape, rng)
    x = np.concatenate(list(plain.values()))
    if rows is not None and rows < len(x):  # some of each kind
        parts = np.array_split(np.arange(rows), len(plain))
        x = np.concatenate(
            [kind[np.linspace(0, len(kind) - 1, len(part)).astype(int)]
             for kind, part in zip(plain.values(), parts, strict=True)]
        )  # fmt: skip
    for first in range(0, len(x), ROWS_AT_A_TIME):
        part = low + (high - low) / WHITE * x[first : first + ROWS_AT_A_TIME]
        yield Probe("plain images", space.shaped(space.fitting(part)), first, regular=True)


def pixels_alone(space: Space, most: int, *, seed: int = 9) -> Iterator[Probe]:
    """Each pixel alone: white on black; and a grey one, every other on white."""
    d = space.width
    rng = np.random.default_rng(seed)
    for first in range(0, min(d, most), ROWS_AT_A_TIME):
        at = np.arange(first, min(first + ROWS_AT_A_TIME, d, most))
        ground = WHITE * (at % 2)
        for name, others, level in (
            ("one-hot", np.zeros(len(at)), np.full(len(at), WHITE)),
            ("one grey pixel", ground, rng.integers(1, 255, len(at))),
        ):
            rows = np.repeat(others[:, None], d, 1)
            rows[np.arange(len(at)), at] = level
            yield Probe(name, space.shaped(rows), first)


def _images(shape: Sequence[int], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Pixels 0..255 of each kind, (n, d), in a random order."""
    d = math.prod(shape)
    axes = np.argsort(shape, kind="stable")[-2:]  # the longest two: not the channels
    places = np.indices(shape).reshape(len(shape), d)[axes]
    across = places / np.maximum(np.array(shape)[axes, None] - 1, 1)
    greys = np.repeat(np.arange(LEVELS, dtype=np.float64)[:, None], d, 1)
    return {
        "grey": rng.permutation(greys),
        "low contrast": _low_contrast(d, rng),
        "checkerboards": _checkerboards(places, rng),
        "gradients": _gradients(across, rng),
    }


def _low_contrast(d: int, rng: np.random.Generator) -> NDArray[np.float64]:
    contrast = np.resize(CONTRASTS, 8 * len(CONTRASTS))[:, None]
    ground = rng.integers(0, LEVELS - contrast)
    return np.asarray(ground + rng.integers(0, contrast + 1, (len(contrast), d)), np.float64)


def _checkerboards(places: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.float64]:
    boards = []
    for period in PERIODS:
        odd = (places // period).sum(0) % 2
        for _ in range(3):
            dark, light = np.sort(rng.choice(LEVELS, 2, replace=False))
            boards += [np.where(odd, dark, light), np.where(odd, light, dark)]
        boards += [np.where(odd, 0, WHITE), np.where(odd, WHITE, 0)]
    return np.asarray(boards, np.float64)


def _gradients(across: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    slopes = []
    for way in (*across, across.mean(0)):
        for start, stop in ((0, 255), (255, 0), *rng.integers(0, LEVELS, (4, 2))):
            slopes.append(np.rint(start + (stop - start) * way))
    return np.asarray(slopes)
