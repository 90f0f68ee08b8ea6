"""The table of regimes: what is measured, what a rerun keeps, and what the tables make of it."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.problems import Problem
from benchmarks.regimes.cases import GAPS, REGIMES
from benchmarks.regimes.measuring import TOLERANCES, fits, installed
from benchmarks.regimes.records import Record, Records, latest, optimum
from benchmarks.regimes.solvers import COMPARED, PLAIN, REFERENCE, SOLVERS, TRAINER
from benchmarks.regimes.tables import cells, conditions, everyone, regimes, shortfalls
from benchmarks.regimes.worker import (
    ENOUGH_SECONDS,
    LEAST_REPEATS,
    LONG_SECONDS,
    MOST_REPEATS,
    Outcome,
    Shape,
    Worker,
    timed,
)

FIT = Record(
    problem="made",
    dtype="float32",
    rows=5000,
    features=100,
    classes=5,
    solver=PLAIN,
    tol=1e-3,
    threads=1,
    cap=60.0,
    machine="a machine",
    version="ours 1",
    date="2026-11-26",
    seconds=1.0,
    repeats=1,
    objective=1.0,
    note="",
)


def fit(solver, tol, seconds, objective, **others):
    version = others.pop("version", f"{solver} 1")
    changed = {"solver": solver, "tol": tol, "seconds": seconds, "objective": objective}
    return replace(FIT, **changed, version=version, **others)


# f* = 2: ours at two tolerances, two peers, one of which is fast and coarse.
MEASURED = [
    fit(REFERENCE, 1e-12, 9.0, 2.0),
    fit(PLAIN, 1e-2, 0.5, 2.002),
    fit(PLAIN, 1e-4, 1.0, 2.000001),
    fit(TRAINER, 1e-4, 4.0, 2.000001),
    fit("lbfgs", 1e-2, 1.0, 2.001),
    fit("lbfgs", 1e-4, 3.0, 2.0001),
    fit("newton-cg", 1e-2, 2.0, 2.000001),
    fit("trust-ncg", 1e-2, None, None),
]


def test_the_seconds_to_a_gap_are_those_of_the_fastest_fit_within_it():
    by_gap = {cell.gap: cell for cell in cells(MEASURED, 1)}
    assert [*by_gap] == [*GAPS]
    assert by_gap[1e-3].seconds == {PLAIN: 0.5, TRAINER: 4.0, "lbfgs": 1.0, "newton-cg": 2.0}
    assert by_gap[1e-4].seconds == {PLAIN: 1.0, TRAINER: 4.0, "lbfgs": 3.0, "newton-cg": 2.0}
    assert by_gap[1e-6].seconds == {PLAIN: 1.0, TRAINER: 4.0, "newton-cg": 2.0}
    assert [cell.peer for cell in by_gap.values()] == ["lbfgs", "newton-cg", "newton-cg"]
    assert [cell.ratio(PLAIN) for cell in by_gap.values()] == [2, 2, 2]


def test_the_tables_are_made_of_the_records_alone():
    measured = cells(MEASURED, 1)
    lines = regimes(measured).splitlines()
    assert lines[0].startswith("| problem | n × d × K | gap | ours, plain loop, s |")
    assert lines[2:] == [
        "| made | 5000 × 100 × 5 | 1e-3 | 0.5 | 4 | 1, lbfgs | 2 | 0.25 |",
        "| made | 5000 × 100 × 5 | 1e-4 | 1 | 4 | 2, newton-cg | 2 | 0.5 |",
        "| made | 5000 × 100 × 5 | 1e-6 | 1 | 4 | 2, newton-cg | 2 | 0.5 |",
    ]
    assert everyone(measured).splitlines()[-1] == "| made | 1e-6 | 1 | 4 | – | 2 |"
    said = conditions(MEASURED, 1)
    assert said.startswith("a machine; lbfgs 1, newton-cg 1, plain 1, trainer 1, trust-ncg 1;")
    assert "threads: 1; 2026-11-26" in said


def test_what_falls_short_is_said_of_every_gap_and_of_nothing_else():
    said = shortfalls(cells(MEASURED, 1))
    assert [sentence.partition(":")[0] for sentence in said] == [
        "made to 1e-3",
        "made to 1e-4",
        "made to 1e-6",
    ]
    assert said[0] == (
        "made to 1e-3: ours, in the Trainer took 4 s, lbfgs took 1 s; "
        "at least 1 times as fast is due"
    )
    coarse = [replace(r, objective=3.0) if r.solver == TRAINER else r for r in MEASURED]
    assert (
        "ours, in the Trainer did not get there, newton-cg took 2 s"
        in (shortfalls(cells(coarse, 1))[-1])
    )
    without = [record for record in MEASURED if record.solver != TRAINER]
    assert shortfalls(cells(without, 1)) == []  # nothing is said of what was not tried


@pytest.mark.parametrize(
    ("problem", "ours", "peer", "short"),
    [
        ("made", 1.0, 1.0, False),
        ("made", 1.01, 1.0, True),
        ("made", 0.2, 0.01, False),  # no work
        ("made", 0.21, 0.01, True),  # ours made work of it
        ("made", 0.3, None, False),  # nobody else arrived
        ("made", None, 0.1, True),  # we never did
        ("made", None, None, False),
        ("wide", 1.0, 2.9, True),
        ("wide", 1.0, 3.0, False),
        ("fashion", 1.0, 9.9, True),
        ("embeddings", 1.0, 1.6, False),
    ],
)
def test_ours_owes_what_the_regime_says_where_there_is_work(problem, ours, peer, short):
    known = [fit(REFERENCE, 1e-12, 1.0, 1.0), fit("lbfgs", 1e-1, 1e-4, 5.0)]
    known += [fit(name, 1e-3, ours, 1.0 if ours else None) for name in (PLAIN, TRAINER)]
    known += [fit("lbfgs", 1e-3, peer, 1.0)] if peer else []
    said = shortfalls(cells([replace(r, problem=problem) for r in known], 1))
    assert len(said) == (6 if short else 0)


def test_a_gap_is_against_the_lowest_of_any_fit_in_either_precision():
    lower = fit("newton-cg", 1e-8, 5.0, 1.9, dtype="float64")
    assert optimum([*MEASURED, lower], "made") == 1.9
    in_float32 = [cell for cell in cells([*MEASURED, lower], 1) if cell.regime.name == "made"]
    assert [cell.seconds for cell in in_float32] == [{}, {}, {}]
    assert math.isnan(in_float32[0].ratio(PLAIN))
    assert optimum(MEASURED, "wide") == math.inf


def test_of_a_solver_only_the_last_setting_counts_and_of_a_tolerance_the_last_fit():
    again = [
        fit(PLAIN, 1e-2, 0.4, 2.0, version="ours 2"),
        fit(PLAIN, 1e-2, 0.3, 2.0, version="ours 2"),
        fit(PLAIN, 1e-2, 0.1, 2.0, version="ours 2", threads=2),
    ]
    mine = [r for r in latest([*MEASURED, *again], 1) if r.solver == PLAIN]
    assert mine == [again[1]]
    assert cells([*MEASURED, *again], 2)[0].seconds == {PLAIN: 0.1}


def test_a_file_of_records_is_read_again_without_the_line_that_was_cut_short(tmp_path):
    path = tmp_path / "new" / "fits.jsonl"
    records = Records(path)
    assert not path.parent.exists()  # reading alone writes nothing
    for record in MEASURED:
        records.add(record)
    assert Records(path).all == MEASURED
    path.write_text(path.read_text() + json.dumps(asdict(FIT))[:40])
    interrupted = Records(path)
    assert interrupted.all == MEASURED
    interrupted.add(FIT)
    assert Records(path).all == [*MEASURED, FIT]


def test_a_fit_is_found_again_in_the_same_setting_and_with_as_much_time(tmp_path):
    records = Records(tmp_path / "fits.jsonl")
    for record in MEASURED:
        records.add(record)
    assert records.find(fit(PLAIN, 1e-2, None, None, cap=100.0)) == MEASURED[1]
    assert records.find(fit(PLAIN, 1e-3, None, None)) is None
    assert records.find(fit(PLAIN, 1e-2, None, None, machine="another")) is None
    assert records.find(fit(PLAIN, 1e-2, None, None, version="ours 2")) is None
    assert records.find(fit(PLAIN, 1e-2, None, None, threads=2)) is None
    assert records.find(fit(PLAIN, 1e-2, None, None, dtype="float64")) is None
    assert records.find(fit("trust-ncg", 1e-2, None, None)) == MEASURED[-1]
    assert records.find(fit("trust-ncg", 1e-2, None, None, cap=61.0)) is None  # it may end now


LOOSEST, *_ = LOOSE = [tol for tol in TOLERANCES if tol > 1e-1]
STEPS = [tol for tol in TOLERANCES if tol >= 1e-5]  # there the gap is 1e-6
# Within 1e-3, 1e-4, 1e-6 from 1e-2, 1e-3, 1e-5 on; the powers of ten before them missed.
BETWEEN = [3.2e-2, 3.2e-3, 3.2e-5, 1.8e-2, 1.8e-3, 1.8e-5]


class Pretended:
    """Fits that take no time: each at a gap of a tenth of its tolerance, or as told."""

    def __init__(self, told=None, left_out=None):
        self.shape = Shape(150, 4, 3, left_out or {})
        self.told = told or {}
        self.asked = []

    def fit(self, solver, tol, limit):
        self.asked.append((solver, tol))
        seconds, objective = self.told.get((solver, tol), (0.1, 1 + tol / 10))
        return Outcome(seconds, 1, objective, "")


def measured(worker, records, solvers, cap=60.0):
    for record in fits(worker, REGIMES["iris"], solvers, records, cap=cap, threads=1):
        records.add(record)
    return worker.asked


def test_solvers_take_turns_until_each_is_within_the_least_gap(tmp_path):
    records = Records(tmp_path / "fits.jsonl")
    asked = measured(Pretended(), records, ["plain", "lbfgs"])
    assert asked[:3] == [(REFERENCE, 1e-12), ("plain", LOOSEST), ("lbfgs", LOOSEST)]
    steps = [tol for name, tol in asked if name == "plain"]
    assert steps == STEPS + BETWEEN
    assert [tol for name, tol in asked if name == "lbfgs"] == steps
    assert asked[-4:-2] == [("plain", 1.8e-3), ("lbfgs", 1.8e-3)]
    assert optimum(records.all, "iris") == pytest.approx(1)


@pytest.mark.parametrize("last", [(61.0, 1.5), (None, None)])
def test_a_fit_beyond_the_cap_or_a_failure_is_a_solvers_last(tmp_path, last):
    worker = Pretended({("lbfgs", 1e-2): last})
    asked = measured(worker, Records(tmp_path / "fits.jsonl"), ["plain", "lbfgs"])
    assert [tol for name, tol in asked if name == "lbfgs"] == [*LOOSE, 1e-1, 1e-2]
    assert [tol for name, tol in asked if name == "plain"] == STEPS + BETWEEN


def test_a_gap_s_tolerance_is_looked_for_where_it_is(tmp_path):
    """Within 1e-3 from 1.8e-2 on, within 1e-4 from 1e-2 on, and never within 1e-6."""
    gaps = {1e-1: 1e-2, 3.2e-2: 1e-2, 1.8e-2: 9e-4}
    told = {("plain", tol): (1.0, 1 + gap) for tol, gap in gaps.items()}
    told |= {("plain", tol): (1.0, 1 + 1e-5) for tol in TOLERANCES if tol < 1e-1}
    told[REFERENCE, 1e-12] = (1.0, 1.0)
    asked = measured(Pretended(told), Records(tmp_path / "fits.jsonl"), ["plain"])
    assert [tol for name, tol in asked if name == "plain"] == [*TOLERANCES, 3.2e-2, 1.8e-2]


def test_a_solver_within_all_gaps_at_once_is_asked_once(tmp_path):
    worker = Pretended({("plain", LOOSEST): (1.0, 1.0)})
    asked = measured(worker, Records(tmp_path / "fits.jsonl"), ["plain"])
    assert [tol for name, tol in asked if name == "plain"] == [LOOSEST]


@pytest.mark.parametrize("limit", [120.0, 10.0, 1.0, 0.1])
@pytest.mark.parametrize(
    ("seconds", "repeats"),
    [(1e-4, MOST_REPEATS), (0.125, 4), (0.5, 3), (2.9, 3), (3.1, 2), (4.4, 2), (4.6, 1), (20, 1)],
)
def test_longer_fits_are_made_three_times_and_very_long_ones_once(
    monkeypatch, seconds, repeats, limit
):
    clock = iter(seconds * (at // 2 + at % 2) for at in range(2 * MOST_REPEATS + 1))
    monkeypatch.setattr("benchmarks.regimes.worker.time.perf_counter", lambda: next(clock))
    monkeypatch.setitem(SOLVERS, "plain", SOLVERS["plain"]._replace(fit=lambda *_: None))
    taken, made, _ = timed(None, "plain", 1e-3, limit)
    assert taken == pytest.approx(seconds)
    assert made == repeats if limit >= 10 else made <= repeats
    assert made == 1 or seconds * made < limit  # else it counts as one that did not end
    assert made <= LEAST_REPEATS or seconds * (made - 1) < ENOUGH_SECONDS
    assert made == 1 or seconds * made < LONG_SECONDS


def test_a_rerun_asks_for_what_is_missing_and_for_nothing_else(tmp_path):
    path = tmp_path / "fits.jsonl"
    fits = len(STEPS) + len(BETWEEN)
    assert len(measured(Pretended(), Records(path), ["plain"])) == 1 + fits
    assert measured(Pretended(), Records(path), ["plain"]) == []
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]))  # interrupted after the reference and two fits
    missing = [*STEPS[2:], *BETWEEN]
    assert measured(Pretended(), Records(path), ["plain"]) == [("plain", t) for t in missing]
    assert {name for name, _ in measured(Pretended(), Records(path), ["plain", "lbfgs"])} == {
        "lbfgs"
    }


def test_without_a_reference_time_alone_ends_a_series(tmp_path):
    worker = Pretended({(REFERENCE, 1e-12): (None, None)})
    asked = measured(worker, Records(tmp_path / "fits.jsonl"), ["plain"])
    assert [tol for name, tol in asked if name == "plain"] == [*TOLERANCES]


def test_a_solver_is_left_out_of_a_problem_that_is_not_for_it(tmp_path):
    worker = Pretended(left_out={"newton-cholesky": "too large"})
    asked = measured(worker, Records(tmp_path / "fits.jsonl"), ["plain", "newton-cholesky"])
    assert {name for name, _ in asked} == {REFERENCE, "plain"}
    large = Problem("large", np.zeros((3, 5000), np.float32), np.arange(3))
    assert "15003 rows" in SOLVERS["newton-cholesky"].left_out(large)
    small = Problem("small", np.ones((1000, 4), np.float32), np.arange(1000) % 3)
    assert SOLVERS["newton-cholesky"].left_out(small) == ""
    # L = ½ ‖x‖² = 2 here; l2 = 1/1000 ≥ 2 / (100 · 1000), so that cyanure's auto takes it.
    assert SOLVERS["catalyst-miso"].left_out(small) == ""
    assert SOLVERS["catalyst-miso"].left_out(replace(small, C=100.0)) != ""


def test_what_is_not_installed_is_left_out_with_a_line(monkeypatch, capsys):
    missing = SOLVERS["lbfgs"]._replace(module="no_such_module", package="no-such-package")
    monkeypatch.setitem(SOLVERS, "lbfgs", missing)
    assert installed(["plain", "lbfgs", "newton-cg"]) == ["plain", "newton-cg"]
    assert "lbfgs: no-such-package is not installed, left out" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plain", "reference", "lbfgs", "newton-cg", "newton-cholesky"])
def test_a_solver_reaches_sklearns_optimum(name):
    data = REGIMES["digits-standardised-float64"].read()
    data = replace(data, x=data.x[:300, 20:30], y=data.y[:300] % 4)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(data.x, data.y)
    best = data.objective(expected.coef_, expected.intercept_)
    seconds, repeats, fitted = timed(data, name, 1e-6, 60.0)
    assert data.objective(fitted.weight, fitted.bias) == pytest.approx(best, rel=1e-6)
    assert fitted.weight.dtype == np.float64
    assert seconds > 0
    assert 1 <= repeats <= MOST_REPEATS


@pytest.mark.whole
def test_a_worker_fits_with_all_solvers_and_outlives_the_one_that_does_not_end():
    names = [name for name in COMPARED if SOLVERS[name].installed]
    regime = REGIMES["iris"]
    data = regime.read()
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(data.x, data.y)
    best = data.objective(expected.coef_, expected.intercept_)
    worker = Worker(regime, [REFERENCE, *names], 1)
    try:
        assert worker.shape[:3] == (150, 4, 3)
        assert worker.fit("plain", 1e-6, 0.0)[:3] == (None, 0, None)
        for name in (REFERENCE, *(name for name in names if not worker.shape.left_out[name])):
            outcome = worker.fit(name, 1e-6, 60.0)
            assert outcome.objective == pytest.approx(best, rel=1e-4), (name, outcome.note)
        assert worker.fit("none", 1e-6, 60.0).note == "failed: KeyError: 'none'"
    finally:
        worker.end()
