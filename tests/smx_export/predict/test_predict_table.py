"""``smx-export predict`` of tables: encoded by the schema in the file, own columns kept, in order.

The judge is :mod:`encoded_by_hand`: pandas and numpy, and no line of ours.
"""

import csv
import itertools
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tables
import torch
from encoded_by_hand import CLASSES, SCHEMA, features, model_of, probabilities
from tools import ROOT

from smx_export import export_onnx
from smx_export import predict as predict_module
from smx_export.__main__ import main
from smx_export.errors import TableWarning
from smx_export.predict import predict
from smx_export.predict.tables import TableOptions
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.tables import Column, Schema

ANSWERS = ["row", "class", *(f"p({name})" for name in CLASSES)]


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("table") / "m.onnx").path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def rows():
    """Every category is known, and every value is there or missing."""
    return tables.mixed(300)


def read(path="out.csv"):
    with Path(path).open(newline="", encoding="utf-8") as given:
        header, *found = csv.reader(given)
    return header, [*zip(*found, strict=True)]


def assert_right(model, table, path="out.csv", kept=()):
    """Class and probabilities of every row, in order."""
    truth = probabilities(model, features(table))
    header, columns = read(path)
    assert header == [ANSWERS[0], *kept, *ANSWERS[1:]]
    found = dict(zip(header, columns, strict=True))
    assert found["row"] == tuple(map(str, range(table.num_rows)))
    assert found["class"] == tuple(CLASSES[k] for k in truth.argmax(1))
    got = np.stack([np.array(found[name], float) for name in ANSWERS[2:]], 1)
    np.testing.assert_allclose(got, truth, rtol=2e-4, atol=1e-6)


FILES = ["t.csv", "t.parquet", "t.feather", "folder of .parquet", "folder of .csv"]


def written(table, name):
    """The table as a file of a name, or as a folder of several."""
    if not name.startswith("folder"):
        return tables.write(table, Path(name))
    return tables.write_folder(table, Path("t"), suffix=name.split()[-1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_a_table_is_encoded_by_the_schema_in_the_file(name, model, file, rows, here):
    """Without gaps in text, which CSV files of several tools tell from nothing or do not."""
    whole = rows.filter(pa.compute.and_(rows["colour"].is_valid(), rows["size"].is_valid()))
    path = written(whole, name)
    assert predict(file, path, "out.csv", table=TableOptions("none")) == whole.num_rows
    assert_right(model, whole)


@pytest.mark.parametrize("name", ["t.parquet", "t.feather"])
def test_gaps_are_filled_as_in_training(name, model, file, rows, here):
    assert sum(column.null_count for column in rows.columns) > 100
    predict(file, written(rows, name), "out.csv", table=TableOptions("none"))
    assert_right(model, rows)


def test_columns_are_found_by_name_in_any_order(model, file, rows, here):
    order = [*np.random.default_rng(0).permutation(rows.column_names), "more"]
    other = rows.append_column("more", pa.array(range(300))).select(order)
    predict(file, written(other, "t.parquet"), "out.csv", table=TableOptions("none"))
    assert_right(model, rows)


def test_own_columns_are_kept_and_read_as_the_same_values(file, rows, here):
    path = written(rows, "t.parquet")
    assert main(["predict", str(file), str(path), "out.csv"]) == 0
    header, columns = read()
    assert header == ["row", *rows.column_names, *ANSWERS[1:]]
    found = dict(zip(header, columns, strict=True))
    assert found["id"] == tuple(rows["id"].to_pylist())
    for name in ("age", "share"):
        given = [None if text == "" else float(text) for text in found[name]]
        assert given == rows[name].to_pylist()  # to the last digit
    assert found["smokes"] == tuple({None: "", True: "true", False: "false"}[v.as_py()]
                                    for v in rows["smokes"])  # fmt: skip
    assert found["born"] == tuple("" if v.as_py() is None else v.as_py().isoformat()
                                  for v in rows["born"])  # fmt: skip
    float32 = [np.float32(text) for name in ANSWERS[2:] for text in found[name]]
    predict(file, path, "out.parquet", table=TableOptions("none"))
    exact = pq.read_table("out.parquet")
    assert float32 == [v for name in ANSWERS[2:] for v in exact[name].to_numpy()]


def test_parquet_keeps_the_types(model, file, rows, here):
    path = written(rows, "t.parquet")
    predict(file, path, "out.parquet")
    found, given = pq.read_table("out.parquet"), pq.read_table(path)
    assert found.column_names == ["row", *rows.column_names, *ANSWERS[1:]]
    for name in rows.column_names:
        assert found[name].type == given[name].type
        assert found[name].to_pylist() == rows[name].to_pylist()
    assert [found[name].type for name in ANSWERS] == [pa.int64(), pa.string(), *[pa.float32()] * 3]
    truth = probabilities(model, features(rows))
    assert found["class"].to_pylist() == [CLASSES[k] for k in truth.argmax(1)]
    assert found["row"].to_pylist() == [*range(300)]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", ["id", 'a, "b"', "age"]),
        ("none", []),
        ("age", ["age"]),
        ("age,id", ["age", "id"]),
        ('"a, ""b""",id', ['a, "b"', "id"]),
    ],
)
def test_columns_to_keep_are_named(keep, kept, here, capsys):
    schema = Schema((Column("age"),))
    path = export_onnx(SoftmaxRegression(1, 2, schema=schema), "m.onnx").path
    table = pa.table({"id": ["u", "v"], 'a, "b"': ["x", "y"], "age": [1.5, 2.5]})
    tables.write(table, here / "t.parquet")
    assert main(["predict", str(path), "t.parquet", "out.csv", "--keep", keep]) == 0
    assert read()[0] == ["row", *kept, "class", "p(0)", "p(1)"]
    assert capsys.readouterr().err == ""


def test_many_rows_are_answered_in_blocks(model, file, rows, here, monkeypatch):
    path = written(rows, "t.parquet")
    for output in ("one.csv", "one.parquet"):
        predict(file, path, output)
    monkeypatch.setattr(predict_module, "BLOCK_NUMBERS", 7 * len(SCHEMA.feature_names))
    for output in ("many.csv", "many.parquet"):
        predict(file, path, output)
    assert (here / "many.csv").read_bytes() == (here / "one.csv").read_bytes()
    assert pq.read_table("many.parquet").equals(pq.read_table("one.parquet"))
    assert pq.ParquetFile("many.parquet").num_row_groups > 40


# What the answers are called -------------------------------------------------------------------


def test_ours_give_way_to_the_table_s_own_names_and_it_is_said(here, capsys):
    path = export_onnx(SoftmaxRegression(1, 2, schema=Schema((Column("age"),))), "m.onnx").path
    names = ["row", "class", "p(1)", "predicted class", "age"]
    table = pa.table([[7.0, 8.0]] * 5, names=names)
    tables.write(table, here / "t.parquet")
    ours = ["predicted row", "predicted predicted class", "p(0)", "predicted p(1)"]
    for output in ("out.csv", "out.parquet"):
        assert main(["predict", str(path), "t.parquet", output]) == 0
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert "'class' as 'predicted predicted class'" in said
    assert read()[0] == [ours[0], *names, *ours[1:]]
    assert pq.read_table("out.parquet").column_names == [ours[0], *names, *ours[1:]]
    predict(path, "t.parquet", "out.csv", table=TableOptions(["age"]))  # nothing has to give way
    assert read()[0] == ["row", "age", "class", "p(0)", "p(1)"]


HOSTILE = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-2+3", 'a"b', "a,b", "a\nb", "žluť 🍷", "\t=1"]


def test_no_spreadsheet_takes_a_name_or_a_value_for_a_formula(here):
    schema = Schema(tuple(map(Column, HOSTILE)))
    model = SoftmaxRegression(len(HOSTILE), 2, schema=schema, class_names=["=1+1", "b"])
    path = export_onnx(model, "m.onnx").path
    text = pa.array(HOSTILE[:2])
    table = pa.table([text, *[[1.0, -2.0]] * len(HOSTILE)], names=["text", *HOSTILE])
    tables.write(table, here / "t.parquet")
    predict(path, "t.parquet", "out.csv")
    header, columns = read()
    for cell in itertools.chain(header, *columns):
        assert not cell.startswith(("=", "@", "+", "\t"))
        assert not cell.startswith("-") or float(cell) < 0
    assert columns[1] == tuple(f"'{name}" for name in HOSTILE[:2])
    predict(path, "t.parquet", "out.parquet")  # where nothing has to be quoted
    assert pq.read_table("out.parquet").column_names[1:-3] == ["text", *HOSTILE]


# Files that name their features alone, or not at all -------------------------------------------


@pytest.fixture
def numbers(here):
    x = np.random.default_rng(0).normal(size=(20, 3))
    table = pa.table(x.T.copy().tolist(), names=["c", "a", "b"])
    tables.write(table, here / "t.parquet")
    return table


def plain(**arguments):
    model = SoftmaxRegression(3, 2, **arguments)
    model.linear.weight.data.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]]))
    return model


def test_a_file_with_names_alone_takes_numbers_by_name(numbers, recwarn):
    model = plain(feature_names=["a", "b", "c"])
    predict(export_onnx(model, "m.onnx").path, "t.parquet", "out.csv", table=TableOptions("none"))
    x = np.stack([numbers[name].to_numpy() for name in "abc"], 1)
    np.testing.assert_allclose(np.array(read()[1][2:], float).T, probabilities(model, x), atol=1e-6)
    assert len(recwarn) == 0


def test_a_file_without_names_takes_as_many_columns_in_their_order_and_says_so(numbers):
    model = plain()
    path = export_onnx(model, "m.onnx").path
    with pytest.warns(TableWarning, match="in their order were taken c, a, b"):
        predict(path, "t.parquet", "out.csv", table=TableOptions("none"))
    x = np.stack([numbers[name].to_numpy() for name in "cab"], 1)
    np.testing.assert_allclose(np.array(read()[1][2:], float).T, probabilities(model, x), atol=1e-6)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda t: t.append_column("more", pa.array([0.0] * 20)), "got 4: c, a, b, more; leave"),
        (lambda t: t.drop_columns(["a"]), "got 2: c, b; leave out what is no feature"),
        (lambda t: t.set_column(1, "a", pa.array(["x"] * 20)), "column 'a'"),
        (lambda t: t.set_column(1, "a", pa.array([True] * 20)), "column 'a'"),
        (lambda t: t.rename_columns(["a", "a", "b"]), "got 3: a, a, b; leave out"),
    ],
)
def test_columns_that_may_be_others_are_refused(other, words, numbers, here):
    tables.write(other(numbers), here / "t.parquet")
    path = export_onnx(plain(), "m.onnx").path
    with pytest.raises(ValueError, match=words):
        predict(path, "t.parquet", "out.csv")
    assert not (here / "out.csv").exists()


# What does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("none.csv out.csv", "expected a table at none.csv, found no file; check the path"),
        ("t.parquet out.csv --keep x", "expected one column 'x' in t.parquet to keep, got none"),
        ("t.parquet t.parquet", "expected a file of its own for each of"),
        ("x.npy out.csv --keep all", "expected a table of which columns are kept, got x.npy"),
        ("t.parquet out.xlsx", "expected a .csv or a .parquet file to write, got out.xlsx"),
        ("t.parquet out.csv.gz", "which a program would take for what .gz says"),
        ("t.parquet no/out.parquet", "choose a folder that exists"),
        (". out.csv", "which would be a part of the table the next time; choose another folder"),
        ("t.parquet out.csv --nan raise", "got none in row 1 of t.parquet, counted from 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(arguments, words, here, capsys):
    schema = Schema((Column("age"),))  # a missing value is refused
    path = export_onnx(SoftmaxRegression(1, 2, schema=schema), "m.onnx").path
    tables.write(pa.table({"age": [1.0, None]}), here / "t.parquet")
    np.save("x.npy", np.zeros((2, 1)))
    before = sorted(here.iterdir())
    assert main(["predict", str(path), *arguments.split()]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert sorted(here.iterdir()) == before


def test_a_missing_value_without_a_fill_has_no_answer_where_that_is_asked_for(here):
    path = export_onnx(plain(feature_names=["a", "b", "c"]), "m.onnx").path
    table = pa.table({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 3.0], "c": [1, 2, 3]})
    tables.write(table, here / "t.parquet")
    with pytest.raises(ValueError, match=r"'?a'?.* row 1|row 1.*'?a'?"):
        predict(path, "t.parquet", "out.csv")
    for output in ("out.csv", "out.parquet"):
        predict(path, "t.parquet", output, table=TableOptions("none"), on_nan="missing")
    assert [row == "" for row in read()[1][1]] == [False, True, False]
    found = pq.read_table("out.parquet")
    assert found["class"].is_null().to_pylist() == [False, True, False]
    assert np.isnan(found["p(0)"].to_numpy()).tolist() == [False, True, False]


def test_unknown_categories_are_counted_aloud(here, capsys, monkeypatch):
    monkeypatch.setattr(predict_module, "BLOCK_NUMBERS", 2)
    schema = Schema((Column("c", "category", True, categories=("red",), other=("grey",)),))
    path = export_onnx(SoftmaxRegression(3, 2, schema=schema), "m.onnx").path
    words = ["red", "blue", "grey", None, "blue", "Red", "red"]
    tables.write(pa.table({"c": words}), here / "t.parquet")
    assert main(["predict", str(path), "t.parquet", "out.csv"]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "got others in rows of 'c': 3 (blue, Red), of 7 rows" in said


def test_a_gap_where_training_had_none_is_filled_and_said(here, capsys):
    path = export_onnx(plain(schema=Schema(tuple(Column(c, fill=1.0) for c in "abc"))), "m.onnx")
    tables.write(pa.table({"a": [1.0, None], "b": [1.0, 1.0], "c": [1.0, 1.0]}), here / "t.parquet")
    assert main(["predict", str(path.path), "t.parquet", "out.csv", "--keep", "none"]) == 0
    said = capsys.readouterr().err
    assert "got none in rows of 'a': 1, of 2 rows; the mean" in said
    columns = read()[1]
    assert {*map(len, map(set, columns[1:]))} == {1}  # both rows are answered alike


def test_a_table_of_no_rows_is_a_file_of_no_rows(file, rows, here):
    written(rows.slice(0, 0), "t.parquet")
    for output in ("out.csv", "out.parquet"):
        assert predict(file, "t.parquet", output, table=TableOptions("id")) == 0
    assert (here / "out.csv").read_text() == ",".join(["row", "id", *ANSWERS[1:]]) + "\n"
    assert pq.read_table("out.parquet").num_rows == 0


@pytest.mark.parametrize(
    "values", [[[1], [2]], [{"a": 1}, {"a": 2}], [b"\xff", b"a"]], ids=["lists", "records", "bytes"]
)
def test_what_a_cell_cannot_hold_goes_to_parquet(values, here):
    path = export_onnx(SoftmaxRegression(1, 2, feature_names=["age"]), "m.onnx").path
    tables.write(pa.table({"age": [1.0, 2.0], "more": values}), here / "t.parquet")
    with pytest.raises(
        InputError, match=r"'more'; leave it out with --keep .*, or write a \.parquet"
    ):
        predict(path, "t.parquet", "out.csv")
    assert not (here / "out.csv").exists()
    predict(path, "t.parquet", "out.csv", table=TableOptions("age"))  # the remedies
    predict(path, "t.parquet", "out.parquet")
    assert pq.read_table("out.parquet")["more"].to_pylist() == values


# On a machine of one's own ---------------------------------------------------------------------

HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from smx_export.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def without(names, *arguments):
    return subprocess.run(
        [sys.executable, "-c", HIDDEN.format(names=names), *map(str, arguments)],
        capture_output=True, text=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_neither_torch_nor_pandas_is_needed(model, file, rows, here):
    path = written(rows, "t.parquet")
    done = without(["torch", "lightning", "pandas", "sklearn"], "predict", file, path, "out.csv")
    assert (done.returncode, done.stderr) == (0, "")
    done = without(["torch", "pandas"], "predict", file, path, "out.csv", "--keep", "none")
    assert_right(model, rows)


@pytest.mark.parametrize("arguments", ["t.csv out.csv", "x.npy out.parquet"])
def test_without_pyarrow_it_says_what_to_install(arguments, file, rows, here):
    written(rows, "t.csv")
    np.save("x.npy", np.zeros((2, len(SCHEMA.feature_names))))
    done = without(["pyarrow"], "predict", file, *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "smx-export: expected pyarrow, which tables need, found none; pip install "
        "'smx-lightning[tables]' brings it\n"
    )
    done = without(["pyarrow"], "predict", file, "x.npy", "out.csv")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bar_is_drawn_on_a_terminal_and_taken_away(file, rows, here):
    written(rows, "t.parquet")
    script = (
        "import sys, smx_export.predict as p, smx_export.commands.progress as q\n"
        "p.BLOCK_NUMBERS = 800; q.BETWEEN = 0.0\n"
        "from smx_export.__main__ import main\n"
        "sys.exit(main(['predict', sys.argv[1], 't.parquet', 'out.csv']))"
    )
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, stderr=follower,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
    )  # fmt: skip
    os.close(follower)
    drawn = os.read(leader, 1 << 20).decode()
    os.close(leader)
    assert (done.returncode, done.stdout) == (0, b"wrote out.csv (300 rows)\n")
    steps = drawn.split("\r")
    assert "[████████████            ] 150 of 300 rows" in [step.rstrip() for step in steps]
    assert steps[-2:] == [" " * len(steps[-3]), ""]


@pytest.mark.whole
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_rows(suffix, tmp_path):
    """Peak memory of 1e6 rows is that of 1e5, within 60 MB."""
    schema = Schema((*(Column(f"x{k}") for k in range(5)),
                     Column("colour", "category", categories=tables.COLOURS)))  # fmt: skip
    file = export_onnx(SoftmaxRegression(8, 3, schema=schema), tmp_path / "m.onnx").path
    table = tables.many_rows()
    peaks = []
    for rows in (10**5, 10**6):
        tables.write(table.slice(0, rows), tmp_path / f"t{suffix}")
        script = (
            "import resource, sys\nfrom smx_export.predict import predict\n"
            "print(predict(*sys.argv[1:], patience=1e9),"
            "      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(file), str(tmp_path / f"t{suffix}"),
             str(tmp_path / f"out{suffix}")],
            capture_output=True, text=True, check=True,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "OMP_NUM_THREADS": "1",
                 "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )  # fmt: skip
        count, peak = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 60_000


def test_what_a_csv_file_says_stays_as_it_is_written(here):
    """Leading zeros are no number's; to Parquet columns go as what they look like."""
    path = export_onnx(SoftmaxRegression(1, 2, feature_names=["age"]), "m.onnx").path
    cells = ["007", "1e3", "true", "2020-01-01", "1.50", "NA", "ü, x"]
    names = ["id", "e", "b", "day", "price", "gap", "text"]
    quoted = [f'"{cell}"' if "," in cell else cell for cell in cells]
    lines = [",".join([*names, "age"]), *[",".join([*quoted, "1.5"])] * 2]
    (here / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    predict(path, "t.csv", "out.csv")
    _, columns = read()
    cells[names.index("gap")] = ""
    assert [column[0] for column in columns[1:8]] == cells
    predict(path, "t.csv", "out.parquet")
    found = pq.read_table("out.parquet")
    assert found["price"].to_pylist() == [1.5, 1.5]
    assert found["b"].to_pylist() == [True, True]


def test_csv_files_of_other_countries(here, capsys):
    path = str(export_onnx(SoftmaxRegression(1, 2, feature_names=["age"]), "m.onnx").path)
    (here / "t.csv").write_text("id;age\n1;1,5\n", encoding="utf-8")
    assert main(["predict", path, "t.csv", "out.csv"]) == 2
    assert "separator=';'" in capsys.readouterr().err
    asked = ["predict", path, "t.csv", "out.csv", "--separator", ";", "--decimal", ","]
    assert main(asked) == 0
    assert read()[1][1:3] == [("1",), ("1.5",)]


@pytest.mark.whole
def test_a_column_that_changes_its_mind_is_text_or_left_out(here):
    """Later blocks of a CSV file may hold what the first one did not."""
    path = export_onnx(SoftmaxRegression(1, 2, feature_names=["age"]), "m.onnx").path
    lines = ["age,id", *["1.5,1234567"] * 500_000, "1.5,x1"]
    (here / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    predict(path, "t.csv", "out.csv")
    assert read()[1][1 + 1][-1] == "x1"
    with pytest.raises(InputError, match="column 'id', got 'x1' in row 500000 of"):
        predict(path, "t.csv", "out.parquet")
    assert predict(path, "t.csv", "out.parquet", table=TableOptions("age")) == 500_001


def test_arrays_and_the_most_probable_classes_go_to_parquet_too(here):
    model = SoftmaxRegression(4, 5, class_names=["a", "b", "c", "d", "é"])
    model.linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x = np.random.default_rng(0).normal(size=(30, 4))
    np.save("x.npy", x)
    path = export_onnx(model, "m.onnx", top_k=2).path
    assert predict(path, "x.npy", "out.parquet") == 30
    found = pq.read_table("out.parquet")
    assert found.column_names == ["row", "class", "top 1", "p(top 1)", "top 2", "p(top 2)"]
    truth = probabilities(model, x)
    order = np.argsort(-truth, 1)
    for rank in (0, 1):
        names = [model.class_names[k] for k in order[:, rank]]
        assert found[f"top {rank + 1}"].to_pylist() == names
        expected = np.take_along_axis(truth, order, 1)[:, rank]
        np.testing.assert_allclose(found[f"p(top {rank + 1})"].to_numpy(), expected, atol=1e-6)
    assert found["class"].to_pylist() == found["top 1"].to_pylist()
