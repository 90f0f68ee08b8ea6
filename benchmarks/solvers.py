"""Time to objective: how long each solver takes to come how near the optimum.

``python -m benchmarks.solvers`` runs every solver on every problem, each in a process of its own
and never two at once, and writes the traces, a table and a plot. A clock starts right before
``fit`` is called on data already in memory, and every solver starts at zero, as scikit-learn does.

A *pass* goes over all rows once. Of scikit-learn's hooked solvers it is one call that evaluates the
loss, a gradient, a Hessian or a product with it; they are not equally dear, so seconds decide.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._linear_loss import LinearModelLoss
from torch.nn import functional as F  # noqa: N812 (its customary name)
from torch.utils.data import DataLoader

from benchmarks.machine import describe
from benchmarks.problems import PROBLEMS, Problem, problem
from smx_lightning import SoftmaxRegression

KNOWN_OPTIMA = {"fashion": 0.34989275}
GAPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PLOT_FLOOR = 1e-8  # float32 objectives say nothing below
BATCH_SIZE = 8192
BY_ITSELF = "ended by itself"
MAX_HESSIAN_BYTES = 4 * 2**30
HOOKED = ("loss", "loss_gradient", "gradient_hessian", "gradient_hessian_product")

Point = tuple[NDArray[np.floating], NDArray[np.floating]]  # W (classes, features), b (classes,)


class CapReached(Exception):  # noqa: N818 (nothing went wrong)
    """Leaves a solver that would go on after its time is over."""


class Skipped(Exception):  # noqa: N818 (likewise)
    """Says why a solver does not run on a problem."""


class Moment(NamedTuple):
    """What a solver had reached by when."""

    seconds: float
    passes: int
    objective: float


class Recorder:
    """Writes a solver's progress to a file as it is made, so that a killed solver leaves it.

    Only improvements are written: nothing else can change a table or a plot.

    Args:
        path: The file, one JSON value a line.
        cap: Seconds of a fit after which :meth:`count` and :meth:`record` raise.
    """

    def __init__(self, path: Path, cap: float) -> None:
        self.cap = cap
        self.passes = 0
        self.best = math.inf
        self.point: Point | None = None
        self._file = path.open("w")
        self._began = 0.0
        self._watchdog: threading.Timer | None = None

    def start(self) -> None:
        """Start the clock of a fit.

        One call into a solver's compiled code may outlast the cap, out of any exception's reach;
        a second thread then ends the process.
        """
        self._watchdog = threading.Timer(self.cap + 1, os._exit, (0,))
        self._watchdog.daemon = True
        self._watchdog.start()
        self._began = time.perf_counter()

    def stop(self) -> float:
        """Stop the clock; its seconds."""
        seconds = self.seconds
        if self._watchdog is not None:
            self._watchdog.cancel()
        return seconds

    @property
    def seconds(self) -> float:
        """Since :meth:`start`."""
        return time.perf_counter() - self._began

    def count(self) -> None:
        """One more pass over the data, which evaluated no objective."""
        self.passes += 1
        if self.seconds > self.cap:
            raise CapReached

    def record(self, moment: Moment, point: Callable[[], Point] | None = None) -> None:
        """Write a moment if it is the best so far, and keep its point."""
        if moment.objective < self.best and moment.seconds <= self.cap:
            self.best = moment.objective
            self._write(list(moment))
            if point is not None:
                self.point = point()

    def evaluated(self, objective: float, point: Callable[[], Point]) -> None:
        """One more pass, which evaluated this objective at this point."""
        self.passes += 1
        self.record(Moment(self.seconds, self.passes, objective), point)
        if self.seconds > self.cap:
            raise CapReached

    def end(self, result: dict[str, Any]) -> None:
        """What is known only at the end: ``checked``, ``skipped``, ``note``."""
        self._write(result)

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()


# The solvers: each minimises a problem until it converges or the recorder stops it --------------


def smx_lightning(data: Problem, recorder: Recorder) -> None:
    """Our exact solver under Lightning's Trainer, batches as a user would feed it."""
    from smx_lightning.optim import ExactSolver

    model = SoftmaxRegression(
        num_features=data.x.shape[1],
        num_classes=data.num_classes,
        l2=data.l2,
        optimizer=partial(ExactSolver, tol=1e-7),
    )
    torch.nn.init.zeros_(model.linear.weight)
    torch.nn.init.zeros_(model.linear.bias)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    batches = list(zip(torch.split(x, BATCH_SIZE), torch.split(y, BATCH_SIZE), strict=True))
    trainer = Trainer(
        max_epochs=500,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RecordEpochs(recorder)],
    )
    loader: DataLoader[Any] = DataLoader(cast("Any", batches), batch_size=None)
    recorder.start()
    trainer.fit(model, loader)
    # Not after the cap: the weights are then those of a step that no epoch has evaluated.
    recorder.point = _point(model.linear.weight, model.linear.bias)


class RecordEpochs(Callback):
    """Records ``train/objective``, one pass an epoch.

    A callback's ``on_train_epoch_end`` runs before the module's, which logs the metric; so an epoch
    is recorded when the next one starts, or when training ends.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch before is over."""
        self._record(trainer)
        if self.recorder.seconds > self.recorder.cap:
            raise CapReached

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last epoch is over."""
        self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        passes = trainer.current_epoch
        if passes > 0:
            objective = float(trainer.callback_metrics["train/objective"])
            self.recorder.record(Moment(self.recorder.seconds, passes, objective))


def hooked_sklearn(data: Problem, recorder: Recorder, solver: str) -> None:
    """A solver of scikit-learn, its private loss wrapped: it offers no callback."""
    if solver == "newton-cholesky":
        size = 8 * ((data.x.shape[1] + 1) * data.num_classes) ** 2
        if size > MAX_HESSIAN_BYTES:
            raise Skipped(f"its Hessian would take {size / 2**30:.1f} GiB")
    for name in HOOKED:
        setattr(LinearModelLoss, name, _counted(name, getattr(LinearModelLoss, name), recorder))
    model = LogisticRegression(solver=solver, C=data.C, tol=1e-9, max_iter=10**6)
    recorder.start()
    model.fit(data.x, data.y)


def _counted(name: str, method: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """The method of LinearModelLoss, counting passes and recording objectives."""

    def counted(self: Any, coef: NDArray[np.floating], *args: Any, **kwargs: Any) -> Any:
        answer = method(self, coef, *args, **kwargs)
        if name in ("loss", "loss_gradient"):
            objective = float(answer[0] if name == "loss_gradient" else answer)
            recorder.evaluated(objective, lambda: self.weight_intercept(coef.copy()))
            return answer
        recorder.count()
        if name == "gradient_hessian_product":
            gradient, product = answer

            def counted_product(vector: NDArray[np.floating]) -> Any:
                image = product(vector)
                recorder.count()
                return image

            return gradient, counted_product
        return answer

    return counted


def restarted(data: Problem, recorder: Recorder, model: Callable[..., Any]) -> None:
    """A solver without a hook: fits of 1, 2, 4, … iterations, each from the start.

    A fit starts while all before it took less than the cap together, so the last may take the whole
    cap for itself, as the other solvers may. The objective is evaluated out of the clock.
    """
    spent, iterations = 0.0, 1
    while spent < recorder.cap:
        fitted = model(C=data.C, tol=1e-12, max_iter=iterations)
        recorder.start()
        fitted.fit(data.x, data.y)
        seconds = recorder.stop()
        spent += seconds
        point = (fitted.coef_, fitted.intercept_)
        passes = int(np.max(fitted.n_iter_))
        moment = Moment(seconds, passes, data.objective(*point))
        recorder.record(moment, partial(_same, point))
        if passes < iterations:  # converged
            return
        iterations *= 2
    raise CapReached


def saga(data: Problem, recorder: Recorder) -> None:
    """scikit-learn's stochastic solver; an iteration is an epoch."""
    restarted(data, recorder, partial(LogisticRegression, solver="saga", random_state=0))


def intelex_lbfgs(data: Problem, recorder: Recorder) -> None:
    """Intel's replacement of scikit-learn's lbfgs; a pass is an iteration, line search or not."""
    if importlib.util.find_spec("sklearnex") is None:
        raise Skipped("scikit-learn-intelex is not installed")
    # It says only in its log where it hands a problem back to scikit-learn.
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sklearnex")
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    replacement = importlib.import_module("sklearnex.linear_model").LogisticRegression
    try:
        restarted(data, recorder, partial(replacement, solver="lbfgs"))
    finally:
        if any("fallback" in message and ".fit" in message for message in heard):
            recorder.end({"note": "fell back to scikit-learn's own"})


def torch_lbfgs(data: Problem, recorder: Recorder) -> None:
    """L-BFGS as torch has it, on the whole data set as one batch, in float32."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    weight = torch.zeros(data.num_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(data.num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        history_size=10,
        line_search_fn="strong_wolfe",
        max_iter=10**9,
        max_eval=10**9,
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )

    def closure() -> float:
        optimizer.zero_grad()
        nll = F.nll_loss(F.log_softmax(F.linear(x, weight, bias), dim=1), y)
        objective = nll + 0.5 * data.l2 * weight.square().sum()
        torch.autograd.backward(objective)
        value = float(objective.detach())
        recorder.evaluated(value, partial(_point, weight, bias))
        return value

    recorder.start()
    cast("Any", optimizer).step(closure)  # untyped in torch


def _point(weight: torch.Tensor, bias: torch.Tensor) -> Point:
    return weight.detach().clone().numpy(), bias.detach().clone().numpy()


def _same(point: Point) -> Point:
    return point


class Solver(NamedTuple):
    """A row of the table: how it is called there, what it runs, its colour in the plot."""

    label: str
    minimise: Callable[[Problem, Recorder], None]
    colour: str


SOLVERS = {
    "smx_lightning": Solver("smx_lightning", smx_lightning, "#d62728"),
    **{
        name: Solver(f"scikit-learn {name}", partial(hooked_sklearn, solver=name), colour)
        for name, colour in (
            ("lbfgs", "#1f77b4"),
            ("newton-cg", "#2ca02c"),
            ("newton-cholesky", "#9467bd"),
        )
    },
    "saga": Solver("scikit-learn saga", saga, "#ff7f0e"),
    "intelex lbfgs": Solver("scikit-learn-intelex lbfgs", intelex_lbfgs, "#17becf"),
    "torch.optim.LBFGS": Solver("torch.optim.LBFGS", torch_lbfgs, "#7f7f7f"),
}


def child(name: str, solver: str, cap: float, path: Path) -> None:
    """One solver on one problem; the trace goes to the path."""
    data = problem(name)
    recorder = Recorder(path, cap)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the short fits do not converge
            SOLVERS[solver].minimise(data, recorder)
        recorder.stop()
        recorder.end({"note": BY_ITSELF})
    except CapReached:
        recorder.stop()
        recorder.end({"note": "stopped at the cap"})
    except Skipped as reason:
        recorder.end({"skipped": str(reason)})
        return
    if recorder.point is not None:
        recorder.end({"checked": data.objective(*recorder.point)})


# The parent: runs the children, reads their traces, writes -------------------------------------


class Run(NamedTuple):
    """A solver's trace on a problem.

    Attributes:
        trace: Improvements, in the order of time.
        checked: The objective at the last point, in float64; ``None`` where the process was ended.
        note: How it ended, or why there is no trace.
    """

    trace: list[Moment]
    checked: float | None
    note: str

    @property
    def reached(self) -> float:
        """The lowest objective; float64 where there is one, which float32 noise cannot flatter."""
        if self.checked is not None:
            return self.checked
        return min((moment.objective for moment in self.trace), default=math.inf)

    def first_within(self, objective: float) -> Moment | None:
        """The first moment at or below an objective."""
        return next((moment for moment in self.trace if moment.objective <= objective), None)


def run(name: str, solver: str, cap: float, threads: int) -> Run:
    """One solver on one problem, in a process of its own."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        command = [sys.executable, "-m", "benchmarks.solvers", "--child", str(path)]
        command += ["--problems", name, "--solvers", solver, "--cap", str(cap)]
        failure = ""
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **dict.fromkeys(variables, str(threads))},
                capture_output=True,
                text=True,
                timeout=3 * cap + 300,  # the child ends itself long before
            )
            if done.returncode != 0:
                last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
                failure = f"failed: {last[0]}"
        except subprocess.TimeoutExpired:
            failure = "failed: it did not end by itself"
        lines = path.read_text().splitlines() if path.is_file() else []
    values = [json.loads(line) for line in lines]
    trace = sorted(Moment(*value) for value in values if isinstance(value, list))
    said: dict[str, Any] = {}
    for value in values:
        if isinstance(value, dict):
            said = {**value, **said}  # what is noted first is the most particular
    note = failure or said.get("skipped") or said.get("note") or "ended at the cap in mid-iteration"
    return Run(trace, said.get("checked"), note)


def measure(name: str, solvers: list[str], cap: float, threads: int) -> dict[str, Run]:
    """Every solver on one problem, one after the other."""
    runs = {}
    for solver in solvers:
        _progress(f"{name}: {solver} …")
        runs[solver] = one = run(name, solver, cap, threads)
        if not one.trace:
            _progress(f"{name}: {solver}: no trace: {one.note}")
            continue
        last = one.trace[-1]
        _progress(
            f"{name}: {solver}: {last.objective:.8f} after {last.seconds:.2f} s, "
            f"{last.passes} passes; {one.note}"
        )
        if one.checked is not None and one.checked > last.objective * (1 + 1e-6):
            _progress(f"{name}: {solver}: CLAIM NOT CONFIRMED, float64 says {one.checked:.8f}")
    return runs


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

    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--problems", type=partial(names, PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--solvers", type=partial(names, SOLVERS), default=list(SOLVERS))
    parser.add_argument("--cap", type=float, default=120.0, help="seconds a fit may take")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # a trace's file
    return parser.parse_args()


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
