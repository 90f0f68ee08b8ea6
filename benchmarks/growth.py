"""How the exact solver's cost grows: with rows, features, classes, on disk, at ImageNet's size.

Three parts, each a table:

- ``work``: one of n, d, K grows and the others stay; on made clusters that overlap, so that the
  optimum is finite. Rounds go over all rows alternately, and the median of each row is printed.
- ``memory``: data four times as large as the memory that the process may take, read from a file a
  batch at a time. The kernel enforces the limit, and a second process shows that it does: the same
  limit refuses to load the file at once.
- ``probe``: a linear probe as on ImageNet, against L-BFGS and mini-batch AdamW, given the same
  seconds.

``python -m benchmarks.growth [work memory probe] [--device cuda] [--quick]``
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its customary name)
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.machine import describe
from benchmarks.main_job import quiet
from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver

PARTS = ("work", "memory", "probe")
MIB = 1 << 20
MAX_PASSES = 500
L2 = 1e-4
SPREAD = 2.0  # centres lie 2·√2 noise deviations apart: clusters overlap
DATA_OVER_LIMIT = 4
STREAM_D, STREAM_CLASSES = 128, 10
IMAGENET_ROWS = 1281167
PROBE_STRENGTH = 6.0  # of a class centre against noise 1 an entry: about four rows in five are told
PROBE_NORM = 10.0  # the length of CLIP's image features
SKLEARN_C = 0.316  # CLIP's linear probe on ImageNet; l2 = 1 / (C · n)

Batch = tuple[Tensor, Tensor]


class Case(NamedTuple):
    """One row of the first table: what grows, and the size it has grown to."""

    grows: str
    n: int
    d: int
    classes: int


class Fit(NamedTuple):
    """What training did, and the weights (K, d) and biases (K,) it ended with."""

    passes: int
    seconds: float
    seconds_a_pass: float
    status: str
    weight: Tensor
    bias: Tensor


class Optimality(NamedTuple):
    """How good weights are, computed in float64 by code that the solver does not share."""

    objective: float
    largest_gradient: float


def main() -> None:
    """Measure the parts that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; or all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the probe")
    parser.add_argument("--rows", type=int, help="of the probe; ImageNet's, on the CPU a 50th")
    parser.add_argument("--tol", type=float, nargs="+", default=[1e-4], help="of the probe")
    parser.add_argument("--repeats", type=int, default=3, help="of the first part")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--child", choices=("stream", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.file, args.limit)))
        return
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"expected parts among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    parts = args.parts or PARTS
    print(describe("torch", "lightning"), end="")
    print(f", {torch.get_num_threads()} threads")
    if args.device == "cuda":
        print(torch.cuda.get_device_name())
    if "work" in parts:
        print_work(args.quick, 1 if args.quick else args.repeats)
    if "memory" in parts:
        print_memory(args.quick)
    if "probe" in parts:
        print_probe(args.device, args.rows, args.tol, args.quick)


# Cost as the work grows ----------------------------------------------------------------------


def print_work(quick: bool, repeats: int) -> None:
    """The first table: passes, seconds, and a pass next to that of each axis' first row."""
    n, d, classes = (200, 8, 4) if quick else (10000, 100, 10)
    many_d = 4 if quick else 32
    cases = [
        *(Case("n", n * times, d, classes) for times in (1, 2, 4, 8)),
        *(Case("d", n, d * times, classes) for times in (1, 2, 4, 8)),
        *(Case("K", n, many_d, classes * times) for times in (1, 10, 100)),
    ]
    fits: dict[Case, list[Fit]] = {case: [] for case in cases}
    optima: dict[Case, Optimality] = {}
    fit(clusters(n, d, classes), d, classes, L2, 1e-5, max_passes=3)  # the first fit is slower
    for repeat in range(repeats):
        for case in cases:
            progress(f"work, round {repeat + 1} of {repeats}: {case}")
            batches = clusters(case.n, case.d, case.classes)
            done = fit(batches, case.d, case.classes, L2, 1e-5)
            fits[case].append(done)
            optima[case] = optimality(done.weight, done.bias, batches, L2)

    print("\n| grows | n | d | K | passes | total, s | a pass, ms | ", end="")
    print("a pass over that of the first row | largest gradient entry | status |")
    print("| --- " * 10 + "|")
    first: dict[str, float] = {}
    for case in cases:
        done = fits[case][-1]
        seconds = statistics.median(done.seconds for done in fits[case])
        a_pass = statistics.median(done.seconds_a_pass for done in fits[case])
        over_first = a_pass / first.setdefault(case.grows, a_pass)
        row = [
            case.grows,
            str(case.n),
            str(case.d),
            str(case.classes),
            str(done.passes),
            f"{seconds:.2f}",
            f"{1e3 * a_pass:.1f}",
            f"{over_first:.1f}",
            f"{optima[case].largest_gradient:.1e}",
            done.status,
        ]
        print("| " + " | ".join(row) + " |", flush=True)


def clusters(n: int, d: int, classes: int) -> list[Batch]:
    """Gaussian clusters that overlap alike whatever d is, a few batches whatever n is."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, d, generator=generator) * (SPREAD / math.sqrt(d))
    y = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator) + centres[y]
    rows = math.ceil(min(n, 10000) / 4)
    return list(zip(torch.split(x, rows), torch.split(y, rows), strict=True))


class PassTimes(Callback):
    """When each epoch began, and when the last one ended."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.stamps: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From start to start, so that work at an epoch's end counts to that epoch."""
        self.stamps.append(now(self.device))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of the last epoch."""
        self.stamps.append(now(self.device))


def fit(
    data: list[Batch] | IterableDataset[Batch],
    d: int,
    classes: int,
    l2: float,
    tol: float,
    device: str = "cpu",
    max_passes: int = MAX_PASSES,
) -> Fit:
    """Train with the exact solver, from zero weights, until it stops by itself."""
    times = PassTimes(device)
    with quiet():
        model = SoftmaxRegression(
            num_features=d, num_classes=classes, l2=l2, optimizer=partial(ExactSolver, tol=tol)
        )
        nn.init.zeros_(model.linear.weight)
        nn.init.zeros_(model.linear.bias)
        trainer = Trainer(
            max_epochs=max_passes,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = now(device)
        trainer.fit(model, DataLoader(data, batch_size=None))  # type: ignore[arg-type]  # a list
        seconds = now(device) - start
    (solver,) = trainer.optimizers
    assert isinstance(solver, ExactSolver)
    return Fit(
        passes=len(times.stamps) - 1,
        seconds=seconds,
        seconds_a_pass=statistics.median(b - a for a, b in pairwise(times.stamps)),
        status=solver.status.name.lower(),  # "running" where max_passes ended it
        weight=model.linear.weight.detach(),
        bias=model.linear.bias.detach(),
    )


@torch.no_grad()
def optimality(weight: Tensor, bias: Tensor, batches: Iterable[Batch], l2: float) -> Optimality:
    """Objective and largest entry of its gradient, in float64, written out by hand."""
    weight, bias = weight.double(), bias.double()
    nll, rows = 0.0, 0
    of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for x, y in batches:
        wide = x.double()
        log_probs = torch.log_softmax(wide @ weight.T + bias, 1)
        nll -= float(log_probs.gather(1, y[:, None]).sum())
        rows += len(y)
        residual = log_probs.exp_()
        residual[torch.arange(len(y), device=y.device), y] -= 1
        of_weight += residual.T @ wide
        of_bias += residual.sum(0)
    of_weight = of_weight / rows + l2 * weight
    largest = max(float(of_weight.abs().max()), float(of_bias.abs().max()) / rows)
    return Optimality(nll / rows + 0.5 * l2 * float(weight.square().sum()), largest)


# Memory, with the data on disk ---------------------------------------------------------------


class Streamed(IterableDataset[Batch]):
    """Batches by plain reads at an offset: a memory map's pages would count as memory, or hide."""

    def __init__(self, x_path: Path, rows_a_batch: int) -> None:
        self.x_path = x_path
        self.rows_a_batch = rows_a_batch
        with x_path.open("rb") as file:
            np.lib.format.read_magic(file)
            (self.rows, self.d), _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self.start = file.tell()

    def __iter__(self) -> Iterator[Batch]:
        for row in range(0, self.rows, self.rows_a_batch):
            count = min(self.rows_a_batch, self.rows - row)
            offset = self.start + row * self.d * self.dtype.itemsize
            x = np.fromfile(self.x_path, self.dtype, count * self.d, offset=offset)
            y = np.fromfile(labels_of(self.x_path), np.uint8, count, offset=row)
            yield torch.from_numpy(x.reshape(count, self.d)), torch.from_numpy(y.astype(np.int64))


def print_memory(quick: bool) -> None:
    """The second table, of two processes under one limit: one streams the file, one loads it."""
    limit = 128 * MIB
    size = 4 * MIB if quick else DATA_OVER_LIMIT * limit
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        progress(f"memory: writing {size // MIB} MiB")
        write_clusters(path, size, STREAM_D, STREAM_CLASSES)
        progress("memory: streaming it")
        streamed = in_child("stream", path, limit)
        progress("memory: loading it at once")
        loaded = in_child("load", path, limit)

    print(
        "\n| data, MiB | d | K | limit, MiB | after imports, MiB | peak above that, MiB | ", end=""
    )
    print("passes | a pass, s | status | the same limit, file loaded at once |")
    print("| --- " * 10 + "|")
    row = [f"{size / MIB:.0f}", str(STREAM_D), str(STREAM_CLASSES), f"{limit / MIB:.0f}"]
    if "error" in streamed:
        row += ["-", "-", "-", "-", streamed["error"]]
    else:
        row += [streamed[name] for name in ("imports", "above", "passes", "a_pass", "status")]
    row.append(loaded.get("error", "fits"))
    print("| " + " | ".join(row) + " |", flush=True)
    if "error" in streamed:
        sys.exit(f"expected streamed data to fit under the limit, got {streamed['error']}")
    if not quick and "error" not in loaded:
        sys.exit("expected the limit to refuse the whole file: the measurement shows nothing")


def write_clusters(path: Path, size: int, d: int, classes: int) -> None:
    """An ``.npy`` file of ``size`` bytes of float32 features; its labels beside it, in bytes."""
    rows = size // (4 * d)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, d), np.float32) * np.float32(SPREAD / math.sqrt(d))
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, d)}
    with path.open("wb") as x_file, labels_of(path).open("wb") as y_file:
        np.lib.format.write_array_header_1_0(x_file, header)
        for row in range(0, rows, 8192):
            y = rng.integers(classes, size=min(8192, rows - row), dtype=np.uint8)
            x_file.write((rng.standard_normal((len(y), d), np.float32) + centres[y]).tobytes())
            y_file.write(y.tobytes())


def labels_of(x_path: Path) -> Path:
    """Where the labels of a features file lie."""
    return x_path.with_name("y.bin")


def in_child(mode: str, path: Path, limit: int) -> dict[str, str]:
    """What a process of its own measured, or ``error``: the last line of what it complained of."""
    command = [sys.executable, "-m", "benchmarks.growth", "--child", mode]
    command += ["--file", str(path), "--limit", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def child(mode: str, path: Path, limit: int) -> dict[str, str]:
    """Train, or load the file, with at most ``limit`` bytes beyond what the imports took.

    Two judges: the kernel refuses private memory beyond the limit (its cap counts reservations, so
    it is the stricter one), and the peak of resident memory, libraries' pages that training first
    touches included, is compared with the limit afterwards. What the solver itself keeps grows with
    d and K and not with the rows: the table says both.
    """
    used = memory("VmData") + limit
    resource.setrlimit(resource.RLIMIT_DATA, (used, used))
    Path("/proc/self/clear_refs").write_text("5")  # forget the imports' own peak
    imports = memory("VmRSS")
    if mode == "load":
        return {"rows": str(len(np.load(path)))}
    data = Streamed(path, rows_a_batch=4096)
    done = fit(data, data.d, STREAM_CLASSES, L2, 1e-5)
    above = memory("VmHWM") - imports
    if above > limit:
        sys.exit(f"peak {above / MIB:.0f} MiB above the imports, over the limit")
    return {
        "imports": f"{imports / MIB:.0f}",
        "above": f"{above / MIB:.0f}",
        "passes": str(done.passes),
        "a_pass": f"{done.seconds_a_pass:.2f}",
        "status": done.status,
    }


def memory(name: str) -> int:
    """A figure of this process as the kernel keeps it, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"expected {name} in /proc/self/status, found none; measure on Linux")
    return 1024 * int(found[1])


# The probe -----------------------------------------------------------------------------------


def print_probe(device: str, rows: int | None, tolerances: list[float], quick: bool) -> None:
    """The chip's rates, and the exact solver next to two others that get the same seconds."""
    n = rows or (IMAGENET_ROWS if device == "cuda" else IMAGENET_ROWS // 50 + 1)
    d, classes = 1024, 1000
    if quick:
        n, d, classes = rows or 640, 32, 20
    progress(f"probe: rates of the {device}")
    limit = pass_limit(n, d, classes, device, quick)
    progress(f"probe: making {n} x {d} features")
    batches = probe_features(n, d, classes, device)
    l2 = 1 / (SKLEARN_C * n)
    fit(batches[:1], d, classes, l2, 1e-4, device, max_passes=2)  # libraries load, kernels are made
    zeros = torch.zeros(classes, d, device=device), torch.zeros(classes, device=device)
    for tol in tolerances:
        progress(f"probe: exact solver to {tol:g}")
        exact = fit(batches, d, classes, l2, tol, device)
        progress(f"probe: {exact.passes} passes in {exact.seconds:.1f} s; now the others")
        lines = [
            ("zero weights", 0.0, 0.0, zeros),
            (
                f"exact solver, {exact.status}",
                float(exact.passes),
                exact.seconds,
                (exact.weight.to(device), exact.bias.to(device)),
            ),
            ("L-BFGS, strong Wolfe", *lbfgs(batches, d, classes, l2, exact.seconds, device)),
            (
                "AdamW, batch 1024, lr 1e-3",
                *adamw(batches, d, classes, l2, exact.seconds, device),
            ),
        ]
        print(f"\n{n} x {d} float16 features, {classes} classes, l2 {l2:.2g}, tol {tol:g}:\n")
        print("| method | passes | seconds | objective | largest gradient entry |")
        print("| --- " * 5 + "|")
        for name, passes, seconds, weights in lines:
            reached = optimality(*weights, batches, l2)
            print(
                f"| {name} | {passes:.4g} | {seconds:.2f} | {reached.objective:.6f} "
                f"| {reached.largest_gradient:.1e} |",
                flush=True,
            )
        print(
            f"\nA pass took {1e3 * exact.seconds_a_pass:.3g} ms: the limit, {1e3 * limit:.3g} ms, "
            f"is {limit / exact.seconds_a_pass:.3g} of it.",
            flush=True,
        )


def pass_limit(n: int, d: int, classes: int, device: str, quick: bool) -> float:
    """Seconds below which no pass in float32 can be: two products, or one reading of the data."""
    size = 256 if quick else 8192 if device == "cuda" else 2048
    single = matrix_rate(size, torch.float32, device)
    half = matrix_rate(size, torch.float16, device) if device == "cuda" else math.nan
    copied = (4 if quick else 1024 if device == "cuda" else 256) * MIB
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    bandwidth = 2 * copied / median_seconds(lambda: target.copy_(source), device)
    multiplying = 2 * 2 * n * d * classes / single
    reading = 2 * n * d / bandwidth
    print("\n| float32 products (TF32 off), TFLOP/s | float16 products, TFLOP/s | ", end="")
    print("copy, GB/s read and written | two products a pass, ms | reading float16 once, ms |")
    print("| --- " * 5 + "|")
    print(
        f"| {single / 1e12:.3g} | {'-' if math.isnan(half) else f'{half / 1e12:.3g}'} "
        f"| {bandwidth / 1e9:.3g} | {1e3 * multiplying:.3g} | {1e3 * reading:.3g} |",
        flush=True,
    )
    return max(multiplying, reading)


def matrix_rate(size: int, dtype: torch.dtype, device: str) -> float:
    """Floating-point operations a second in the product of two square matrices."""
    torch.set_float32_matmul_precision("highest")  # no TF32
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / median_seconds(lambda: a @ b, device)


def median_seconds(action: Callable[[], object], device: str) -> float:
    """Of seven runs after two to warm up."""
    times = []
    for _ in range(9):
        start = now(device)
        action()
        times.append(now(device) - start)
    return statistics.median(times[2:])


def probe_features(n: int, d: int, classes: int, device: str) -> list[Batch]:
    """Rows as CLIP answers them: float16, of one length, class centres under noise.

    They are made where they are used, a batch at a time: ImageNet's rows never cross to the GPU.
    """
    generator = torch.Generator(device=device).manual_seed(0)
    centres = F.normalize(torch.randn(classes, d, generator=generator, device=device))
    batches = []
    rows_a_batch = 65536 if device == "cuda" else 4096
    for row in range(0, n, rows_a_batch):
        count = min(rows_a_batch, n - row)
        y = torch.randint(classes, (count,), generator=generator, device=device)
        x = torch.randn(count, d, generator=generator, device=device)
        x = F.normalize(x + PROBE_STRENGTH * centres[y]) * PROBE_NORM
        batches.append((x.half(), y))
    return batches


class _TimeIsUpError(Exception):
    """Leaves L-BFGS in the middle of a line search."""


def lbfgs(
    batches: list[Batch], d: int, classes: int, l2: float, budget: float, device: str
) -> tuple[float, float, tuple[Tensor, Tensor]]:
    """Passes, seconds and the best weights that torch's L-BFGS met, trial steps included."""
    linear = zero_linear(d, classes, device)
    n = sum(len(y) for _, y in batches)
    best, best_value, passes = (
        (linear.weight.detach().clone(), linear.bias.detach().clone()),
        math.inf,
        0,
    )
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=10**6, max_eval=10**6, tolerance_grad=0.0,
        tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> float:
        nonlocal best, best_value, passes
        if now(device) - start > budget:
            raise _TimeIsUpError
        optimizer.zero_grad()
        penalty = 0.5 * l2 * linear.weight.square().sum()
        penalty.backward()  # type: ignore[no-untyped-call]  # torch's own
        value = penalty.detach()
        for x, y in batches:
            share = F.cross_entropy(linear(x.float()), y, reduction="sum") / n
            share.backward()  # type: ignore[no-untyped-call]
            value = value + share.detach()
        passes += 1
        if float(value) < best_value:
            best_value = float(value)
            best = linear.weight.detach().clone(), linear.bias.detach().clone()
        return float(value)

    start = now(device)
    with suppress(_TimeIsUpError):
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return float(passes), now(device) - start, best


def adamw(
    batches: list[Batch], d: int, classes: int, l2: float, budget: float, device: str
) -> tuple[float, float, tuple[Tensor, Tensor]]:
    """Passes, seconds and last weights of AdamW; the penalty is in the objective, not a decay."""
    linear = zero_linear(d, classes, device)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-3, weight_decay=0.0)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    generator = torch.Generator(device=device).manual_seed(0)
    steps, elapsed, start = 0, 0.0, now(device)
    seen = 0
    while elapsed < budget:
        order = torch.randperm(len(y), generator=generator, device=device)
        for rows in torch.split(order, 1024):
            optimizer.zero_grad()
            penalty = 0.5 * l2 * linear.weight.square().sum()
            loss = F.cross_entropy(linear(x[rows].float()), y[rows]) + penalty
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps, seen = steps + 1, seen + len(rows)
            if device == "cpu" or steps % 16 == 0:  # waiting at each step would slow a GPU down
                elapsed = now(device) - start
                if elapsed >= budget:
                    break
    return seen / len(y), now(device) - start, (linear.weight.detach(), linear.bias.detach())


def zero_linear(d: int, classes: int, device: str) -> nn.Linear:
    """Where all methods begin."""
    linear = nn.Linear(d, classes, device=device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def now(device: str = "cpu") -> float:
    """Seconds, when the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def progress(message: str) -> None:
    """Say on stderr what is being measured; stdout holds the tables alone."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
