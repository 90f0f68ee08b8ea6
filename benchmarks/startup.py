"""How long it takes to begin: imports and ``--help``, each in a fresh process.

Every round starts each command once, after a first round that is not counted: it brings the files
into the page cache. This script imports nothing large itself, because a child's peak memory is
never reported below that of the process it was started from.

``python -m benchmarks.startup [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks.machine import describe

COMMANDS = {
    "`python -c pass`": ["-c", "pass"],
    "`import torch`": ["-c", "import torch"],
    "`import lightning`": ["-c", "import lightning"],
    "`from smx_lightning import SoftmaxRegression`": [
        "-c",
        "from smx_lightning import SoftmaxRegression",
    ],
    "`smx-lightning --help`": ["-m", "smx_lightning", "--help"],
    "`import onnxruntime`": ["-c", "import onnxruntime"],
    "`import smx_export.runtime`": ["-c", "import smx_export.runtime"],
}
PEER = {
    "`from smx_lightning import SoftmaxRegression`": "`import lightning`",
    "`smx-lightning --help`": "`import lightning`",
    "`import smx_export.runtime`": "`import onnxruntime`",
}
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere


class Start(NamedTuple):
    """One process: seconds from start to exit, and its peak memory in MiB."""

    seconds: float
    peak: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round, without a warm-up")
    args = parser.parse_args()
    rounds, warm_up = (1, 0) if args.quick else (args.repeats, 1)

    starts: dict[str, list[Start]] = {name: [] for name in COMMANDS}
    for number in range(-warm_up, rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, arguments in COMMANDS.items():
            done = start([sys.executable, *arguments])
            if number >= 0:
                starts[name].append(done)

    print(describe("torch", "lightning", "onnxruntime"), end="\n\n")
    print("| process | wall, s | min to max | over its peer, s | peak memory, MiB |")
    print("| --- " * 5 + "|")
    median = {
        name: statistics.median(one.seconds for one in measured)
        for name, measured in starts.items()
    }
    for name, measured in starts.items():
        seconds = [one.seconds for one in measured]
        peer = PEER.get(name)
        row = [
            name,
            f"{median[name]:.2f}",
            f"{min(seconds):.2f} to {max(seconds):.2f}",
            f"{median[name] - median[peer]:+.2f} ({peer})" if peer else "-",
            f"{statistics.median(one.peak for one in measured):.0f}",
        ]
        print("| " + " | ".join(row) + " |", flush=True)


def start(command: list[str]) -> Start:
    """Run one process to its end; a failure is no measurement."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for: Popen must know
    if process.returncode:
        sys.exit(f"expected {command} to exit with 0, got {process.returncode}")
    return Start(seconds, usage.ru_maxrss * RSS_UNIT / 2**20)


if __name__ == "__main__":
    main()
