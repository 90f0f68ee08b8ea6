"""Folders of Parquet files that cannot be streamed: files, columns, memory, places."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bad_input.actions import BAD, RUN, train
from smx_lightning import InputError
from smx_lightning.data import StreamedTableDataModule

ROWS = 24
GOOD = {"x": [k / 7 for k in range(ROWS)], "y": ["cat", "dog"] * (ROWS // 2)}
COMMAND = f"fit {RUN} --data StreamedTableDataModule --data.source set"


def folder(second=None, content=None, name="set/b.parquet"):
    """Two files, the second of which has other columns or another content."""
    Path("set").mkdir()
    pq.write_table(pa.table(GOOD), "set/a.parquet")
    if content is not None:
        Path(name).write_bytes(content)
    elif second is not None:
        pq.write_table(pa.table(second), name)


def _twice():
    names = ["x", "x", "y"]
    made = pa.Table.from_arrays([pa.array(GOOD[name]) for name in names], names=names)
    pq.write_table(made, sink := pa.BufferOutputStream())
    return sink.getvalue().to_pybytes()


TWICE = _twice()


def fit(options="--data.target y", **files):
    """``smx-lightning fit`` on such a folder."""

    def action():
        folder(**files)
        return train(f"{COMMAND} {options}")()

    return action


def module(source="set", **options):
    """The loader of training rows of such a folder."""

    def action():
        folder()
        StreamedTableDataModule(source, **{"target": "y", **options}).train_dataloader()

    return action


# fmt: off
CASES = [
    ("stream without a target", fit(""), BAD,
     "expected the column of the labels as target, got none; name one of the columns x, y"),
    ("stream with another target", fit("--data.target z"), BAD,
     "expected the columns z in …a.parquet, found no z among x, y; add these, or name others"),
    ("stream with an empty file", fit(content=b""), BAD,
     "expected a Parquet file at …b.parquet, got an empty file; write it again, or take it out of "
     "the folder"),
    ("stream with a text", fit(content=b"x,y\n1,2\n"), BAD,
     "expected a Parquet file at …b.parquet, got one that does not end as such; write it again"),
    ("stream with a footer that is too long", fit(content=b"PAR1\xff\xff\xff\x7fPAR1"), BAD,
     "expected a whole Parquet file at …b.parquet, got one whose footer would be longer than the "
     "file; write it again, or take it out of the folder"),
    ("stream with a footer of noise", fit(content=b"PAR1" + b"\xee" * 9 + b"\x09\0\0\0PAR1"), BAD,
     "expected a Parquet file at …b.parquet, got one that pyarrow cannot read (…); write it again"),
    ("stream with a table of another kind", fit(content=b"x,y\n1,2\n", name="set/b.csv"), BAD,
     "expected Parquet files alone in …set, got b.csv, whose rows would be left out; write it as "
     "Parquet, or begin its name with _"),
    ("stream of other columns", fit(second={"x": [1.0]}), BAD,
     "expected the same columns in all files, got y in …a.parquet and not in …b.parquet; give"),
    ("stream of other kinds", fit(second={**GOOD, "x": ["1"] * ROWS}), BAD,
     "expected column 'x' to be of one kind in all files, got number in …and category in …"),
    ("stream with infinity", fit(second={**GOOD, "x": [1.0, float("inf")] + [2.0] * 22}), BAD,
     "expected finite numbers in column 'x', got inf in row 1 of …b.parquet, counted from 0 (1"),
    ("stream with two columns of a name", fit(content=TWICE), BAD,
     "expected one column of each name in …b.parquet, got several called x; rename these"),
    ("stream of one class", fit(second={**GOOD, "y": ["cat"] * ROWS}, name="set/a.parquet"), BAD,
     "expected labels of at least 2 classes, got only ('cat',); there is nothing to tell apart"),
    ("stream that is not there", module("absent"), InputError,
     "expected Parquet files at …absent, found none; check the path"),
    ("stream of nothing", module([]), InputError, "expected Parquet files at source, found none"),
    ("stream in an unknown place", module("nowhere://set"), InputError,
     "expected a place that pyarrow can open, got nowhere://set (…); give filesystem="),
    ("stream in no filesystem", module(filesystem="s3"), InputError,
     "expected a filesystem of pyarrow or fsspec, got str; give pyarrow.fs.S3FileSystem(), say"),
    ("stream in little memory", fit("--data.target y --data.memory '1 MB'"), BAD,
     "expected memory of at least …MB for these files, of which …, got 1 MB; give as much, or"),
    ("stream in much memory", fit("--data.target y --data.memory much"), BAD,
     "memory must be bytes, or a number and one of B, kB, MB, GB, KiB, MiB, GiB, got 'much'; give"),
    ("stream in a window of 0", module(window=0), InputError, "window must be at least 1, got 0"),
    *((f"stream of {words}", module(given), InputError,
       f"expected Parquet files as a path, or a list of these, got {words}; name a file")
      for given, words in ((None, "NoneType"), (3, "int"), (b"set", "bytes"))),
    ("stream with a list of kinds", module(kinds=["x"]), InputError,
     "expected kinds as a mapping of names to kinds, got ['x']; give"),
    ("stream with a list of weights", module(weight=["x"]), InputError,
     "expected weight as the name of one column, got ['x']; give it as text"),
]
# fmt: on
