"""Parity of a table's model on the user's own table, and on rows that its schema can make."""

from dataclasses import replace

import numpy as np
import onnx
import pyarrow as pa
import pytest
import tables
import torch
from encoded_by_hand import SCHEMA, features, model_of
from mutations.conditions import Nodes
from trainers import quiet_trainer

from smx_export import Profile, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.files import sealed
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.interface import inference_copy_like
from smx_export.parity.reference import reference_of
from smx_export.parity.user_data import table_data
from smx_export.runtime import open_session
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import TableDataModule
from smx_lightning.tables import Column, Schema

ROWS = tables.mixed(150)
CLASSES = {"better": 0, "same": 1, "worse": 2}


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.parametrize("kind", [lambda t: t, lambda t: t.to_pandas(), lambda t: t.to_pydict()])
def test_data_may_be_a_data_frame(kind, model, tmp_path):
    found = export_onnx(model, tmp_path / "m.onnx", data=kind(ROWS))
    assert "your data" in str(found.report)
    x, y, weight = table_data(kind(ROWS), model)
    assert weight is None
    np.testing.assert_allclose(x, features(ROWS), rtol=1e-12)
    assert y.tolist() == [CLASSES[name] for name in ROWS["outcome"].to_pylist()]
    own = (kind(ROWS.drop_columns(["outcome"])), y)
    assert check_parity(model, tmp_path / "m.onnx", own).passed


def test_labels_weights_and_gaps_are_those_of_the_table(model):
    label = pa.array([None, *ROWS["outcome"].to_pylist()[1:]])
    table = ROWS.set_column(ROWS.column_names.index("outcome"), "outcome", label)
    x, y, _ = table_data(table, model)
    assert (len(x), y[0], y.min()) == (150, model.ignore_index, model.ignore_index)
    assert table_data(table.drop_columns(["outcome"]), model)[1:] == (None, None)
    weighted = model_of(replace(SCHEMA, weight="share"))
    assert table_data(ROWS, weighted)[2].tolist() == ROWS["share"].to_pylist()
    assert table_data(ROWS.drop_columns(["share"]), weighted)[2] is None
    soft = model_of(replace(SCHEMA, target=("p", "q", "r")))
    votes = ROWS.append_column("p", pa.array([1.0] * 150)).append_column("q", pa.array([3.0] * 150))
    y = table_data(votes.append_column("r", pa.array([0.0] * 150)), soft)[1]
    assert y[7].tolist() == [0.25, 0.75, 0]


def test_a_rounded_file_is_judged_on_the_table(model, tmp_path):
    """Profile compact needs labels, which the schema's target has."""
    budget = {"max_accuracy_loss": 0.2, "max_nll_increase": 9.0}
    profile = Profile.of("compact", **budget)
    found = export_onnx(model, tmp_path / "m.onnx", profile=profile, data=ROWS)
    assert found.report.rounding is not None
    assert check_parity(model, found.path, ROWS, **budget).passed
    with pytest.raises(InputError, match="expected labelled data to judge what int8 weights cost"):
        export_onnx(
            model, tmp_path / "n.onnx", profile=profile, data=ROWS.drop_columns(["outcome"])
        )


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
    with pytest.raises(InputError, match=r"expected rows in an \.npz file for a model that names"):
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


# Rows that the schema can make ------------------------------------------------------------------


def asked(model, path):
    """The rows of the table that the gate asks about."""
    inference = inference_copy_like(model, onnx.load(path))
    probes = ParityInputs(inference, reference_of(inference.model)).probes()
    (probe,) = (probe for probe in probes if probe.name == "rows of the table")
    return probe.x


def test_the_gate_asks_about_rows_that_the_table_can_have(model, tmp_path):
    """Their features are those that the encoding makes of some table: inverted, and made again."""
    x = asked(model, export_onnx(model, tmp_path / "m.onnx").path)
    assert len(x) == 96
    start = 0
    for column in SCHEMA.columns:
        part = x[:, start : (start := start + len(column.feature_names))]
        if column.kind == "category":
            assert {*part.ravel().tolist()} == {0, 1}
            assert {*part.sum(1).tolist()} == {0, 1}  # none, as of an unknown one
            assert part.any(0).all()  # each of them occurs
        else:
            gap = part[:, 1] == 1
            assert 0 < gap.sum() < 40
            assert {*part[:, 1].tolist()} == {0, 1}
            assert (part[gap, 0] == np.float32(column.fill)).all()
            if column.kind == "boolean":
                assert {*part[~gap, 0].tolist()} == {0, 1}


class Behind(SoftmaxRegression):
    """A backbone that torch's exporter traces, whose inputs are a table's features."""

    def features(self, x):
        return x.tanh()


@pytest.mark.parametrize("kind", [SoftmaxRegression, Behind])
def test_a_file_that_is_wrong_on_such_rows_alone_is_seen(kind, tmp_path):
    """Where one of three categories is, and a number is no whole one."""
    schema = Schema((Column("c", "category", categories=("a", "b", "d")), Column("x")))
    model = kind(4, 3, schema=schema)
    proto = onnx.load(export_onnx(model, tmp_path / "m.onnx").path)
    nodes = Nodes(proto)
    places = nodes.op("Gather", nodes.x, np.array([0, 1, 2]), axis=1)
    ones = nodes.op("Equal", places, np.float32(1))
    zeros = nodes.op("Equal", places, np.float32(0))
    number = nodes.op("Gather", nodes.x, np.array([3]), axis=1)
    uneven = nodes.op("Not", nodes.op("Equal", nodes.op("Floor", number), number))
    one_hot = nodes.both(
        nodes.op("Equal", nodes.count(ones), np.float32(1)),
        nodes.op("Equal", nodes.count(zeros), np.float32(2)),
        uneven,
    )
    wrong = nodes.op("Mul", nodes.op("Cast", one_hot, to=onnx.TensorProto.FLOAT), np.float32(0.1))
    made = proto.graph.output[0].name
    for node in proto.graph.node:
        node.output[:] = ["right" if name == made else name for name in node.output]
        node.input[:] = ["right" if name == made else name for name in node.input]
    nodes.op("Add", "right", wrong)
    nodes.made[-1].output[0] = made
    nodes.insert(len(proto.graph.node))
    (tmp_path / "wrong.onnx").write_bytes(sealed(proto))
    inference = inference_copy_like(model, onnx.load(tmp_path / "m.onnx"))
    inputs = ParityInputs(inference, reference_of(inference.model))
    session = open_session((tmp_path / "wrong.onnx").read_bytes())
    seen = set()
    for probe in inputs.probes():
        with np.errstate(invalid="ignore", over="ignore"):  # of rows with infinity
            expected = inputs.reference.expected(inference.given(probe.x)).log_probs
            (got,) = session.run([made], {"input": inference.fed(probe.x)})
            apart = np.abs(got - expected)
        ordinary = np.isfinite(apart) & (np.abs(expected) < 100)  # or more is lost to rounding
        if (apart[ordinary] > 0.05).any():
            seen.add(probe.name)
    assert seen == {"rows of the table"}
