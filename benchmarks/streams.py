"""Rows a second out of Parquet files, against the same in memory and a plain scan of the files.

Float64 columns of normal numbers, which nothing compresses, and a label; files in the page cache,
so that it is decoding that is measured and no disk. The methods take turns, and the best of their
turns are compared: what else the machine does only ever makes one slower. CPU time is that of all
threads: where wall time is less, a window was read while the one before was served.

``python -m benchmarks.streams [--repeats N] [--rows N]``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from benchmarks.machine import describe
from smx_lightning.data import BatchLoader, Rows, StreamedTableDataModule
from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.data.streams.parts import Part

FEATURES, CLASSES, FILES, GROUP = 100, 5, 4, 50_000
LARGE, SMALL = 8192, 256  # rows of a batch
SCAN = "plain scan, pyarrow.dataset"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), args.rows)
        taken = methods(Path(folder))
        turns = [{name: timed(loop) for name, loop in taken.items()} for _ in range(args.repeats)]
    wall, cpu = ({name: min(t[name][k] for t in turns) for name in taken} for k in (0, 1))
    print(f"{args.rows} × {FEATURES}, {describe('torch', 'pyarrow', 'numpy')}\n")
    print("| rows come from | million rows a second | time over the scan's | CPU time over it |")
    print("| --- | --- | --- | --- |")
    for name in taken:
        rate, over, cpu_over = args.rows / wall[name] / 1e6, wall[name] / wall[SCAN], cpu[name]
        print(f"| {name} | {rate:.2f} | {over:.2f} | {cpu_over / cpu[SCAN]:.2f} |")


def write(folder: Path, rows: int) -> None:
    """Files of several row groups each."""
    rng = np.random.default_rng(0)
    for k in range(FILES):
        n = len(range(k, rows, FILES))
        columns: dict[str, Any] = {f"x{j}": rng.normal(size=n) for j in range(FEATURES)}
        made = pa.table({**columns, "label": rng.integers(0, CLASSES, n)})
        pq.write_table(made, folder / f"part-{k}.parquet", row_group_size=GROUP)


def methods(folder: Path) -> dict[str, Callable[[], int]]:
    """What is measured by name; each answers how many rows it has seen."""
    data = StreamedTableDataModule(folder, "label")
    part: Any = data.train_dataloader().dataset
    rows = replace(part, part=Part())  # all of them
    x, y = (torch.cat(parts) for parts in zip(*StreamLoader(rows, batch_size=LARGE), strict=True))
    memory = Rows(x, y)

    def of(loader: Any) -> Callable[[], int]:
        return lambda: served(loader)

    return {
        SCAN: lambda: sum(batch.num_rows for batch in ds.dataset(folder).to_batches()),
        "plain scan, file by file": lambda: sum(map(scanned, sorted(folder.iterdir()))),
        f"Parquet in order, batches of {LARGE}": of(StreamLoader(rows, batch_size=LARGE)),
        f"Parquet shuffled, batches of {LARGE}": of(
            StreamLoader(rows, batch_size=LARGE, shuffle=True)
        ),
        f"Parquet shuffled, batches of {SMALL}": of(
            StreamLoader(rows, batch_size=SMALL, shuffle=True)
        ),
        f"memory, shuffled, batches of {LARGE}": of(
            BatchLoader(memory, batch_size=LARGE, shuffle=True)
        ),
        f"memory, shuffled, batches of {SMALL}": of(
            BatchLoader(memory, batch_size=SMALL, shuffle=True)
        ),
    }


def served(batches: Iterable[Any]) -> int:
    """Rows of all batches, which are made and dropped."""
    return sum(len(y) for _, y in batches)


def scanned(path: Path) -> int:
    """Rows of a file, whose columns are decoded and dropped."""
    with pq.ParquetFile(path) as file:
        return sum(batch.num_rows for batch in file.iter_batches())


def timed(loop: Callable[[], int]) -> tuple[float, float]:
    """Seconds of one pass, by the clock and of CPU."""
    began, used = time.perf_counter(), time.process_time()
    loop()
    return time.perf_counter() - began, time.process_time() - used


if __name__ == "__main__":
    main()
