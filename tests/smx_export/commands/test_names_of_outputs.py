"""Every writer takes the longest names of the disk, and bytes of any kind."""

import csv
import io
import json
import os
import sys
import urllib.request

import numpy as np
import onnxruntime
import pytest
import torch
from tools import missing

from smx_export import OnnxClassifier, OnnxExport, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.sidecar import sidecar
from smx_export.targets.base import NotInstalled
from smx_export.web.site import serve, write_site
from smx_lightning import SoftmaxRegression
from smx_lightning.callbacks import ConfusionCsv, PredictionsCsv


def long(suffix):
    return ("x" * 255)[len(suffix) :] + suffix


def no_utf8(suffix):
    return os.fsdecode(b"m\xfcnchen \xff") + suffix


NAMES = pytest.mark.parametrize("name", [long, no_utf8])


@pytest.fixture
def smx_export(monkeypatch):
    """The command line, on a terminal that takes what UTF-8 does not."""
    terminal = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    monkeypatch.setattr(sys, "stdout", terminal)

    def smx_export(*arguments):
        assert main([*map(str, arguments)]) == 0

    return smx_export


def column(path):
    """The classes in a CSV file of predictions."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["class"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def rows(digits):
    digits.setup("test")
    return digits.splits.test.x[:20].numpy().reshape(20, -1).astype(np.float32)


@NAMES
def test_the_command_line(smx_export, checkpoint, trained, rows, tmp_path, name):
    model, report = tmp_path / name(".onnx"), tmp_path / name(".report")
    smx_export("convert", checkpoint, model, "--sidecar", "--json", report)
    session = onnxruntime.InferenceSession(model.read_bytes())
    (probs,) = session.run(["probs"], {"input": rows})
    with torch.no_grad():
        expected = trained.eval()(torch.from_numpy(rows)).exp().numpy()
    np.testing.assert_allclose(probs, expected, rtol=1e-4, atol=1e-6)
    assert json.loads(report.read_text("utf-8"))["passed"] is True
    beside = json.loads(model.with_suffix(".json").read_text("utf-8"))
    assert beside["class_names"] == [str(k) for k in range(10)]
    data, predictions = tmp_path / name(".npy"), tmp_path / name(".csv")
    np.save(data, rows)
    smx_export("predict", model, data, predictions)
    assert column(predictions) == [str(k) for k in expected.argmax(1)]
    smx_export("verify", model, "--checkpoint", checkpoint, "--json", report)
    assert json.loads(report.read_text("utf-8"))["passed"] is True
    assert len(list(tmp_path.iterdir())) == 5


@NAMES
def test_callbacks_and_checkpoints(digits, quiet_trainer, tmp_path, name):
    callbacks = [
        ConfusionCsv(str(tmp_path / name(".confusion"))),
        PredictionsCsv(str(tmp_path / name(".csv"))),
        OnnxExport(str(tmp_path / name(".onnx"))),
    ]
    model = SoftmaxRegression(64, 10, class_names=digits.class_names)
    trainer = quiet_trainer(max_epochs=1, callbacks=callbacks)
    trainer.fit(model, digits)
    trainer.test(model, digits, verbose=False)
    trainer.predict(model, digits, return_predictions=False)
    trainer.save_checkpoint(tmp_path / name(".ckpt"))
    with (tmp_path / name(".confusion")).open(newline="") as file:
        counts = [row[1:] for row in csv.reader(file)][1:]
    assert np.array(counts, int).sum() == len(digits.splits.test.x)
    assert len(column(tmp_path / name(".csv"))) == 1797  # all digits
    again = SoftmaxRegression.load_from_checkpoint(tmp_path / name(".ckpt"))
    assert torch.equal(again.linear.weight, model.linear.weight)
    classifier = OnnxClassifier(tmp_path / name(".onnx"))
    x = digits.splits.test.x.numpy().reshape(-1, 64)
    with torch.no_grad():
        expected = again.eval()(torch.from_numpy(x)).argmax(1)
    assert classifier.predict(x).tolist() == expected.tolist()
    assert len(list(tmp_path.iterdir())) == 4


@NAMES
def test_a_page(trained, tmp_path, name):
    path = export_onnx(trained, tmp_path / name(".onnx")).path
    try:
        site = write_site(path, sidecar(path), tmp_path / name(".page"))
    except NotInstalled as error:
        missing(str(error))
    assert (site.folder / "model.onnx").read_bytes() == path.read_bytes()
    with serve(site.folder) as url, urllib.request.urlopen(f"{url}model.onnx") as answer:
        assert answer.read() == path.read_bytes()
    assert write_site(path, sidecar(path), site.folder).folder == site.folder
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["x" * 255, "model.onnx"])
def test_a_sidecar_that_cannot_be_written_is_told_before_the_export(checkpoint, tmp_path, name):
    """Of the longest name with the suffix .json, and where there is a folder already."""
    (tmp_path / "model.json").mkdir()
    assert main(["convert", str(checkpoint), str(tmp_path / name), "--sidecar"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
