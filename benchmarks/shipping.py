"""The file that is shipped, against skl2onnx's of the same weights: export time, size, latency.

Both files hold one linear layer and answer probabilities; this project's answers log-probabilities
as well, skl2onnx's the label. Every run asks a session for all of its outputs. This project's
export time includes the parity gate, which skl2onnx has no counterpart of; the gate's own time
stands beside it.

``python -m benchmarks.shipping [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.machine import describe
from smx_export import check_parity, export_onnx
from smx_export.contract import PROBS
from smx_lightning import SoftmaxRegression

OURS, THEIRS = "smx_export", "skl2onnx"
BATCHES = (1, 1024)


class Size(NamedTuple):
    """A problem: its name, features and classes."""

    name: str
    d: int
    classes: int


SIZES = [
    Size("digits", 64, 10),
    Size("Fashion-MNIST", 784, 10),
    Size("probe", 1024, 1000),
]
QUICK = [Size("tiny", 8, 3)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7, help="of an export")
    parser.add_argument("--runs", type=int, default=500, help="of a session")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    args = parser.parse_args()
    repeats, runs = (2, 20) if args.quick else (args.repeats, args.runs)
    has_peer = importlib.util.find_spec("skl2onnx") is not None
    packages = ["torch", "onnx", "onnxruntime", "scikit-learn"] + ["skl2onnx"] * has_peer
    print(describe(*packages), end="\n\n")
    if not has_peer:
        print("skl2onnx is not measured: it is not installed (pip install skl2onnx).\n")
    print("| weights | exporter | export, ms | of which parity gate, ms | file, bytes | ", end="")
    print("over bare float32 weights | one row, µs | 1024 rows, µs |")
    print("| --- " * 8 + "|")
    for size in QUICK if args.quick else SIZES:
        for row in rows(size, has_peer, repeats, runs):
            print("| " + " | ".join(row) + " |", flush=True)


def rows(size: Size, has_peer: bool, repeats: int, runs: int) -> list[list[str]]:
    """A row an exporter; the two take turns in every measurement."""
    name = f"{size.name}, {size.d} x {size.classes}"
    model = random_model(size)
    with tempfile.TemporaryDirectory() as folder:
        paths = {OURS: Path(folder) / "ours.onnx"}
        exports: dict[str, Callable[[], object]] = {OURS: lambda: export_onnx(model, paths[OURS])}
        if has_peer:
            paths[THEIRS] = Path(folder) / "theirs.onnx"
            peer = judge_of(model)
            exports[THEIRS] = lambda: export_peer(peer, paths[THEIRS])
        progress(f"{name}: exporting")
        export_ms = {
            who: 1e3 * seconds
            for who, seconds in alternating(exports, repeats, warm_up=1, least=0).items()
        }
        gate: dict[str, Callable[[], object]] = {OURS: lambda: check_parity(model, paths[OURS])}
        gate_ms = 1e3 * alternating(gate, repeats, warm_up=0, least=0)[OURS]
        sessions = {who: session_of(path) for who, path in paths.items()}
        sizes = {who: path.stat().st_size for who, path in paths.items()}

    latency: dict[str, list[str]] = {who: [] for who in paths}
    for batch in BATCHES:
        progress(f"{name}: {batch} rows a run")
        x = np.random.default_rng(batch).standard_normal((batch, size.d), np.float32)
        check_alike(sessions, x)
        actions = {who: run_of(session, x) for who, session in sessions.items()}
        for who, seconds in alternating(actions, runs, warm_up=runs // 5, least=7).items():
            latency[who].append(f"{1e6 * seconds:.1f}")
    bare = 4 * (size.d + 1) * size.classes
    return [
        [
            name,
            "smx_export, with parity gate" if who == OURS else who,
            f"{export_ms[who]:.1f}",
            f"{gate_ms:.1f}" if who == OURS else "-",
            str(sizes[who]),
            f"{sizes[who] / bare:.3f}",
            *latency[who],
        ]
        for who in paths
    ]


def random_model(size: Size) -> SoftmaxRegression:
    """A model that was never trained: neither time nor size depends on the weights' values."""
    torch.manual_seed(0)
    model = SoftmaxRegression(num_features=size.d, num_classes=size.classes)
    with torch.no_grad():
        model.linear.weight.normal_(std=size.d**-0.5)
        model.linear.bias.normal_()
    return model


def judge_of(model: SoftmaxRegression) -> Any:
    """scikit-learn's estimator with the same weights, as if it had been fitted."""
    judge = LogisticRegression()
    judge.coef_ = model.linear.weight.detach().double().numpy()
    judge.intercept_ = model.linear.bias.detach().double().numpy()
    judge.classes_ = np.arange(model.num_classes)
    judge.n_features_in_ = model.num_features
    return judge


def export_peer(judge: Any, path: Path) -> None:
    """What skl2onnx's documentation does, probabilities as one tensor."""
    skl2onnx = importlib.import_module("skl2onnx")  # ships no types, and may be missing
    sample = np.zeros((1, judge.n_features_in_), np.float32)
    proto = skl2onnx.to_onnx(judge, sample, options={"zipmap": False})
    path.write_bytes(proto.SerializeToString())


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """A session that computes in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_of(session: onnxruntime.InferenceSession, x: NDArray[np.float32]) -> Callable[[], object]:
    """One run for all outputs."""
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def check_alike(sessions: dict[str, onnxruntime.InferenceSession], x: NDArray[np.float32]) -> None:
    """Files that answer differently are not worth comparing."""
    names = {OURS: PROBS, THEIRS: "probabilities"}
    answers = [
        session.run([names[who]], {session.get_inputs()[0].name: x})[0]
        for who, session in sessions.items()
    ]
    for answer in answers[1:]:
        difference = float(np.abs(answer - answers[0]).max())
        if not difference < 1e-5:
            sys.exit(f"expected the same probabilities of both files, they differ by {difference}")


def alternating(
    actions: dict[str, Callable[[], object]], repeats: int, warm_up: int, least: int
) -> dict[str, float]:
    """Median seconds of each; with ``least``, that many repeats will do after three seconds."""
    times: dict[str, list[float]] = {who: [] for who in actions}
    began = time.perf_counter()
    for repeat in range(-warm_up, repeats):
        for who, action in actions.items():
            start = time.perf_counter()
            action()
            if repeat >= 0:
                times[who].append(time.perf_counter() - start)
        if least and repeat >= least and time.perf_counter() - began > 3:
            break
    return {who: statistics.median(values) for who, values in times.items()}


def progress(message: str) -> None:
    """Say on stderr what is being measured; stdout holds the table alone."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
