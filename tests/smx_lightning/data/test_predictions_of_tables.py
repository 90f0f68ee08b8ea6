"""What ``smx-lightning predict`` writes of a table: its own columns beside the answers, in order.

The judge is ``smx-export predict`` of the same rows, whose own judge is pandas.
"""

import csv
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tables
from encoded_by_hand import model_of

from smx_export import export_onnx
from smx_export.predict import predict
from smx_lightning import InputError
from smx_lightning.callbacks import PredictionsCsv
from smx_lightning.data import TableDataModule


def read(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.filterwarnings("ignore:expected a value where every training row")
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "folder"])
def test_they_are_what_smx_export_writes(name, model, quiet_trainer, here):
    rows = tables.mixed(150)
    path = here / name
    if name == "folder":
        tables.write_folder(rows, path)
    else:
        tables.write(rows, path)
    writer = PredictionsCsv("live.csv")
    quiet_trainer(callbacks=[writer]).predict(model, datamodule=TableDataModule(path))
    predict(export_onnx(model, "m.onnx").path, path, "own.csv")
    live, own = read("live.csv"), read("own.csv")
    assert live[0] == own[0]
    assert len(live) == len(own) == 151
    answers = live[0].index("p(better)")
    assert [row[:answers] for row in live] == [row[:answers] for row in own]
    probs = [[[float(p) for p in row[answers:]] for row in of[1:]] for of in (live, own)]
    np.testing.assert_allclose(*probs, rtol=1e-4, atol=1e-6)


def test_columns_are_chosen_and_rows_of_all_sources_follow_one_another(model, quiet_trainer, here):
    rows = tables.mixed(90)
    data = TableDataModule(rows.slice(0, 60), test=rows.slice(60).drop_columns(["share"]))
    writer = PredictionsCsv("live.csv", keep=["id", "colour"])
    quiet_trainer(callbacks=[writer]).predict(model, datamodule=data)
    found = read("live.csv")
    assert found[0][:4] == ["row", "id", "colour", "class"]
    assert [row[1] for row in found[1:]] == rows["id"].to_pylist()
    assert data.identifiers().column_names == [n for n in rows.column_names if n != "share"]


def test_a_part_of_the_rows_has_its_own_columns(model, quiet_trainer, here):
    data = TableDataModule(tables.mixed(90), batch_size=20)
    writer = PredictionsCsv("live.csv")
    quiet_trainer(callbacks=[writer], limit_predict_batches=2).predict(model, datamodule=data)
    assert [row[1] for row in read("live.csv")[1:]] == [f"p{k:06}" for k in range(40)]


def test_a_column_that_is_not_there_is_refused(model, quiet_trainer, here):
    writer = PredictionsCsv("live.csv", keep=["id", "nom"])
    with pytest.raises(InputError, match=r"expected the columns nom in the table to write .*keep="):
        quiet_trainer(callbacks=[writer]).predict(
            model, datamodule=TableDataModule(tables.mixed(9))
        )
    assert [*here.iterdir()] == []


def test_names_are_those_of_csv_and_formulas_are_text(quiet_trainer, here):
    from smx_lightning import SoftmaxRegression
    from smx_lightning.tables import Column, Schema

    model = SoftmaxRegression(1, 2, schema=Schema((Column("=1"),)))
    table = pa.table({"=1": [1.0, 2.0], "class": ["=2", "b"]})
    writer = PredictionsCsv("live.csv")
    quiet_trainer(callbacks=[writer]).predict(model, datamodule=TableDataModule(table, "class"))
    found = read("live.csv")
    assert found[0] == ["row", "'=1", "class", "predicted class", "p(0)", "p(1)"]
    assert [row[2] for row in found[1:]] == ["'=2", "b"]
    assert not any(cell.startswith("=") for cell in itertools.chain(*found))
