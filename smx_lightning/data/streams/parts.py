"""Which rows of a stream are for training, validation and test.

No row is looked at for it: whether the i-th row of all is held out is a pure function of (seed, i),
so that any process can tell from any place in the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Name = Literal["train", "val", "test"]
CHUNK = 2**20  # rows that are counted at a time: 8 MB


@dataclass(frozen=True)
class Part:
    """A share of all rows.

    Attributes:
        name: Which share.
        val_fraction: Of the rows that are not for the test.
        test_fraction: Of all rows.
        seed: Of the split.
    """

    name: Name = "train"
    val_fraction: float = 0.0
    test_fraction: float = 0.0
    seed: int = 0

    @property
    def is_all(self) -> bool:
        """Whether every row belongs to it."""
        return self.name == "train" and not (self.val_fraction or self.test_fraction)

    def holds(self, first: int, rows: int) -> NDArray[np.bool_]:
        """Which of so many rows belong to it, (rows,); ``first`` is the number of the first one."""
        if self.is_all:
            return np.ones(rows, bool)
        place = uniform(np.arange(first, first + rows), self.seed)
        test = self.test_fraction
        val = test + (1 - test) * self.val_fraction
        if self.name == "test":
            return place < test
        return (place >= test) & (place < val) if self.name == "val" else place >= val

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of it in each row group, (groups,), of groups of so many rows, (groups,)."""
        if self.is_all:
            return rows
        ends = np.cumsum(rows)
        before = np.zeros(len(rows) + 1, np.int64)  # rows of it before each group
        total = int(rows.sum())
        passed = 0
        for first in range(0, total, CHUNK):
            held = np.cumsum(self.holds(first, min(CHUNK, total - first)))
            inside = (ends > first) & (ends <= first + CHUNK)
            before[1:][inside] = passed + held[ends[inside] - first - 1]
            passed += int(held[-1])
        before[1:] = np.maximum.accumulate(before[1:])  # of groups without rows at the beginning
        return np.diff(before)


def uniform(numbers: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) that are a pure function of (seed, number), one each.

    The output function of SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number
    generators", 2014) at the number and, before that, at the seed.
    """
    key = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    drawn = mixed(mixed(numbers.astype(np.uint64)) ^ key)
    places: NDArray[np.float64] = (drawn >> np.uint64(11)) * 2.0**-53
    return places


def mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What SplitMix64 answers in these states."""
    with np.errstate(over="ignore"):  # modulo 2⁶⁴ is meant
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        answers: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return answers
