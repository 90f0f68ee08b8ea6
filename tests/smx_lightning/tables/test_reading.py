"""One table out of every kind of file, folder and library, and what cannot be one."""

import bz2
import gzip
import re
import subprocess
import sys

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import tables
from hypothesis import given
from hypothesis import strategies as st

from smx_lightning import InputError
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.fitting import SchemaFit
from smx_lightning.tables.reading import batches, files_of, parts, whole
from smx_lightning.tables.sources.suffixes import OTHERS

SUFFIXES = [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".feather", ".arrow"]


@pytest.fixture(scope="module")
def mixed():
    """Every kind of column, but for the ordered dictionary, which text does not have."""
    return tables.as_text(tables.mixed(60))


def features(table, place=None):
    """The features that a table has by itself."""
    fit = SchemaFit("outcome", weight="share", drop=["id"])
    fit.add(table, **({} if place is None else {"place": place}))
    schema = fit.schema()
    return schema, encoded(schema, table)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_every_kind_is_the_same_table(suffix, mixed, tmp_path):
    path = tables.write(mixed, tmp_path / f"rows{suffix}")
    table, place = whole(path)
    schema, expected = features(mixed)
    found, made = features(table, place)
    assert found == schema
    np.testing.assert_array_equal(made, expected)
    assert place.row(7) == f"row 7 of {path}, counted from 0"
    made = [encoded(schema, p.batch, place=p.place) for p in parts(path, rows=7, schema=schema)]
    assert {len(part) for part in made} <= {7, 4}
    np.testing.assert_array_equal(np.concatenate(made), expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_is_its_files_in_the_order_of_their_names(suffix, mixed, tmp_path):
    folder = tables.write_folder(mixed, tmp_path / "rows", suffix=suffix)
    for name in ("_SUCCESS", ".hidden.csv", "_metadata.parquet", "README.md"):
        (folder / name).write_text("no table")
    (folder / "below.csv").mkdir()
    table, place = whole(folder)
    schema, expected = features(mixed)
    assert features(table, place)[0] == schema
    np.testing.assert_array_equal(encoded(schema, table), expected)
    assert place.row(12) == f"row 2 of {folder / f'part-001{suffix}'}, counted from 0"
    rows = [part.place.row(0) for part in parts(folder, rows=25, schema=schema)]
    assert rows == [
        f"row {k} of {folder / f'part-{n:03}{suffix}'}, counted from 0"
        for k, n in ((0, 0), (0, 1), (0, 2), (25, 2))
    ]


LIBRARIES = {
    "pandas": lambda table: table.to_pandas(),
    "pandas with Arrow's types": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "pandas with an index": lambda table: table.to_pandas().set_index("id", drop=False),
    "polars": pl.from_arrow,
    "polars, lazy": lambda table: pl.from_arrow(table).lazy(),
    "polars' categories": lambda table: pl.from_arrow(table).with_columns(
        pl.col("colour").cast(pl.Categorical)
    ),
    "duckdb": duckdb.from_arrow,
    "Hugging Face": datasets.Dataset,
    "a reader": lambda table: table.to_reader(),
    "a batch": lambda table: table.combine_chunks().to_batches()[0],
    "lists": lambda table: table.to_pydict(),
    "large text": lambda table: table.cast(text(table, pa.large_string())),
    "views of text": lambda table: table.cast(text(table, pa.string_view())),
}


def text(table, type_):
    return pa.schema(f.with_type(type_) if f.type == pa.string() else f for f in table.schema)


@pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)
def test_a_table_of_every_library_is_the_same(make, mixed):
    found, made = features(*whole(make(mixed)))
    schema, expected = features(mixed)
    assert found == schema
    np.testing.assert_array_equal(made, expected)


def test_arrays_of_every_library_are_columns():
    import torch

    source = {"a": np.arange(3), "b": torch.arange(3.0), "c": ("x", None, "y"), 4: [1, 2, 3]}
    table, _ = whole(source)
    assert table.column_names == ["a", "b", "c", "4"]
    assert table.column("c").to_pylist() == ["x", None, "y"]


def test_class_labels_of_hugging_face_have_their_names():
    kinds = datasets.Features(
        {"x": datasets.Value("float32"), "y": datasets.ClassLabel(names=["zeta", "alpha"])}
    )
    given = datasets.Dataset.from_dict({"x": [1.0, 2.0, 3.0], "y": [0, 1, -1]}, features=kinds)
    table, _ = whole(given.select([2, 1, 0]))
    assert table.column("y").to_pylist() == [None, "alpha", "zeta"]


# CSV ---------------------------------------------------------------------------------------------


def csv(tmp_path, content, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_that_must_be_quoted_comes_back(tmp_path):
    table = tables.unicode_names()
    path = tables.write(table, tmp_path / "rows.csv")
    assert whole(path)[0].to_pydict() == table.to_pydict()


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=4)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), CELLS.filter(str.strip))
def test_cells_are_what_pandas_reads(rows, name):
    import tempfile
    from pathlib import Path

    frame = pd.DataFrame(rows, columns=[f"1{name}", "b"])
    frame.insert(0, "n", 1.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        frame.to_csv(path, index=False, quoting=1)
        table, _ = whole(path, kinds={f"1{name}": "category", "b": "category"})
        assert table.num_rows == len(rows)
        judge = pd.read_csv(path, dtype=str)
    for column in frame.columns[1:]:
        expected = [None if isinstance(v, float) else v for v in judge[column]]
        assert table.column(column).to_pylist() == expected


def test_empty_cells_and_their_words_are_missing(tmp_path):
    words = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", '""', '"NA"', "#N/A"]
    content = "x,c\n1,word\n" + "".join(f"{word},{word}\n" for word in words)
    table, _ = whole(csv(tmp_path, content))
    assert table.column("x").to_pylist() == [1, *[None] * len(words)]
    assert table.column("c").to_pylist() == ["word", *[None] * len(words)]


def test_what_a_column_holds_is_told_by_all_rows(tmp_path):
    rows = 300_000  # several blocks of text
    lines = [f"{k},{k},2020-01-01" for k in range(rows)]
    lines += ["1.5,word,2020-01-02"]
    table, _ = whole(csv(tmp_path, "x,c,d\n" + "\n".join(lines)))
    assert [str(field.type) for field in table.schema] == ["double", "string", "date32[day]"]


def test_a_schema_says_how_text_is_read(tmp_path):
    schema = Schema(
        (
            Column("zip", "category", categories=("01", "2")),
            Column("yes", "boolean"),
            Column("x"),
            Column("day", "date", unit="D"),
        )
    )
    path = csv(tmp_path, "x,yes,zip,day,more\n1,1,01,2020-01-01,a\n2.5,0,2,2020-01-02T00:00,b\n")
    for table in (whole(path, schema=schema)[0], *batches(path, schema=schema)):
        expected = [[1, 0, 1, 1, 18262], [0, 1, 0, 2.5, 18263]]
        np.testing.assert_array_equal(encoded(schema, table), expected)


def test_kinds_say_how_text_is_read(tmp_path):
    path = csv(tmp_path, "zip,b\n01,2\n02,3\n")
    assert whole(path, kinds={"zip": "category"})[0].column("zip").to_pylist() == ["01", "02"]
    assert whole(path)[0].column("zip").to_pylist() == [1, 2]


def test_a_byte_order_mark_and_other_ends_of_lines_are_no_part_of_a_table(tmp_path):
    for content in ("\ufeffa,b\n1,2\n", "a,b\r\n1,2\r\n", "a,b\n1,2", '"a","b"\n1,2\n'):
        assert whole(csv(tmp_path, content))[0].to_pydict() == {"a": [1], "b": [2]}


def test_semicolons_and_commas_are_told(tmp_path):
    path = csv(tmp_path, "größe;art\n1,5;rot\n2,5;blau\n")
    message = r"got a header without any, and with a semicolon: größe;art; give separator=';' and"
    with pytest.raises(InputError, match=message):
        whole(path)
    table, _ = whole(path, separator=";", decimal=",")
    assert table.to_pydict() == {"größe": [1.5, 2.5], "art": ["rot", "blau"]}


def test_compressed_text_is_read(tmp_path):
    for name, packed in (("a.csv.gz", gzip.compress), ("a.csv.bz2", bz2.compress)):
        assert whole(csv(tmp_path, packed(b"a,b\n1,2\n"), name))[0].to_pydict() == {
            "a": [1],
            "b": [2],
        }


NO_TABLE = {
    "empty": ("", "header with the names of the columns in the first line of …, got an empty file"),
    "an empty line": ("\n\n", "got an empty line; save it again"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "expected text in UTF-8 in …, got UTF-16"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), "expected text in UTF-8 in …"),
    "names in Latin-1": (
        "Größe,b\n1,2\n".encode("latin-1"),
        "expected text in UTF-8 in …, got names",
    ),
    "a decimal comma": (
        'n,x\n1,"2,5"\n',
        "expected numbers in column 'x', got '2,5' in row 0 of …; give decimal=','; or correct it",
    ),
    "tabs": ("a\tb\n1\t2\n", "and with a tab: a\\tb; give separator='\\t'"),
    "a long row": ("a,b\n1,2\n1,2,3\n", "expected 2 cells in each row, … got 3 in row 1 of …"),
    "a short row": ("a,b\n1,2\n1\n", "expected 2 cells in each row, … got 1 in row 1 of …"),
    "a word among numbers": (
        "n,x\n1,2\n1,2\n1,two\n",
        "expected numbers in column 'x', got 'two' in row 2 of …; correct it, leave the cell empty",
    ),
    "no boolean": (
        "n,b\n1,yes\n",
        "expected booleans (true, false, 1, 0) in column 'b', got 'yes' in row 0 of …",
    ),
}


@pytest.mark.parametrize(("content", "message"), NO_TABLE.values(), ids=NO_TABLE)
def test_text_that_is_no_table_is_refused_in_one_sentence(content, message, tmp_path):
    path = csv(tmp_path, content)
    kinds = {"x": "number"} if b"x" in path.read_bytes() else {}
    kinds |= {"b": "boolean"} if b"yes" in path.read_bytes() else {}
    for read in (whole, lambda *a, **k: [*batches(*a, **k)]):
        with pytest.raises(InputError) as caught:
            read(path, kinds=kinds)
        said = str(caught.value)
        assert "\n" not in said
        at = 0
        for part in message.split("…"):
            at = said.index(part, at)
        assert str(path) in said


# What cannot be read -----------------------------------------------------------------------------

BYTES = {
    "empty": b"",
    "text": b"<html>404 Not Found</html>\n",
    "random": np.random.default_rng(0).bytes(3000),
    "magic alone": b"PAR1ARROW1",
    "zeros": b"PAR1" + bytes(1000) + b"PAR1",
    "arrow": b"ARROW1\0\0" + bytes(1000) + b"ARROW1",
    "a stream": b"\xff\xff\xff\xff" + b"x" * 100,
}


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".csv.gz"])
@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
def test_damaged_files_are_refused_in_one_sentence(content, suffix, tmp_path):
    path = csv(tmp_path, content, f"rows{suffix}")
    for read in (whole, lambda path: [*batches(path)]):
        with pytest.raises(InputError, match=r"^expected [^\n]+$") as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow", ".csv.gz"])
def test_files_cut_short_are_refused_or_whole(suffix, mixed, tmp_path):
    content = tables.write(mixed, tmp_path / f"whole{suffix}").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path = csv(tmp_path, content[: int(len(content) * share)], f"cut{suffix}")
        with pytest.raises(InputError, match=r"^expected [^\n]+; [^\n]+$"):
            whole(path)


LEFT_OUT = ["below/rows.parquet", "year=1/month=2/rows.csv.gz", *(f"rows{s}" for s in OTHERS)]
LEFT_OUT += ["rows.parquet.gz", "ROWS.JSON", "rows.ndjson.zst"]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_no_rows_of_a_folder_are_left_out_in_silence(name, mixed, tmp_path):
    """Half of a folder was predicted, without a word, which the stream had read whole."""
    folder = tables.write_folder(mixed, tmp_path / "rows", suffix=".parquet")
    other = folder / name
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"got {re.escape(name)}, whose rows would be left out"):
        files_of(folder)
    top = folder / name.split("/")[0]
    top.rename(folder / f"_{top.name}")  # the remedy
    assert len(files_of(folder)) == 3


A_RUN = ("lightning_logs/version_0/metrics.csv", "model.onnx")  # a second fit in one folder


def test_what_is_no_table_may_lie_beside_tables(mixed, tmp_path):
    folder = tables.write_folder(mixed, tmp_path / "rows", suffix=".parq")
    for name in ("below/readme.txt", "below/.old.csv", "_old/rows.csv", "figure.png", *A_RUN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("no table")
    assert len(files_of(folder)) == 3


def test_what_is_no_source_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    for source, message in (
        (tmp_path / "absent.csv", "expected a table at …, found no file; check the path"),
        (tmp_path / "empty", "in the folder …, found nothing; point at the folder"),
        (tmp_path / "rows.xlsx", "expected a table in a file of .csv, …; save it as one of these"),
        (tmp_path, "in the folder …, found empty, rows.xlsx; point"),
        (3, "a path, a dict of columns or a data frame, got int"),
        (None, "got NoneType"),
        ([1, 2], "got list"),
        (np.zeros((3, 2)), "got ndarray"),
        ({"a": [1, 2], "b": [1]}, "got a dict of which pyarrow says: …length"),
        ({"a": np.zeros((2, 2))}, "columns of shape (rows,), got (2, 2) in column 'a'"),
        ({"a": [1, "x"]}, "columns of one type each, got a dict"),
        (pd.DataFrame({"a": [1, "x"]}), "columns of one type each, got a DataFrame"),
        (pd.DataFrame({"a": [10**30]}, dtype=object), "one type each, got a DataFrame"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "one type, a name of its own"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.Series([1, 2]), "got a Series"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({})}), "a DatasetDict of train"),
    ):
        with pytest.raises(InputError) as caught:
            whole(source)
        said, at = str(caught.value), 0
        assert "\n" not in said
        for part in message.split("…"):
            at = said.index(part, at)


def test_files_of_one_table_have_the_same_columns(tmp_path):
    def folder(**files):
        made = tmp_path / "-".join(files)
        made.mkdir(exist_ok=True)
        for name, table in files.items():
            tables.write(pa.table(table), made / f"{name}.parquet")
        return made

    good = {"x": [1, 2], "c": ["a", "b"]}
    for other, message in (
        ({"x": [1.5]}, "got c in …a.parquet and not in …b.parquet; give the files"),
        ({**good, "z": [1, 2]}, "got z in …b.parquet and not in …a.parquet"),
        ({"x": ["1"], "c": ["a"]}, "column 'x' to be of one kind in all files, got number in …a.p"),
        ({"x": [1], "c": [True]}, "got category in …a.parquet and boolean in …b.parquet; write o"),
    ):
        for read in (whole, lambda path: [*batches(path)]):
            with pytest.raises(InputError) as caught:
                read(folder(a=good, b=other))
            said, at = str(caught.value), 0
            for part in message.split("…"):
                at = said.index(part, at)
    alike = {
        "c": pa.array(["b", "c"]).dictionary_encode(),
        "x": pa.array([1.5, None], pa.float32()),
    }
    table, _ = whole(folder(a=good, b=alike, c={"x": pa.nulls(1), "c": ["d"]}))
    assert table.to_pydict() == {"x": [1, 2, 1.5, None, None], "c": ["a", "b", "b", "c", "d"]}


def test_kinds_say_what_text_files_that_differ_hold(tmp_path):
    """The remedy for text; Parquet files have types, and one of them is to be written again."""
    for name, content in {"a": "x,c\n1,2\n", "b": "x,c\na,2\n"}.items():
        csv(tmp_path, content, f"{name}.csv")
    with pytest.raises(InputError, match=r"say which with kinds=\{'x': 'category'\}, or write"):
        whole(tmp_path)
    table, _ = whole(tmp_path, kinds={"x": "category"})
    assert table.column("x").to_pylist() == ["1", "a"]
    durations = tmp_path / "durations"
    durations.mkdir()
    for name, kind in {"a": pa.duration("s"), "b": pa.int64()}.items():
        tables.write(pa.table({"x": pa.array([1, 2], kind)}), durations / f"{name}.parquet")
    with pytest.raises(InputError, match=r"got number in \S+ in .*a\.parquet and number in .*b\.p"):
        whole(durations)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    csv(tmp_path, "a,b\n1,2\n")
    assert files_of("~/rows.csv") == [tmp_path / "rows.csv"]


def test_a_table_without_rows_is_one(tmp_path):
    for suffix in SUFFIXES:
        path = tables.write(tables.header_only(), tmp_path / f"rows{suffix}")
        assert whole(path)[0].num_rows == 0
        (batch,) = batches(path)
        assert (batch.num_rows, batch.schema.names) == (0, ["number", "label"])


def test_pyarrow_is_asked_for_in_one_sentence():
    code = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from smx_lightning.tables.reading import batches\n"
        "try:\n"
        "    next(batches('a.csv'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "assert not {'torch', 'lightning'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "expected pyarrow, which tables need, found none; pip install 'smx-lightning[tables]' "
        "brings it\n"
    )
