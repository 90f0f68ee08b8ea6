"""Which fit is next, and when a solver has done enough."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from benchmarks.machine import setting, today
from benchmarks.regimes.cases import GAPS, Regime
from benchmarks.regimes.records import Record, Records, optimum
from benchmarks.regimes.solvers import REFERENCE, SOLVERS
from benchmarks.regimes.worker import Outcome, Shape, Workers

# From so loose a one that no solver is within a gap: Intel's is within 1e-4 at .1.
TOLERANCES = tuple(float(f"1e{power}") for power in range(2, -9, -1))
# Then between the last that missed a gap and the first within it, until they are so many times
# apart: a power of ten is several passes, and whoever needs but one of them is timed passes late.
NEAR = 2.0
HALVINGS = 2
REFERENCE_TOL = 1e-12
REFERENCE_CAPS = 10  # as much time as so many fits


class Fits(Protocol):
    """What is asked for fits: the :class:`benchmarks.regimes.worker.Workers`."""

    shape: Shape

    def fit(self, solver: str, tol: float, limit: float) -> Outcome:
        """One solver at one tolerance."""


def measure(
    regime: Regime, solvers: list[str], records: Records, *, cap: float, threads: int
) -> None:
    """Every fit of a problem that the records lack, in processes of its own."""
    progress(f"{regime.name} …")
    worker = Workers(regime, [REFERENCE, *solvers], threads)
    try:
        for record in fits(worker, regime, solvers, records, cap=cap, threads=threads):
            records.add(record)
            seconds = "–" if record.seconds is None else f"{record.seconds:.4g} s"
            progress(
                f"{regime.name}: {record.solver} {record.tol:.0e}: {seconds}, "
                f"objective {record.objective}; {record.note}"
            )
    finally:
        worker.end()


def fits(
    worker: Fits, regime: Regime, solvers: list[str], records: Records, *, cap: float, threads: int
) -> Iterator[Record]:
    """Fits at ever tighter tolerances, solvers in turn, so that all see the machine's same hours.

    The reference is first. A solver is done with a fit within the least gap, one that took longer
    than the cap, or one that failed; then each gap's tolerance is looked for. What is yielded must
    be in the records before the next.
    """
    blank = _blank(regime, worker.shape, threads)
    if not _has_reference(records, regime):
        version = SOLVERS[REFERENCE].version
        time = cap * REFERENCE_CAPS
        wanted = replace(blank, solver=REFERENCE, tol=REFERENCE_TOL, cap=time, version=version)
        yield _filled(wanted, worker)
    # Without one nobody knows what is near enough, and time alone ends a series.
    known = _has_reference(records, regime)
    series = {
        name: replace(blank, solver=name, cap=cap, version=SOLVERS[name].version)
        for name in solvers
        if not worker.shape.left_out.get(name)
    }
    active = list(series)
    for tol in TOLERANCES:
        for name in list(active):
            wanted = replace(series[name], tol=tol)
            record = records.find(wanted)
            if record is None:
                record = _filled(wanted, worker)
                yield record
            best = optimum(records.all, regime.problem) if known else -math.inf
            if _is_last(record, best, cap):
                active.remove(name)
    for gap in GAPS * HALVINGS if known else ():
        for wanted in series.values():
            best = optimum(records.all, regime.problem)
            between = _between(records.like(wanted), best * (1 + gap))
            if between is not None:
                yield _filled(replace(wanted, tol=between), worker)


def installed(solvers: list[str]) -> list[str]:
    """Those that can run here; the others are named."""
    for name in solvers:
        if not SOLVERS[name].installed:
            print(f"{SOLVERS[name].label}: {SOLVERS[name].package} is not installed, left out")
    return [name for name in solvers if SOLVERS[name].installed]


def progress(line: str) -> None:
    """What is going on, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def _has_reference(records: Records, regime: Regime) -> bool:
    """Whether the problem's optimum is known; it is the same in either precision and setting."""
    return any(
        record.problem == regime.problem
        and record.solver == REFERENCE
        and record.objective is not None
        for record in records.all
    )


def _filled(wanted: Record, worker: Fits) -> Record:
    # Beyond the cap it is of no use but for seeing how far beyond.
    outcome = worker.fit(wanted.solver, wanted.tol, 2 * wanted.cap)
    return replace(wanted, **outcome._asdict())


def _is_last(record: Record, best: float, cap: float) -> bool:
    if record.seconds is None or record.objective is None or record.seconds > cap:
        return True
    return record.objective <= best * (1 + min(GAPS))


def _between(fits: list[Record], objective: float) -> float | None:
    """Between the tightest tolerance that missed and the loosest within; ``None`` where near."""
    within = [fit.tol for fit in fits if fit.objective is not None and fit.objective <= objective]
    missed = [fit.tol for fit in fits if within and fit.tol > max(within)]
    if not missed or min(missed) < NEAR * max(within):
        return None
    return float(f"{math.sqrt(min(missed) * max(within)):.1e}")


def _blank(regime: Regime, shape: Shape, threads: int) -> Record:
    rows, features, classes, _ = shape
    return Record(
        problem=regime.problem,
        dtype=regime.dtype,
        rows=rows,
        features=features,
        classes=classes,
        solver="",
        tol=0.0,
        threads=threads,
        cap=0.0,
        machine=setting("numpy", "torch", "lightning"),
        version="",
        date=today(),
        seconds=None,
        repeats=0,
        objective=None,
        note="",
    )
