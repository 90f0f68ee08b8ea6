"""What the parity check has found so far, and what it amounts to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.check import Check
from smx_export.artifact.comparison import Expected
from smx_export.parity.probes import RANDOM
from smx_export.parity.reference import LARGEST_ROUNDING, SAFETY, Reference
from smx_export.parity.report import Flip
from smx_export.parity.user_data import YOUR_DATA

ORDINARY = (RANDOM, YOUR_DATA)
MOST_LOST = 1 / 64  # of the ordinary rows: those where a function jumps, such as round()
KEEP_DIGITS = (
    "smaller weights and biases, lower frequencies or inputs standardised first keep more digits"
)


@dataclass
class Worst:
    """The largest error over tolerance that a comparison has met, and where."""

    ratio: float = 0.0
    where: str = "no rows"

    def meet(self, ratio: float, where: str) -> None:
        """Keep what is worse."""
        if math.isnan(ratio) or ratio > self.ratio:  # NaN counts as worst, and stays
            self.ratio, self.where = ratio, where


@dataclass
class Lost:
    """Rows of one kind on which float32 keeps less than half of its digits.

    Attributes:
        rows: How many were compared.
        lost: How many of them do not count, since their tolerance would tell nothing.
        coarse: On how many the live model is that far off, as its bound allows.
        error: Its largest error on these, in nats.
        unexplained: The same of rows that do not count, and whose error no rounding explains.
    """

    rows: int = 0
    lost: int = 0
    coarse: int = 0
    error: float = 0.0
    unexplained: float = 0.0

    @classmethod
    def of(
        cls,
        reference: Reference,
        x: NDArray[np.float32],
        live: NDArray[np.floating],
        expected: Expected,
    ) -> Lost:
        """Of one batch: inputs (n, …), the live model's answers (n, K), and what is expected."""
        numbers = expected.answered
        truth = np.where(numbers[:, None], expected.in_units(expected.log_probs), 0)
        errors = np.where(numbers, np.abs(expected.in_units(live) - truth).max(1), 0)
        coarse = errors > SAFETY * LARGEST_ROUNDING * (1 + np.abs(truth).max(1))
        coarse &= errors <= expected.live_tolerance.max(1)  # beyond it they are no rounding
        lost = numbers & ~expected.comparable
        error = float(errors[coarse | lost].max(initial=0))
        found = cls(len(x), int(lost.sum()), int(coarse.sum()), error)
        if lost.any():
            beyond = errors[lost][~(errors[lost] <= SAFETY * reference.moved(x[lost]))]
            found.unexplained = float(beyond.max(initial=0))
        return found

    @property
    def poor(self) -> int:
        """On how many rows float32 keeps less than half of its digits."""
        return max(self.lost, self.coarse)

    def meet(self, other: Lost) -> None:
        """Add another batch's."""
        self.rows += other.rows
        self.lost += other.lost
        self.coarse += other.coarse
        self.error = max(self.error, other.error)
        self.unexplained = max(self.unexplained, other.unexplained)

    def fault(self, where: str) -> str:
        """What is wrong with that, in words; empty where nothing is."""
        if self.unexplained:
            return (
                f"{self.unexplained:.2g} nats between float32 and float64 in {where!r}, which "
                "rounding does not explain; features and forward must compute the same in both, "
                "without random numbers"
            )
        if where in ORDINARY and self.poor > MOST_LOST * self.rows:
            return (
                f"float32 loses more than half of its digits in {self.poor} of {self.rows} rows "
                f"of {where!r}, up to {self.error:.2g} nats; {KEEP_DIGITS}"
            )
        return ""


@dataclass
class Found:
    """The worst of each comparison, and everything that differs."""

    worst: dict[str, Worst]
    rows: int = 0
    max_error: float = 0.0
    lost: dict[str, Lost] = field(default_factory=dict)
    flips: list[Flip] = field(default_factory=list)
    shape_faults: list[str] = field(default_factory=list)
    value_faults: list[str] = field(default_factory=list)

    @property
    def unjudged(self) -> int:
        """Rows on which float32 tells nothing."""
        return sum(met.lost for met in self.lost.values())

    def checks(self) -> Iterator[Check]:
        """What has been found, check by check."""
        yield _none("shapes for every batch", self.shape_faults, "(n, classes) float32")
        yield _none("NaN and infinity", self.value_faults, "the same positions")
        faults = [met.fault(where) for where, met in self.lost.items()]
        kept = f"float32 keeps half of its digits in all but {self.unjudged} of {self.rows} rows"
        yield _none("digits of float32", [*filter(None, faults)], kept)
        for name, met in self.worst.items():
            yield Check(
                name,
                met.ratio <= 1,
                f"largest error {met.ratio:.2g} of the tolerance, in {met.where!r}",
            )
        bad = [flip for flip in self.flips if not flip.margin <= flip.tolerance]
        ties = len(self.flips) - len(bad)
        yield Check(
            "argmax",
            not bad,
            f"{len(bad)} flips beyond rounding, {ties} ties within it, in "
            f"{self.rows - self.unjudged} rows",
        )


def _none(name: str, faults: list[str], otherwise: str) -> Check:
    return Check(name, not faults, faults[0] if faults else otherwise)
