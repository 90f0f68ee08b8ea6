"""The rows of the table: which problems, in which precision, and what ours owes there."""

from __future__ import annotations

from typing import Literal, NamedTuple

from benchmarks.problems import Problem, problem

GAPS = (1e-3, 1e-4, 1e-6)
Dtype = Literal["float32", "float64"]


class Regime(NamedTuple):
    """A problem in a precision.

    Attributes:
        problem: One of :data:`benchmarks.problems.PROBLEMS`.
        dtype: Of the rows that every solver is given.
        least: How many times ours must be as fast as the fastest peer.
    """

    problem: str
    dtype: Dtype = "float32"
    least: float = 1.0

    @property
    def name(self) -> str:
        """How the command line and the table call it."""
        return self.problem if self.dtype == "float32" else f"{self.problem}-{self.dtype}"

    def read(self) -> Problem:
        """Its rows."""
        data = problem(self.problem)
        return data.in_float64() if self.dtype == "float64" else data


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("iris"),
        Regime("wine"),
        Regime("digits-standardised"),
        Regime("made"),
        Regime("table"),
        Regime("many-rows"),
        Regime("hundred-classes"),
        Regime("embeddings", least=1.5),
        Regime("embeddings-far", least=1.5),
        Regime("wide", least=3),
        Regime("wide-100", least=3),
        Regime("wide-400", least=3),
        Regime("fashion", least=10),
        Regime("fashion-standardised-l2-1e-3"),
        Regime("digits-standardised", "float64"),
        Regime("made", "float64"),
        Regime("hundred-classes", "float64"),
        Regime("wide", "float64", least=3),
    )
}
QUICK = ("iris", "wine", "digits-standardised")
