"""Rows that the table of a model's schema can have: one category at a time, and gaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from smx_export.parity.probes.probe import Probe, Space
from smx_lightning.tables import Column, Schema

NAME = "rows of the table"
GAPS = 0.1  # of the values, where a column may have gaps


def table_rows(space: Space, schema: Schema, *, rows: int = 96, seed: int = 11) -> Iterator[Probe]:
    """``rows`` such, in which each category occurs, if there are as many rows as categories."""
    rng = np.random.default_rng(seed)
    made = space.centre + space.spread * rng.standard_normal((rows, space.width))
    start = 0
    for column in schema.columns:
        stop = start + len(column.feature_names)
        part = made[:, start:stop]
        part[:] = _one_hot(part, rng) if column.kind == "category" else _number(part, column, rng)
        start = stop
    yield Probe(NAME, space.shaped(space.fitting(made)), regular=True)


def _one_hot(part: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A place a row, all places in turn; and none, as of a category that is not known."""
    width = part.shape[1]
    place = rng.permutation(np.resize(np.arange(width + 1), len(part)))
    return np.asarray(np.eye(width + 1)[place][:, :width])


def _number(
    part: NDArray[np.float64], column: Column, rng: np.random.Generator
) -> NDArray[np.float64]:
    """As the data were, or missing, where that is noted beside what stands in its place."""
    value = part[:, 0]
    if column.kind == "boolean":
        value = rng.integers(0, 2, len(part)).astype(float)
    if column.fill is None:
        return value[:, None]
    gap = rng.random(len(part)) < GAPS
    filled = np.where(gap, column.fill, value)[:, None]
    return np.concatenate([filled, gap[:, None]], 1) if column.missing else filled
