"""Runtimes against exporters: size, load time and latency of files with the same weights.

Compared are this project's profiles, skl2onnx's file and that of ``torch.onnx.export``, on every
installed target of :mod:`smx_export.targets`. Each target runs in a process of its own, without
torch, and with as many threads as it takes by itself: as its users see it. Within that process the
files take turns. A load is whatever the target does to an ONNX file: pnnx, MNN's converter or a C
compiler, the start of node or of Chromium. A run asks for all outputs: log-probabilities and
probabilities of this project, label and probabilities of skl2onnx, probabilities of torch.

Answers are checked first, against float64 with the weights that the file stores (a compact file's
are rounded). A file has no latency where it is *refused*, *fails* at its first rows, *crashes* its
process, *hangs*, or is answered *wrong*: a probability off by over 1e-3 of the row's largest, or a
label that is not the largest's.

``python -m benchmarks.targets [--targets NAME,…] [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import shipping
from benchmarks.machine import describe
from smx_export import FileError, Profile, export_onnx
from smx_export.graph.quantization import rounded
from smx_export.targets import named

ROWS = 1024
PATIENCE = 900.0  # seconds for one target and one problem
QUICK = "onnxruntime,onnx-reference"
SKL2ONNX, TORCH = "skl2onnx", "torch.onnx"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--targets", metavar="NAME,…", help="default: all")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    args = parser.parse_args()
    try:
        names = named(args.targets or (QUICK if args.quick else "all"))
    except FileError as error:
        parser.error(str(error))

    has_peer = importlib.util.find_spec(SKL2ONNX) is not None
    packages = ["torch", "onnx", "onnxscript", "scikit-learn"] + [SKL2ONNX] * has_peer
    print(describe(*packages), end="\n\n")
    if not has_peer:
        print("skl2onnx is not measured: it is not installed (pip install skl2onnx).\n")
    job = {"repeats": 2, "block": 0.01} if args.quick else {"repeats": args.repeats, "block": 0.1}
    for size in shipping.QUICK if args.quick else shipping.SIZES:
        names = compare(size, names, has_peer, job)


def compare(
    size: shipping.Size, names: list[str], has_peer: bool, job: dict[str, Any]
) -> list[str]:
    """Print one problem's tables; the targets that are installed."""
    title = f"{size.name}, {size.d} x {size.classes}"
    with tempfile.TemporaryDirectory(prefix="smx-bench-") as folder:
        shipping.progress(f"{title}: exporting")
        paths = write_files(size, Path(folder), has_peer)
        sizes = [str(path.stat().st_size) for path in paths.values()]
        answers = {}
        for name in names:
            shipping.progress(f"{title}: {name}")
            answers[name] = ask({**job, "target": name}, paths, Path(folder))
    found = {name: answer for name, answer in answers.items() if "missing" not in answer}

    print(f"## {title}\n")
    table(["", *paths], [["file, bytes", *sizes]])
    latency, loads, faults = [], [], []
    for name, answer in found.items():
        figures = [answer["files"][file] for file in paths]
        latency.append([name, *(cell(one, "one_us", "many_us") for one in figures)])
        first = cell(answer, "first_ms")
        loads.append([name, answer.get("version", "-"), first, *(cell(o, "ms") for o in figures)])
        pairs = zip(paths, figures, strict=True)
        faults += [
            f"- {name}, {file}: {one['fault'].replace(str(folder), '')}"
            for file, one in pairs
            if "fault" in one
        ]
    table([f"µs: one row / a row of {ROWS}", *paths], latency)
    table(["load, ms", "version", "first, with imports", *paths], loads)
    faults += [f"- not run: {one['missing']}" for one in answers.values() if "missing" in one]
    print("".join(f"{line}\n" for line in [*faults, ""] if faults), end="", flush=True)
    return [*found]


def write_files(size: shipping.Size, folder: Path, has_peer: bool) -> dict[str, Path]:
    """Files of the same weights, and ``inputs.npz``: rows, and what each file should answer."""
    model = shipping.random_model(size)
    weight, bias = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    x = np.random.default_rng(0).standard_normal((ROWS, size.d), np.float32)
    right = probabilities(x, weight, bias)
    answers: dict[str, Any] = {}
    paths = {}
    for name, profile in {
        "portable": Profile(),
        "robust": Profile(robust=True),
        # The weights are random: there is no accuracy to lose.
        "compact int8": Profile(weights="int8", max_accuracy_loss=1, max_nll_increase=9),
        "compact float16": Profile(weights="float16", max_accuracy_loss=1, max_nll_increase=9),
    }.items():
        paths[name], answers[name] = folder / f"{name}.onnx", right
        data = None
        if profile.weights is not None:
            stored = rounded(weight, profile.weights)
            scale = 1 if stored.scale is None else stored.scale.astype(float)
            answers[name] = probabilities(x, stored.stored * scale, bias)
            data = x, right.argmax(1)
        export_onnx(model, paths[name], profile=profile, data=data)
    if has_peer:
        paths[SKL2ONNX], answers[SKL2ONNX] = folder / "skl2onnx.onnx", right
        shipping.export_peer(shipping.judge_of(model), paths[SKL2ONNX])
    paths[TORCH], answers[TORCH] = folder / "torch.onnx", right
    torch.onnx.export(
        torch.nn.Sequential(model.linear, torch.nn.Softmax(1)).eval(),
        (torch.from_numpy(x[:2]),),
        paths[TORCH],
        dynamo=True,
        external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    np.savez(folder / "inputs.npz", x=x, **answers)
    return paths


def probabilities(
    x: NDArray[np.float32], weight: NDArray[Any], bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    """In float64."""
    scores = x.astype(float) @ weight.T.astype(float) + bias
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(odds / odds.sum(1, keepdims=True))


def ask(job: dict[str, Any], paths: dict[str, Path], folder: Path) -> dict[str, Any]:
    """One target's answer; a file that ends the process is left out of the next."""
    left = {file: str(path) for file, path in paths.items()}
    faults: dict[str, dict[str, Any]] = {}
    while True:
        (folder / "job.json").write_text(json.dumps({**job, "files": left}))
        (folder / "answer.json").write_text("{}")
        ended = run(folder)
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        if not answer:
            sys.exit(f"expected {job['target']} to begin, its process {ended}")
        if answer["at"] is not None:  # once all is done, it is nowhere
            faults[answer["at"]] = {"fault": ended}
            del left[answer["at"]]
        if answer["at"] is None or not left:
            return {**answer, "files": answer["files"] | faults}


def run(folder: Path) -> str:
    """A process to its end, with whatever it started; how it ended."""
    command = [sys.executable, "-m", "benchmarks.on_target", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return f"hangs: took more than {PATIENCE:g} s"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = (folder / "log").read_text("utf-8", "replace").strip().rpartition("\n")[2]
    return f"crashed: {signal.Signals(-code).name if code < 0 else f'code {code}'}; {said[:120]}"


def cell(figures: dict[str, Any], *keys: str) -> str:
    """Figures of a file, or in one word why there are none."""
    if "fault" in figures and not all(key in figures for key in keys):
        return str(figures["fault"]).split()[0].rstrip(":")
    numbers = [figures.get(key) for key in keys]
    return " / ".join("-" if number is None else short(number) for number in numbers)


def short(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print Markdown."""
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    print("".join("| " + " | ".join(row) + " |\n" for row in rows), flush=True)


if __name__ == "__main__":
    main()
