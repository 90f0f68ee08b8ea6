"""``python -m benchmarks.solvers``: run, print, write."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import solvers as package
from benchmarks.machine import describe
from benchmarks.problems import PROBLEMS
from benchmarks.solvers.report import save, table
from benchmarks.solvers.runs import Run, child, measure
from benchmarks.solvers.traced import SOLVERS

# The other kinds of problems are in the table of regimes.
TRACED = ["fashion", "fashion-c0.01", "fashion-standardised", "fashion-unscaled"]


def main() -> None:
    """Measure, print, write."""
    options = _options()
    if options.child is not None:
        child(options.problems[0], options.solvers[0], options.cap, options.child)
        return
    header = (
        describe("torch", "lightning", "numpy", "scikit-learn")
        + f"; {options.threads} threads, cap {options.cap:g} s; cells: seconds (passes) until the "
        "objective is within this relative gap of f*"
    )
    print(header, flush=True)
    results: dict[str, dict[str, Run]] = {}
    paths: list[Path] = []
    for name in options.problems:
        results[name] = measure(name, options.solvers, options.cap, options.threads)
        print(f"\n{table(name, results[name])}", flush=True)
        paths = save(results, header, options.out)  # each time: the next one may be interrupted
    print("\n" + "\n".join(map(str, paths)))


def _options() -> argparse.Namespace:
    def names(known: dict[str, Any], text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {name}")
        return chosen

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.solvers", description=package.__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--problems", type=partial(names, PROBLEMS), default=TRACED)
    parser.add_argument("--solvers", type=partial(names, SOLVERS), default=list(SOLVERS))
    parser.add_argument("--cap", type=float, default=120.0, help="seconds a fit may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # a trace's file
    return parser.parse_args()


if __name__ == "__main__":
    main()
