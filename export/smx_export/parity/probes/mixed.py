"""Rows of several inputs, and of integers: within the ranges that the model states.

What is asked about floating-point inputs is asked about all of theirs together, side by side,
while the integers beside them are drawn; where a range is stated, no number leaves it. NaN,
infinity and what is far away are no questions to ask of an integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.rows import joined
from smx_export.parity.probes.batches import FEW_SIZES, batches
from smx_export.parity.probes.kinds import kinds
from smx_export.parity.probes.margins import near_the_border
from smx_export.parity.probes.one_hots import of_all_sizes, one_hots
from smx_export.parity.probes.ordinary import HUGE, RANDOM_ROWS, TINY
from smx_export.parity.probes.probe import CHUNK_ELEMENTS, RANDOM, Probe, Space
from smx_lightning.errors.inputs import NATURAL

MOST_VALUES = 2048  # rows in which the values of an integer input have a turn
FEW, FEW_ONE_HOTS, FEW_BISECTIONS = 8, 16, 20


class Field(NamedTuple):
    """One input.

    Attributes:
        name: Its name.
        dtype: Of its entries.
        shape: Of one row.
        bounds: Smallest and largest entry; ``None`` of floating-point numbers without any.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bounds: tuple[float, float] | None

    @property
    def width(self) -> int:
        """Entries of a row."""
        return math.prod(self.shape)

    @property
    def real(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype.kind == "f"

    def ends(self) -> tuple[float, float]:
        """The bounds, or what is ordinary without any."""
        return self.bounds or (-1.0, 1.0)


class Mixed(NamedTuple):
    """Where the inputs lie.

    Attributes:
        fields: The inputs.
        several: Whether rows are records of them, or arrays of the one there is.
    """

    fields: tuple[Field, ...]
    several: bool

    @classmethod
    def of(
        cls,
        inputs: Sequence[tuple[str, str, Sequence[int]]],
        ranges: Mapping[str, tuple[float, float] | None],
        *,
        several: bool,
    ) -> Mixed:
        """Of names, dtypes and shapes, and of the ranges that are stated."""
        fields = (
            Field(name, np.dtype(kind), tuple(shape), ranges.get(name) or NATURAL.get(kind))
            for name, kind, shape in inputs
        )
        return cls(tuple(fields), several)

    def rows(self, parts: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Rows out of the entries (n, width) of each input."""
        shaped = {
            field.name: np.asarray(parts[field.name], field.dtype).reshape(-1, *field.shape)
            for field in self.fields
        }
        return joined(shaped) if self.several else shaped[self.fields[0].name]

    def drawn(self, count: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Entries (count, width) of each input: uniform within bounds, else standard normal."""
        parts: dict[str, NDArray[Any]] = {}
        for field in self.fields:
            size = (count, field.width)
            if not field.real:
                low, high = map(int, field.ends())
                parts[field.name] = rng.integers(low, high, size, np.int64, endpoint=True)
            elif field.bounds is not None:
                parts[field.name] = rng.uniform(*field.bounds, size)
            else:
                parts[field.name] = rng.standard_normal(size)
        return parts

    def ordinary(self, count: int, seed: int = 1) -> NDArray[Any]:
        """Random rows."""
        return self.rows(self.drawn(count, np.random.default_rng(seed)))

    def corners(self) -> NDArray[Any]:
        """Rows at the ends of the ranges: all low, all high, and either in turn."""
        parts = {}
        for field in self.fields:
            low, high = (np.asarray(end, field.dtype) for end in field.ends())
            odd = np.arange(field.width) % 2 == 1
            some = np.zeros(field.width, bool), np.ones(field.width, bool), odd, ~odd
            parts[field.name] = np.where(np.stack(some), high, low)
        return self.rows(parts)

    @property
    def real(self) -> tuple[Field, ...]:
        """The inputs of floating-point numbers."""
        return tuple(field for field in self.fields if field.real)

    @property
    def free(self) -> bool:
        """Whether there are such, and none of them has bounds."""
        return bool(self.real) and all(field.bounds is None for field in self.real)

    def with_real(self, entries: NDArray[np.floating], *, seed: int | None = None) -> NDArray[Any]:
        """Rows of these floating-point numbers (n, d) within their bounds, the integers drawn.

        Args:
            entries: Of all inputs of such numbers, side by side.
            seed: Of the integers; without one all rows have the same.
        """
        parts = self.drawn(1 if seed is None else len(entries), np.random.default_rng(seed or 0))
        if seed is None:
            parts = {name: np.repeat(part, len(entries), 0) for name, part in parts.items()}
        start = 0
        for field in self.real:
            part = entries[:, start : start + field.width]
            parts[field.name] = part if field.bounds is None else part.clip(*field.bounds)
            start += field.width
        return self.rows(parts)

    def flat(self) -> Space:
        """The floating-point numbers of all inputs, side by side, as one input."""
        d = sum(field.width for field in self.real)
        return Space((d,), np.zeros(d), np.ones(d))


def mixed(space: Mixed, classes: int) -> Iterator[Probe]:
    """What is asked of several inputs, or of integers, save where the answer changes."""
    random = space.ordinary(RANDOM_ROWS, seed=0)
    yield Probe(RANDOM, random)
    yield from batches(random, FEW_SIZES, classes=classes)
    yield Probe("at the ends of the ranges", space.corners(), regular=True)
    yield from of_integers(space)
    yield from of_numbers(space, _some_numbers(space))


def borders(
    space: Mixed, decide: Callable[[NDArray[Any]], NDArray[np.int64]], name: str
) -> Iterator[Probe]:
    """Rows on either side of where the answer changes along floating-point numbers.

    Between two integers there is nothing to halve: all rows have the same.
    """
    if space.real:
        found = near_the_border(
            space.flat(),
            _some_numbers(space),
            lambda x: decide(space.with_real(x)),
            name=name,
            crossings=FEW,
            bisections=FEW_BISECTIONS,
        )
        yield from (probe._replace(x=space.with_real(probe.x)) for probe in found)


def _some_numbers(space: Mixed) -> NDArray[np.float64]:
    """Standard normal ones for all floating-point inputs, side by side."""
    return np.random.default_rng(0).standard_normal((RANDOM_ROWS // 4, space.flat().width))


def of_integers(space: Mixed, *, most: int = MOST_VALUES, seed: int = 11) -> Iterator[Probe]:
    """Every value of each integer input in some row, or evenly chosen ones where they are many."""
    rng = np.random.default_rng(seed)
    for field in space.fields:
        if field.real or not field.width:
            continue
        low, high = map(int, field.ends())
        count = high - low + 1
        seen = min(count, most * field.width)
        steps = (
            range(seen) if seen == count else [k * (count - 1) // (seen - 1) for k in range(seen)]
        )
        values = np.array([low + k for k in steps], field.dtype)
        values = np.resize(values, (-(-seen // field.width), field.width))
        part = max(1, CHUNK_ELEMENTS // max(1, sum(f.width for f in space.fields)))
        for first in range(0, len(values), part):
            here = values[first : first + part]
            parts = space.drawn(len(here), rng) | {field.name: here}
            yield Probe(f"every {field.name}", space.rows(parts), first)


def of_numbers(space: Mixed, random: NDArray[np.floating]) -> Iterator[Probe]:
    """What is asked about floating-point numbers: nothing, next to nothing, much, one alone.

    Args:
        space: Where the inputs lie.
        random: Standard normal numbers (n, d).
    """
    flat = space.flat()
    if not flat.width:
        return
    asked = [
        Probe("zeros", np.zeros_like(random[:2])),
        Probe("huge", HUGE * random),
        Probe("tiny", TINY * random),
        *one_hots(flat, np.zeros(flat.width), most=FEW_ONE_HOTS),
        *of_all_sizes(flat, np.zeros(flat.width), most=FEW, turns=2),
        *kinds(flat, rows=FEW),
    ]
    for number, probe in enumerate(asked):
        yield probe._replace(x=space.with_real(probe.x, seed=number))
