"""Parity of a table's model on the user's own table, and on rows that its schema can make."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import tables
import torch
from encoded_by_hand import SCHEMA, features, model_of
from trainers import quiet_trainer

from smx_export import check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.parity.tables import table_data
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import TableDataModule

ROWS = tables.mixed(150)
CLASSES = {"better": 0, "same": 1, "worse": 2}


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.parametrize("kind", [lambda t: t, lambda t: t.to_pandas(), lambda t: t.to_pydict()])
def test_data_may_be_a_data_frame(kind, model, tmp_path):
    found = export_onnx(model, tmp_path / "m.onnx", data=kind(ROWS))
    assert "your data" in str(found.report)
    x, y = table_data(kind(ROWS), model)
    np.testing.assert_allclose(x, features(ROWS), rtol=1e-12)
    assert y.tolist() == [CLASSES[name] for name in ROWS["outcome"].to_pylist()]
    own = (kind(ROWS.drop_columns(["outcome"])), y)
    assert check_parity(model, tmp_path / "m.onnx", own).passed


def test_rows_without_a_label_are_left_out_where_labels_are_there(model):
    label = pa.array([None, *ROWS["outcome"].to_pylist()[1:]])
    table = ROWS.set_column(ROWS.column_names.index("outcome"), "outcome", label)
    x, y = table_data(table, model)
    assert (len(x), len(y)) == (149, 149)
    np.testing.assert_allclose(x, features(ROWS)[1:], rtol=1e-12)
    assert len(table_data(table.drop_columns(["outcome"]), model)) == 150


def test_a_rounded_file_is_judged_on_the_table(model, tmp_path):
    """Profile compact needs labels, which the schema's target has."""
    path = export_onnx(model, tmp_path / "m.onnx", profile="compact", data=ROWS).path
    assert check_parity(model, path, ROWS).passed


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "folder"])
def test_the_command_line_takes_the_table_that_was_trained_on(name, trained_table):
    folder = trained_table
    path = folder / name
    convert = ["convert", str(folder / "m.ckpt"), str(folder / "m.onnx"), "--data", str(path)]
    assert main(convert) == 0
    verify = ["verify", str(folder / "m.onnx"), "--checkpoint", str(folder / "m.ckpt")]
    assert main([*verify, "--data", str(path)]) == 0


@pytest.fixture(scope="module")
def trained_table(tmp_path_factory):
    """A checkpoint of a table's model, and the table in several kinds of file."""
    folder = tmp_path_factory.mktemp("trained")
    full = ROWS.filter(pa.compute.is_valid(ROWS["age"]))
    for name in ("t.csv", "t.parquet"):
        tables.write(full, folder / name)
    tables.write_folder(full, folder / "folder")
    data = TableDataModule(folder / "t.parquet", "outcome", schema=SCHEMA)
    trainer = quiet_trainer()
    trainer.fit(model_of(), data)
    trainer.save_checkpoint(folder / "m.ckpt")
    return folder


def test_a_model_without_names_takes_no_table(tmp_path):
    model = SoftmaxRegression(2, 3)
    with pytest.raises(
        InputError, match=r"expected rows in an \.npz file for a model that names"
    ):
        table_data(ROWS, model)


def test_another_schema_is_seen_by_verify(model, tmp_path):
    """Categories in another order are other features under the same weights."""
    path = export_onnx(model, tmp_path / "m.onnx").path
    colour = replace(SCHEMA.columns[1], categories=("red", "blue"))
    other = model_of(replace(SCHEMA, columns=(SCHEMA.columns[0], colour, *SCHEMA.columns[2:])))
    other.load_state_dict(model.state_dict())
    failed = [check.name for check in check_parity(other, path).failed]
    assert failed == ["feature names", "schema"]
    older = SoftmaxRegression(len(SCHEMA.feature_names), 3, preprocessing="standardize",
                              class_names=[*CLASSES])  # fmt: skip
    older.load_state_dict(model.state_dict())
    assert [check.name for check in check_parity(older, path).failed] == ["feature names", "schema"]
    bare = export_onnx(older, tmp_path / "bare.onnx").path
    assert [check.name for check in check_parity(model, bare).failed] == ["feature names", "schema"]
    assert torch.equal(older.linear.weight, model.linear.weight)
