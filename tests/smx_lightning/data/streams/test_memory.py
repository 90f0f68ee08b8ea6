"""A stream's memory stays below its limit, whatever the size of files and row groups."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sampled import sampled
from tools import SUPPORT

TRAIN = """
import json, resource, sys
import pyarrow.parquet, torch
from trainers import quiet_trainer
from smx_lightning import SoftmaxRegression
from smx_lightning.data import StreamedTableDataModule
from smx_lightning.optim import ExactSolver

folder, small, memory, optimizer = sys.argv[1:]


def fit(source):
    data = StreamedTableDataModule(source, "label", memory=int(memory), batch_size=1024)
    chosen = {"exact": ExactSolver, "adam": torch.optim.Adam}[optimizer]
    model = SoftmaxRegression(
        data.num_features, 2, optimizer=chosen, preprocessing="standardize", l2=1e-3
    )
    quiet_trainer(max_epochs=2).fit(model, data)


fit(small)  # what imports and a first fit take
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit(folder)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps((after - before) * 1024))
"""


def write(folder, rows, group, width):
    """Random numbers in float64, which nothing compresses, group by group."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    schema = pa.schema([(f"x{k}", pa.float64()) for k in range(width)] + [("label", pa.int64())])
    written = 0
    with pq.ParquetWriter(folder / "part.parquet", schema, use_dictionary=False) as writer:
        while written < rows:
            size = min(group, rows - written)
            columns = [rng.normal(size=size) for _ in range(width)]
            label = (columns[0] + rng.normal(size=size) > 0).astype(np.int64)
            writer.write_table(pa.table([*columns, label], schema=schema), row_group_size=group)
            written += size
    return (folder / "part.parquet").stat().st_size


GROUPS = [(50, 10_000), (12, 10**9)]  # columns, and rows of a group: of many groups, and of one


@pytest.mark.whole
@pytest.mark.parametrize(("columns", "group"), GROUPS)
@pytest.mark.parametrize("optimizer", ["adam", "exact"])
def test_a_set_four_times_the_limit_is_trained_on_below_it(tmp_path, columns, group, optimizer):
    peak, size = measured(tmp_path, 150, optimizer, columns=columns, group=group)
    assert size > 4 * 150 * 10**6
    assert peak < 150 * 10**6


@pytest.mark.parametrize("optimizer", sampled(["adam", "exact"], every=2))
def test_a_set_larger_than_the_limit_is_trained_on_below_it(tmp_path, optimizer):
    peak, size = measured(tmp_path, 120, optimizer, columns=50, group=5000, times=1.1)
    assert size > 1.1 * 120 * 10**6
    assert peak < 120 * 10**6


def measured(tmp_path, limit, optimizer, *, columns, group, times=4):
    """Peak memory above that of a small fit, and the size of the file; both in bytes.

    ``limit`` is in MB; the file is as many ``times`` as large.
    """
    limit *= 10**6
    rows = int(times * limit / (8 * columns)) + 1
    size = write(tmp_path / "large", rows, min(group, rows), columns)
    write(tmp_path / "small", 3000, 1000, columns)
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    arguments = [tmp_path / "large", tmp_path / "small", str(limit), optimizer]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), size
