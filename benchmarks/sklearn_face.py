"""scikit-learn's face against scikit-learn: small fits, and fits that go on from another.

``python -m benchmarks.sklearn_face``. Both solvers fit the same float64 rows in one process and
take turns; time is the processor's, the import is not counted. Each runs at every tolerance, and
what counts is the fastest fit that comes within a relative gap of the optimum.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy start their threads

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import describe
from smx_lightning.sklearn import SoftmaxClassifier

TOLERANCES = [10.0**-k for k in range(1, 11)]
GAPS = (1e-4, 1e-8)
REPEATS = 15
CLOSE = 1e-8  # of a fit that goes on: within this relative gap of the cold optimum

Floats = NDArray[np.float64]


class Problem(NamedTuple):
    """Rows, labels 0 to K - 1, and the penalty of the mean loss."""

    name: str
    x: Floats
    y: NDArray[np.int64]
    l2: float


def small() -> Iterator[Problem]:
    """C = 1."""
    x, y = load_iris(return_X_y=True)
    yield Problem("iris, 150 × 4", x, y, 1 / len(y))
    x, y = load_digits(return_X_y=True)
    yield Problem("digits / 16, 1797 × 64", x / 16, y, 1 / len(y))
    yield Problem("digits, standardised", StandardScaler().fit_transform(x), y, 1 / len(y))


def larger() -> Iterator[Problem]:
    """What a head is taught another class of."""
    x, y = load_digits(return_X_y=True)
    yield Problem("digits / 16, 1797 × 64, 10 classes", x / 16, y, 1e-3)
    yield Problem("digits, standardised", StandardScaler().fit_transform(x), y, 1e-3)
    rng = np.random.default_rng(0)
    scale = np.exp(-np.arange(256) / 60)
    centres, y = 1.2 * rng.standard_normal((40, 256)) * scale, rng.integers(0, 40, 4000)
    x = centres[y] + rng.standard_normal((4000, 256)) * scale
    yield Problem("embeddings, made, 4000 × 256, 40 classes", x, y, 2e-3)
    x = rng.standard_normal((16000, 16))
    scores = x @ rng.standard_normal((16, 26))
    y = (scores / scores.std() + rng.standard_normal(scores.shape)).argmax(1)
    yield Problem("a table, made, 16000 × 16, 26 classes", x, y, 1e-4)


def objective(model: Any, problem: Problem) -> float:
    """Of its coefficients."""
    scores = problem.x @ model.coef_.T + model.intercept_
    scores -= scores.max(1, keepdims=True)
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(problem.y)), problem.y]
    return float(losses.mean() + 0.5 * problem.l2 * (model.coef_**2).sum())


def ours(problem: Problem, tol: float) -> Any:
    """Fitted."""
    return SoftmaxClassifier(l2=problem.l2, tol=tol).fit(problem.x, problem.y)


def theirs(problem: Problem, tol: float) -> Any:
    """Fitted."""
    inverse = 1 / (problem.l2 * len(problem.y))
    made = LogisticRegression(C=inverse, tol=tol, solver="newton-cg", max_iter=10000)
    return made.fit(problem.x, problem.y)


def compare(problem: Problem) -> None:
    """A row of the table of small fits."""
    solvers: dict[str, Callable[[Problem, float], Any]] = {"ours": ours, "theirs": theirs}
    runs: dict[tuple[str, float], list[float]] = {}
    reached: dict[tuple[str, float], float] = {}
    for _ in range(REPEATS):
        for tol in TOLERANCES:
            for name, fit in solvers.items():
                start = time.process_time()
                model = fit(problem, tol)
                runs.setdefault((name, tol), []).append(time.process_time() - start)
                reached[name, tol] = objective(model, problem)
    best = min(reached.values())
    cells = []
    for gap in GAPS:
        least = {
            name: min(
                (median(runs[name, tol]) for tol in TOLERANCES
                 if reached[name, tol] <= best * (1 + gap)),
                default=float("nan"),
            )
            for name in solvers
        }  # fmt: skip
        cells += [f"{1e3 * least['ours']:.1f}", f"{1e3 * least['theirs']:.1f}"]
    print(f"| {problem.name} | {' | '.join(cells)} |", flush=True)


def go_on(problem: Problem) -> None:
    """A row of the table of fits that go on: a class more, and a class less."""
    last = int(problem.y.max())
    fewer = problem.y < last
    less = Problem(problem.name, problem.x[fewer], problem.y[fewer], problem.l2)
    cells = []
    for before, after in ((less, problem), (problem, less)):
        cold = SoftmaxClassifier(l2=after.l2, tol=1e-10).fit(after.x, after.y).objective_
        passes = {"anew": 0, "on": 0}
        seconds = {"anew": 0.0, "on": 0.0}
        for kind in passes:
            for most in range(1, 100):
                model = SoftmaxClassifier(l2=after.l2, tol=1e-10, warm_start=True, max_iter=most)
                if kind == "on":
                    first = model.set_params(max_iter=1000).fit(before.x, before.y)
                    model = first.set_params(max_iter=most)
                start = time.process_time()
                model.fit(after.x, after.y)
                seconds[kind] = time.process_time() - start
                if model.objective_ <= cold * (1 + CLOSE):
                    passes[kind] = most
                    break
        cells += [f"{passes[k]} ({1e3 * seconds[k]:.0f})" for k in ("anew", "on")]
    print(f"| {problem.name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # where tol is beyond float64
    threads = os.environ["OMP_NUM_THREADS"]
    print(describe("torch", "numpy", "scikit-learn") + f"; {threads} thread(s)\n")
    print("Milliseconds of a processor in `fit`, medians, until within a relative gap.\n")
    print("| data, C = 1 | ours, 1e-4 | newton-cg, 1e-4 | ours, 1e-8 | newton-cg, 1e-8 |")
    print("| --- | --- | --- | --- | --- |")
    for problem in small():
        compare(problem)
    print(f"\nPasses (milliseconds of a processor) until within {CLOSE:g} of the optimum.\n")
    print("| data | a class more, cold | on | a class less, cold | on |")
    print("| --- | --- | --- | --- | --- |")
    for problem in larger():
        go_on(problem)


if __name__ == "__main__":
    main()
