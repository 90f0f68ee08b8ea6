"""The tables of regimes, and where ours falls short, from records alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.regimes.cases import GAPS, REGIMES, Regime
from benchmarks.regimes.records import Record, latest, optimum
from benchmarks.regimes.solvers import COMPARED, OURS, PLAIN, REFERENCE, SOLVERS, TRAINER

WORK = 0.2  # seconds: below, an interpreter's overhead is compared, and nothing is asserted


class Cell(NamedTuple):
    """A problem to a gap: the seconds of each solver that reached it, of those that were tried."""

    regime: Regime
    size: str
    gap: float
    seconds: dict[str, float]
    tried: frozenset[str]

    @property
    def peer(self) -> str | None:
        """The fastest peer's name."""
        peers = {name: value for name, value in self.seconds.items() if name not in OURS}
        return min(peers, key=lambda name: peers[name], default=None)

    def ratio(self, ours: str) -> float:
        """The fastest peer's seconds over ours: 0 where only peers arrived, inf where only ours."""
        mine, peer = self.seconds.get(ours), self.peer
        if mine is None:
            return math.nan if peer is None else 0.0
        return math.inf if peer is None else self.seconds[peer] / mine

    def shortfall(self, ours: str) -> str | None:
        """A sentence where ours is slower than it ought to be, and there was work to do."""
        ratio, least = self.ratio(ours), self.regime.least
        if ours not in self.tried or self.peer is None or ratio >= least:
            return None
        mine, peer = self.seconds.get(ours), self.seconds[self.peer]
        if mine is not None and max(mine, peer) <= WORK:
            return None
        took = "did not get there" if mine is None else f"took {_seconds(mine)} s"
        return (
            f"{self.regime.name} to {_power(self.gap)}: {SOLVERS[ours].label} {took}, "
            f"{SOLVERS[self.peer].label} took {_seconds(peer)} s; at least {least:g} times as fast "
            "is due"
        )


def cells(records: Iterable[Record], threads: int) -> list[Cell]:
    """Every problem that was measured, to every gap, in the order of :data:`REGIMES`."""
    records = list(records)
    chosen = latest(records, threads)
    made = []
    for regime in REGIMES.values():
        mine = [r for r in chosen if (r.problem, r.dtype) == (regime.problem, regime.dtype)]
        fits = [record for record in mine if record.solver != REFERENCE]
        if not fits:
            continue
        best = optimum(records, regime.problem)
        size = f"{fits[0].rows} × {fits[0].features} × {fits[0].classes}"
        tried = frozenset(record.solver for record in fits)
        for gap in GAPS:
            made.append(Cell(regime, size, gap, _soonest(fits, best * (1 + gap)), tried))
    return made


def _soonest(fits: Sequence[Record], objective: float) -> dict[str, float]:
    """Seconds of each solver's fastest fit at or below an objective."""
    soonest: dict[str, float] = {}
    for fit in fits:
        if fit.seconds is None or fit.objective is None or fit.objective > objective:
            continue
        soonest[fit.solver] = min(fit.seconds, soonest.get(fit.solver, math.inf))
    return soonest


def regimes(measured: Sequence[Cell]) -> str:
    """Ours, the fastest peer, and how many times as fast ours is."""
    head = ["problem", "n × d × K", "gap", "ours, plain loop, s", "ours, in the Trainer, s"]
    head += ["fastest peer, s", "peer / plain loop", "peer / Trainer"]
    rows = []
    for cell in measured:
        ours = [_seconds(cell.seconds.get(name)) for name in OURS]
        peer = "–" if cell.peer is None else f"{_seconds(cell.seconds[cell.peer])}, {_label(cell)}"
        ratios = [_ratio(cell.ratio(name)) for name in (PLAIN, TRAINER)]
        rows.append([cell.regime.name, cell.size, _power(cell.gap), *ours, peer, *ratios])
    return _markdown(head, rows)


def everyone(measured: Sequence[Cell]) -> str:
    """Seconds of every solver."""
    names = [name for name in COMPARED if any(name in cell.seconds for cell in measured)]
    rows = [
        [cell.regime.name, _power(cell.gap), *(_seconds(cell.seconds.get(name)) for name in names)]
        for cell in measured
    ]
    return _markdown(["problem", "gap", *(SOLVERS[name].label for name in names)], rows)


def conditions(records: Iterable[Record], threads: int) -> str:
    """With what the figures of the tables were measured: machines, versions, days."""
    chosen = latest(records, threads)
    machines = sorted({record.machine for record in chosen})
    versions = sorted({record.version for record in chosen if record.solver != REFERENCE})
    dates = sorted({record.date for record in chosen})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{'; or '.join(machines)}; {', '.join(versions)}; threads: {threads}; {days}"


def shortfalls(measured: Iterable[Cell]) -> list[str]:
    """A sentence for every cell where ours is slower than it ought to be."""
    said = [cell.shortfall(name) for cell in measured for name in OURS]
    return [sentence for sentence in said if sentence is not None]


def _label(cell: Cell) -> str:
    return "" if cell.peer is None else SOLVERS[cell.peer].label


def _power(gap: float) -> str:
    return f"{gap:.0e}".replace("e-0", "e-")


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _ratio(value: float) -> str:
    """– where nobody arrived; of the two infinities the words."""
    if math.isnan(value):
        return "–"
    return "only ours" if math.isinf(value) else "only peers" if value == 0 else f"{value:.3g}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
