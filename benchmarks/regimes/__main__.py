"""``python -m benchmarks.regimes``: measure what the file lacks, and print its tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from benchmarks import regimes as package
from benchmarks.problems import FASHION_MNIST
from benchmarks.regimes.cases import QUICK, REGIMES
from benchmarks.regimes.measuring import installed, measure
from benchmarks.regimes.records import Records
from benchmarks.regimes.solvers import COMPARED
from benchmarks.regimes.tables import cells, conditions, everyone, regimes, shortfalls

RESULTS = Path("benchmarks/results/regimes.jsonl")


def main() -> int:
    """Measure and print; 1 where ours falls short."""
    options = _options()
    records = Records(options.json)
    if not options.table:
        names = [name for name in options.problems if _is_at_hand(name)]
        solvers = installed(options.solvers)
        for name in names:
            measure(REGIMES[name], solvers, records, cap=options.cap, threads=options.threads)
    measured = cells(records.all, options.threads)
    if not measured:
        print(f"{options.json} holds no fit with {options.threads} threads")
        return 0 if options.table else 1
    print(f"\n{conditions(records.all, options.threads)}\n")
    print(f"{regimes(measured)}\n\n{everyone(measured)}")
    short = shortfalls(cell for cell in measured if cell.regime.name in options.problems)
    for sentence in short:
        print(f"slower than due: {sentence}", file=sys.stderr)
    return 1 if short else 0


def _is_at_hand(name: str) -> bool:
    missing = name.startswith("fashion") and not FASHION_MNIST.is_dir()
    if missing:
        print(f"{name}: not measured: install Debian's dataset-fashion-mnist")
    return not missing


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regimes", description=package.__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--problems", type=partial(_names, REGIMES), default=list(REGIMES))
    parser.add_argument("--solvers", type=partial(_names, COMPARED), default=list(COMPARED))
    parser.add_argument("--threads", type=int, default=1, help="that a fit may use")
    parser.add_argument("--cap", type=float, default=60.0, help="seconds of a solver's last fit")
    parser.add_argument("--json", type=Path, default=RESULTS, help="what is there is not redone")
    parser.add_argument("--table", action="store_true", help="print the file's tables, no more")
    parser.add_argument(
        "--quick", action="store_true", help=f"only {', '.join(QUICK)}, with a cap of 2 s"
    )
    options = parser.parse_args()
    if options.quick:
        options.problems, options.cap = list(QUICK), 2.0
    return options


def _names(known: Iterable[str], text: str) -> list[str]:
    """Some of the known names, in the order asked for."""
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {name}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
