"""Which files a source means, and what is refused of them before anything is trained."""

import itertools
import os
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import streamed
from streamed import UNEVEN, numbers, rows_of, table, write

from smx_lightning import InputError
from smx_lightning.data import StreamedTableDataModule
from smx_lightning.data.streams.files import parquet_files
from smx_lightning.data.streams.footers import footer
from smx_lightning.data.streams.loader import StreamLoader


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "set")
    return tmp_path / "set"


def read(folder):
    return sorted(itertools.chain(*numbers(StreamLoader(rows_of(folder), batch_size=32))))


def test_a_folder_s_files_are_read_at_any_depth_and_others_left_alone(folder):
    deep = folder / "year=2025" / "more"
    deep.mkdir(parents=True)
    shutil.move(folder / "part-1.parquet", deep / "part-1.PARQUET")
    for name in ("_SUCCESS", "README.md", ".part-0.parquet.crc", "_temporary", "_old.parquet"):
        (folder / name).write_text("no table")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "part.parquet").write_text("no table")
    files = parquet_files(folder)
    assert files.called == (
        *("part-0.parquet", "part-2.parquet", "part-3.parquet", "part-4.parquet"),
        *("part-5.parquet", "part-6.parquet", "year=2025/more/part-1.PARQUET"),
    )
    assert read(folder) == [*range(sum(map(sum, UNEVEN)))]


def test_files_and_folders_may_be_listed(folder, tmp_path):
    some = [str(folder / "part-3.parquet"), folder / "part-1.parquet"]
    files = parquet_files(some)
    assert files.called == ("part-1.parquet", "part-3.parquet")
    assert files.rows.tolist() == [100, 50, 1]
    one = parquet_files(folder / "part-3.parquet")
    assert one.rows.tolist() == [50, 1]
    write(tmp_path / "more", [[5]])
    assert parquet_files([folder, tmp_path / "more"]).rows.sum() == sum(map(sum, UNEVEN)) + 5


def test_distant_files_are_read_as_local_ones(folder):
    local = parquet_files(folder)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/set", recursive=True)
    own = pyarrow.fs.SubTreeFileSystem(str(folder.parent), pyarrow.fs.LocalFileSystem())
    for place, system in (
        ("/bucket/set", memory),
        ("set", own),
        (f"file://{folder}", None),
        (str(folder), pyarrow.fs.LocalFileSystem()),
    ):
        files = parquet_files(place, system)
        assert files.rows.tolist() == local.rows.tolist()
        assert files.identity == local.identity
        module = streamed.module(place, filesystem=system, drop=["number"])
        here = streamed.module(folder, drop=["number"])
        for mine, theirs in zip(module.train_dataloader(), here.train_dataloader(), strict=True):
            assert all(map(np.array_equal, mine, theirs))
    memory.rm("/bucket", recursive=True)


def test_what_a_run_has_logged_within_the_folder_is_no_table(folder):
    rows = parquet_files(folder).rows.sum()
    logged = folder / "lightning_logs" / "version_0" / "metrics.csv"
    logged.parent.mkdir(parents=True)
    logged.write_text("epoch,train/nll\n0,1.0\n")
    assert parquet_files(folder).rows.sum() == rows


def test_a_file_of_two_names_is_read_once(folder, tmp_path):
    """Its rows were read twice, and its twins fell on both sides of the split."""
    rows = parquet_files(folder).rows.sum()
    below = folder / ".." / folder.name
    part = folder / "part-3.parquet"
    for places in ([folder, below], [part, below], [folder, str(part)], [folder / ".", folder]):
        assert parquet_files(places).rows.sum() == rows
    (folder / "part-9.parquet").symlink_to(part)
    (tmp_path / "link").symlink_to(folder)
    assert parquet_files([folder, tmp_path / "link"]).rows.sum() == rows


def test_the_footer_alone_tells_the_rows_and_tells_files_apart(folder, tmp_path):
    files = parquet_files(folder)
    for path, sizes in zip(files.paths, UNEVEN, strict=True):
        told = pq.read_metadata(path)
        rows = [told.row_group(k).num_rows for k in range(told.num_row_groups)]
        assert [*footer(files.filesystem, path).rows] == rows == sizes
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert parquet_files(copy).identity == files.identity
    changed = table(64).to_pandas()
    changed.loc[17, "noise"] = 99.0
    pq.write_table(pa.Table.from_pandas(changed, preserve_index=False), copy / "part-6.parquet")
    assert parquet_files(copy).identity != files.identity


def test_a_long_footer_is_read_whole(tmp_path):
    wide = pa.table({f"column {k:05}": [0.0, 1.0] for k in range(3000)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    files = parquet_files(tmp_path)
    assert len(files.names) == 3000
    assert files.rows.tolist() == [2]


def damaged(folder):
    """Names of damages, what each does to a folder, and what is said of it."""
    part = folder / "part-3.parquet"

    def rewrite(**columns):
        made = table(51).to_pydict()
        pq.write_table(pa.table({**made, **columns}), part)

    def without(name):
        pq.write_table(table(51).drop_columns([name]), part)

    def flip():
        data = bytearray(part.read_bytes())
        data[len(data) // 2 - 200 : len(data) // 2] = b"\xff" * 200
        part.write_bytes(data)

    return {
        "empty": (lambda: part.write_bytes(b""), "got an empty file"),
        "foreign": (lambda: part.write_text("a,b\n1,2\n" * 9), "one that does not end as such"),
        "cut": (lambda: part.write_bytes(part.read_bytes()[:-100]), "does not end as such"),
        "lying footer": (
            lambda: part.write_bytes(part.read_bytes()[-400:-8] + b"\xff\xff\xff\x7fPAR1"),
            "longer than the file",
        ),
        "footer of noise": (
            lambda: part.write_bytes(b"PAR1" + b"\xee" * 300 + b"\x00\x01\x00\x00PAR1"),
            "pyarrow cannot read",
        ),
        "another kind": (lambda: rewrite(noise=["x"] * 51), "'noise' to be of one kind"),
        "a column less": (lambda: without("noise"), "got noise in"),
        "a column more": (lambda: rewrite(more=[1.0] * 51), "got more in"),
        **{
            f"a table in {name}": (
                lambda name=name: (folder / name).write_text("a\n1\n"),
                f"{name}, whose rows would be left out",
            )
            for name in ("more.csv", "MORE.CSV", "more.csv.gz", "more.ndjson", "more.parquet.zst")
        },
        "pages of noise": (flip, "pyarrow cannot read"),
        "infinite": (
            lambda: rewrite(noise=[0.0] * 7 + [np.inf] + [0.0] * 43),
            "row 7 of ",
        ),
        "labels of another kind": (
            lambda: rewrite(label=[*range(51)]),
            "'label' to be of one kind",
        ),
        "nothing": (lambda: shutil.rmtree(folder), "found none"),
        "no file": (
            lambda: [path.unlink() for path in folder.glob("*.parquet")],
            "found none",
        ),
        "a nested column": (
            lambda: (
                [path.unlink() for path in folder.glob("*.parquet")],
                pq.write_table(pa.table({"label": ["a", "b"], "noise": [[1], [2]]}), part),
            ),
            "noise",
        ),
    }


@pytest.mark.parametrize("damage", [*damaged(__import__("pathlib").Path())])
def test_damage_is_one_sentence_before_training(folder, damage):
    act, said = damaged(folder)[damage]
    act()
    with pytest.raises(InputError) as caught:
        streamed.module(folder).known  # noqa: B018 (it is read then)
    sentence = str(caught.value)
    assert said in sentence
    assert "\n" not in sentence
    assert sentence.startswith("expected ")
    assert "; " in sentence


def test_files_that_change_are_refused(folder):
    data = streamed.module(folder)
    loader = data.train_dataloader()
    batches = [*loader]
    path = folder / "part-1.parquet"
    kept, stamp = path.read_bytes(), path.stat()
    pq.write_table(table(100, seed=9), path)
    with pytest.raises(InputError, match=r"part-1\.parquet, which was changed or removed since"):
        list(loader)
    path.unlink()
    with pytest.raises(InputError, match="changed or removed"):
        list(loader)
    path.write_bytes(kept)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    loader.sampler.set_epoch(0)
    for mine, theirs in zip(loader, batches, strict=True):
        assert all(map(np.array_equal, mine, theirs))


def zeros(data):
    """A file of as many bytes, none of which Parquet takes."""
    return bytes(len(data))


def half(data):
    """As a file that is being written looks."""
    return data[: len(data) // 2]


def other(data):
    """As many rows as before, of other numbers."""
    sink = pa.BufferOutputStream()
    rows = pq.read_table(pa.BufferReader(data)).num_rows
    pq.write_table(table(rows, seed=9), sink)
    return sink.getvalue().to_pybytes()


def fewer(data):
    """Another table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table(3), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("served", [0.01, 0.2, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("written", [zeros, half, other, fewer, None])
def test_a_file_that_changes_in_the_midst_of_an_epoch_is_refused(folder, written, served):
    """Wherever the reader, which is ahead of the batches, has got to by then."""
    data = streamed.module(folder, window=1, batch_size=1)
    loader = data.train_dataloader()
    batches, rows = iter(loader), round(served * len(loader))
    assert len([*itertools.islice(batches, rows)]) == rows > 0
    for path in folder.glob("*.parquet"):
        if written is None:
            path.unlink()
        else:
            path.write_bytes(written(path.read_bytes()))
    with pytest.raises(InputError, match="was changed or removed since"):
        list(batches)


def test_fewer_or_other_columns_may_be_named_where_files_differ(folder):
    pq.write_table(table(51).drop_columns(["number"]), folder / "part-3.parquet")
    data = StreamedTableDataModule(folder, "label", features=["noise", "other"])
    assert data.feature_names == ["noise", "other"]
    assert sum(len(y) for _, y in data.train_dataloader()) > 200


def test_types_of_one_kind_may_differ_between_files(folder):
    """Integers here, floating-point numbers there, a dictionary, and a column without a value."""
    made = table(51)
    mixed = pa.table(
        {
            "number": made["number"].cast(pa.int32()),
            "noise": pa.nulls(51),
            "other": made["other"].cast(pa.float32()),
            "label": made["label"].dictionary_encode(),
        }
    )
    pq.write_table(mixed, folder / "part-3.parquet")
    data = streamed.module(folder)
    assert data.feature_names == ["number", "noise", "noise is missing", "other"]
    assert data.class_names == [*streamed.LABELS]
    assert sum(len(y) for _, y in data.train_dataloader()) > 200
