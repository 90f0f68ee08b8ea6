"""Folders of Parquet files for tests, and what is trained on them, on any number of processes."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jobs import OPTIMIZERS, Traced, learned, trainer_for

from smx_lightning.data import StreamedTableDataModule
from smx_lightning.data.streams.files import parquet_files
from smx_lightning.data.streams.parts import Part
from smx_lightning.data.streams.rows import StreamedRows
from smx_lightning.tables import Column, Schema

# Rows of each row group of each file: seven files, no two alike, some of them without rows.
UNEVEN = [[7, 1, 0, 30], [100], [3] * 10, [50, 1], [0], [13, 29], [64]]
NUMBERS = ("number", "noise", "other")
LABELS = ("a", "b", "c")


def table(rows, *, seed=0):
    """Rows whose column ``number`` counts them, with a label that depends on two of the others."""
    rng = np.random.default_rng(seed)
    noise, other = rng.normal(size=(2, rows))
    scores = np.stack([noise, other, np.zeros(rows)], 1) + rng.gumbel(size=(rows, 3))
    return pa.table(
        {
            "number": np.arange(rows, dtype=float),
            "noise": noise,
            "other": other,
            "label": pa.array(np.array(LABELS)[scores.argmax(1)]),
        }
    )


def write(folder, groups=UNEVEN, made=None, **options):
    """Write a table into a file a list of row groups, in order; returns the table."""
    made = table(sum(map(sum, groups))) if made is None else made
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for k, sizes in enumerate(groups):
        with pq.ParquetWriter(folder / f"part-{k}.parquet", made.schema, **options) as writer:
            for size in sizes:
                writer.write_table(made.slice(start, size), row_group_size=max(size, 1))
                start += size
    return made


def rows_of(folder, part=None, *, window=50, dtype=torch.float64):
    """The rows of such a folder as a data set, of which x is ``number`` alone."""
    files = parquet_files(folder)
    schema = Schema((Column("number"),), target="label")
    files = files.reading(["number", "label"])
    return StreamedRows(files, part or Part(), schema, LABELS, dtype, window)


def numbers(loader):
    """The numbers of the rows of each batch."""
    return [x[:, 0].long().tolist() for x, *_ in loader]


def fitted(world_size, folder, *, optimizer, epochs=4, trainer=(), data=(), **model):
    """Train on a folder in float64: weights, metrics, and the rows of each batch."""
    torch.manual_seed(0)
    streamed = StreamedTableDataModule(
        folder, "label", **{"batch_size": 32, "window": 64, "drop": ["number"], **dict(data)}
    )
    module = Traced(
        streamed.num_features, streamed.num_classes, optimizer=OPTIMIZERS[optimizer], **model
    )
    runner = trainer_for(world_size, max_epochs=epochs, precision="64-true", **dict(trainer))
    runner.fit(module, streamed)
    return learned(module, runner)


module = functools.partial(StreamedTableDataModule, target="label", window=64, batch_size=32)
