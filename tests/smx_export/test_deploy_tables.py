"""The kit of numpy alone on CSV files: encoded with Python's csv, held against Arrow's reading."""

import csv
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import tables
from encoded_by_hand import model_of
from kits import DEPLOY, Said, run

from smx_export import export_onnx
from smx_export.predict import predict
from smx_lightning import SoftmaxRegression
from smx_lightning.tables import Column, Schema


@pytest.fixture
def kit(tmp_path):
    """The kit with the file of a model, and an answer to a table."""

    def asked(model, table):
        folder = tmp_path / "kit"
        if not folder.exists():
            shutil.copytree(DEPLOY / "python", folder, ignore=shutil.ignore_patterns("__pycache__"))
            export_onnx(model, folder / "model.onnx")
        if not isinstance(table, str):
            table = tables.write(table, folder / "rows.csv").read_text("utf-8")
        (folder / "rows.csv").write_text(table, encoding="utf-8")
        return folder, Said.of(
            run(sys.executable, "classify.py", "model.onnx", "rows.csv", folder=folder)
        )

    return asked


def answers(folder):
    """What ``smx-export predict`` says: names, and the probabilities of these."""
    predict(folder / "model.onnx", folder / "rows.csv", folder / "out.csv")
    with (folder / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    return [row["class"] for row in rows], [float(row[f"p({row['class']})"]) for row in rows]


def test_a_table_is_encoded_by_the_schema_in_the_file(kit):
    rows = tables.mixed(120)
    assert rows["age"].null_count
    folder, said = kit(model_of(), rows.select(rows.column_names[::-1]))
    names, probs = answers(folder)
    assert (said.refusal, said.warning) == ("", "")
    assert [name for name, _ in said.answers] == names
    np.testing.assert_allclose([p for _, p in said.answers], probs, atol=2e-5)


DATES = ["1969-12-31", "2020-02-29"]
TIMES = ["1969-12-31T23:59:59", "2020-02-29 12:34:56", "2020-02-29T12:34:56Z"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_dates_are_numbers_in_the_schema_s_unit(unit, kit):
    scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    schema = Schema((Column("t", "date", unit=unit), Column("d", "date", unit="D")))
    model = SoftmaxRegression(2, 2, schema=schema)
    model.linear.weight.data[:] = 1e-4
    model.linear.weight.data[0, 0], model.linear.weight.data[1, 0] = 1e-9 / scale, -1e-9 / scale
    lines = ["t,d", *(f"{t},{d}" for t in TIMES[:2] for d in DATES)]
    folder, said = kit(model, "\n".join(lines))
    names, probs = answers(folder)
    assert [name for name, _ in said.answers] == names
    np.testing.assert_allclose([p for _, p in said.answers], probs, atol=2e-6)
    assert len({*probs}) > 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("age\n1\n", "a table without column 'c'"),
        ("age,c\nold,red\n", "'old' in column 'age', which holds a number a row"),
        ("age,c\n,red\n", "'' in column 'age'"),
        ("age,c\ninf,red\n", "'inf' in column 'age'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(table, words, kit):
    schema = Schema((Column("age"), Column("c", "category", categories=("red",))))
    said = kit(SoftmaxRegression(2, 2, schema=schema), table)[1]
    assert said.answers == []
    assert words in said.refusal


def test_unknown_categories_are_counted_and_names_alone_will_do(kit):
    schema = Schema((Column("age"), Column("c", "category", categories=("red",))))
    said = kit(SoftmaxRegression(2, 2, schema=schema), "c,age\nRed,1\nred,2\nNA,1\n")[1]
    assert len(said.answers) == 3
    assert said.warning == "warning: 1 categories that the model does not know"


def test_names_alone_will_do_and_none_will_not(kit, tmp_path):
    folder, said = kit(SoftmaxRegression(2, 2, feature_names=["b", "a"]), "a,b\n1,-2\n3,4\n")
    assert [name for name, _ in said.answers] == answers(folder)[0]
    export_onnx(SoftmaxRegression(2, 2), folder / "model.onnx")
    said = kit(None, "a,b\n1,2\n")[1]
    assert "a model that names no columns, which takes .npy files alone" in said.refusal


def test_missing_values_are_those_of_arrow():
    sys.path.insert(0, str(DEPLOY / "python"))
    try:
        from table import MISSING
    finally:
        sys.path.remove(str(DEPLOY / "python"))
    assert {*pa.csv.ConvertOptions().null_values} == MISSING
