"""What the traces say: a table and a plot, and the files that hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.solvers.runs import BY_ITSELF, Run
from benchmarks.solvers.traced import SOLVERS

KNOWN_OPTIMA = {"fashion": 0.34989275}
GAPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PLOT_FLOOR = 1e-8  # float32 objectives say nothing below


def optimum(name: str, runs: dict[str, Run]) -> float:
    """f*: the lowest objective that any solver reached, or the known one if it is lower."""
    return min([KNOWN_OPTIMA.get(name, math.inf), *(one.reached for one in runs.values())])


def table(name: str, runs: dict[str, Run]) -> str:
    """Seconds and passes until each relative gap, a row a solver."""
    best = optimum(name, runs)
    head = ["solver", *(f"{gap:.0e}".replace("e-0", "e-") for gap in GAPS), "final gap"]
    lines = [f"### {name}", "", f"f* = {best:.8f}", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for solver, one in runs.items():
        if not one.trace:
            cells = [*("–" for _ in GAPS), one.note.replace("|", "/")]
        else:
            first = [one.first_within(best * (1 + gap)) for gap in GAPS]
            cells = [f"{at.seconds:.3g} ({at.passes})" if at else "–" for at in first]
            gap = max(0.0, one.reached / best - 1)
            final = "0" if gap < PLOT_FLOOR else f"{gap:.1e}"
            # A dash then means that the solver gave up, not that it was too slow.
            gave_up = first[-1] is None and one.note == BY_ITSELF
            cells.append(f"{final}, {BY_ITSELF}" if gave_up else final)
        lines.append("| " + " | ".join([SOLVERS[solver].label, *cells]) + " |")
    return "\n".join(lines)


def plot(results: dict[str, dict[str, Run]], path: Path) -> None:
    """Gap against seconds, an axes a problem, a line a solver."""
    import matplotlib as mpl  # the children, which are timed, need none

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "smx", "font.size": 9})
    from matplotlib import pyplot as plt  # only after the backend is chosen

    columns = min(2, len(results))
    rows = math.ceil(len(results) / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(5.2 * columns, 3.4 * rows + 0.7),
        squeeze=False,
        layout="constrained",
    )
    legend: dict[str, Any] = {}
    for axes, (name, runs) in zip(grid.flat, results.items(), strict=False):
        best = optimum(name, runs)
        for solver, one in runs.items():
            if not one.trace:
                continue
            label, _, colour = SOLVERS[solver]
            ours = solver == "smx_lightning"
            gaps = np.array([moment.objective for moment in one.trace]) / best - 1
            (line,) = axes.plot(
                [moment.seconds for moment in one.trace],
                np.minimum.accumulate(np.maximum(gaps, PLOT_FLOOR)),
                drawstyle="steps-post",
                color=colour,
                linewidth=2.2 if ours else 1.3,
                zorder=3 if ours else 2,
            )
            legend.setdefault(label, line)
        axes.set(xscale="log", yscale="log", title=name)
        axes.set(xlabel="seconds", ylabel="relative gap to f*")
        axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    figure.legend(
        list(legend.values()), list(legend), loc="outside lower center", ncols=4, frameon=False
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def save(results: dict[str, dict[str, Run]], header: str, out: Path) -> list[Path]:
    """Write traces, tables and the plot of all problems so far."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"solvers.{suffix}" for suffix in ("json", "md", "svg")]
    raw = {
        "measured": header,
        "problems": {
            name: {
                "optimum": optimum(name, runs),
                "solvers": {solver: one._asdict() for solver, one in runs.items()},
            }
            for name, runs in results.items()
        },
    }
    paths[0].write_text(json.dumps(raw) + "\n")
    tables = [table(name, runs) for name, runs in results.items()]
    paths[1].write_text("\n\n".join([header, *tables]) + "\n")
    plot(results, paths[2])
    return paths
