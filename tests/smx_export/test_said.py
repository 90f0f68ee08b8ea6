"""What is said of exports, how it looks in a notebook, and where files come from and go to."""

import logging
import time

import numpy as np
import onnx
import pytest
import torch
from files import ALL, model_of
from lightning.pytorch.loggers import CSVLogger, Logger
from trainers import quiet_trainer

import smx_lightning.errors.streams
from smx_export import OnnxClassifier, OnnxExport, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.describe import describe
from smx_export.artifact.files import sealed
from smx_export.commands import BAD_INPUT, DONE, PARITY_FAILED
from smx_export.targets.matrix import matrix
from smx_export.targets.selftest import selftest
from smx_lightning import SoftmaxRegression


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return export_onnx(model_of(), tmp_path_factory.mktemp("said") / "m.onnx", profile=ALL)


# Short names -------------------------------------------------------------------------------------


def test_reports_and_classifiers_are_short_in_a_notebook(file):
    found = {
        "ParityReport(parity holds on": file.report,
        "SelfTest(": selftest(file.path),
        "Matrix(": matrix(file.path, ["onnxruntime"]),
        "Description(": describe(file.path),
        "OnnxClassifier(float32 6 → 3 classes, log_probs, probs, scores, label)": OnnxClassifier(
            file.path
        ),
    }
    for words, told in found.items():
        assert repr(told).startswith(words)
        assert len(repr(told)) < 400
        assert "\n" not in repr(told)
        html = told._repr_html_()
        assert html.startswith("<details><summary>")
        assert html.endswith("</pre></details>")
    assert len(repr(file)) < 400  # of the export, which holds a report


def test_what_a_file_calls_its_classes_is_text(tmp_path):
    names = ["<script>alert(1)</script>", "a&b\n\x1b[2J", "c"]
    path = export_onnx(model_of(class_names=names), tmp_path / "<b>.onnx").path
    for told in (OnnxClassifier(path), describe(path), selftest(path)):
        html = told._repr_html_()
        assert "<script>" not in html
        assert "<b>" not in html
        assert "\x1b" not in html
    assert "&lt;script&gt;" in OnnxClassifier(path)._repr_html_()


# The callback ------------------------------------------------------------------------------------


def fit(model, callback, **options):
    x = torch.rand(20, 6)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, torch.arange(20) % 3), batch_size=10
    )
    quiet_trainer(callbacks=[callback], **options).fit(model, loader)


def test_the_callback_says_the_verdict(tmp_path, caplog):
    said = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(listener)
    caplog.set_level(logging.INFO, logger.name)  # the command line lets less be said
    callback = OnnxExport(str(tmp_path / "m.onnx"))
    try:
        fit(SoftmaxRegression(6, 3), callback)
    finally:
        logger.removeHandler(listener)
    verdict = f"{tmp_path / 'm.onnx'}: {callback.export.report.verdict}"
    assert said.count(verdict) == 1


class Remote(Logger):
    """A logger that keeps no files of its own, as those of services are."""

    def __init__(self, save_dir, version):
        super().__init__()
        self._save_dir, self._version = save_dir, version

    name = "project"
    version = property(lambda self: self._version)
    save_dir = property(lambda self: self._save_dir)

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.mark.parametrize(
    ("made", "folder"),
    [
        (lambda path: CSVLogger(path, name="own"), "own/version_0"),
        (lambda path: Remote(str(path), "run7"), "project/run7"),
        (lambda path: Remote(str(path), 3), "project/version_3"),
        (lambda path: Remote(None, "run7"), "project/run7"),
        (lambda path: False, ""),
    ],
)
def test_the_file_goes_into_the_folder_of_the_run(made, folder, tmp_path):
    callback = OnnxExport()
    fit(SoftmaxRegression(6, 3), callback, logger=made(tmp_path), default_root_dir=tmp_path)
    assert callback.export.path == tmp_path / folder / "model.onnx"


def test_the_callback_takes_sizes(tmp_path):
    callback = OnnxExport(str(tmp_path / "m.onnx"), batch=2, top_k=1)
    fit(SoftmaxRegression(6, 3), callback)
    classifier = OnnxClassifier(tmp_path / "m.onnx")
    assert (classifier.batch, classifier.top_k) == (2, 1)


# Progress ----------------------------------------------------------------------------------------


class Slow(SoftmaxRegression):
    """Whose features take a while."""

    def features(self, x):
        time.sleep(0.02)
        return x


def test_an_export_that_takes_a_while_says_what_it_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smx_lightning.errors.streams, "PATIENCE", 0.05)
    path = tmp_path / "m.onnx"
    export_onnx(Slow(6, 3), path)
    said = capsys.readouterr().err.splitlines()
    assert said
    assert all(line.startswith(f"exporting {path}: ") for line in said)
    assert any("comparing" in line and "rows so far" in line for line in said)
    told = []
    export_onnx(Slow(6, 3), path, progress=told.append)
    assert told
    export_onnx(Slow(6, 3), path, progress=None)
    assert capsys.readouterr().err == ""


def test_a_quick_one_says_nothing(tmp_path, capsys):
    export_onnx(model_of(), tmp_path / "m.onnx")
    assert capsys.readouterr().err == ""


# Folders of runs ---------------------------------------------------------------------------------


@pytest.fixture
def run(checkpoint, tmp_path):
    """A run's folder, with its best checkpoint and the last one."""
    folder = tmp_path / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt", "epoch=3.ckpt"):
        (folder / name).write_bytes(checkpoint.read_bytes())
    return folder.parent


def test_a_run_s_folder_stands_for_its_best_checkpoint(run, checkpoint, tmp_path, capsys):
    out = tmp_path / "m.onnx"
    for name in ("last.ckpt", "epoch=3.ckpt"):
        (run / "checkpoints" / name).write_bytes(b"none")
    assert main(["convert", str(run), str(out)]) == DONE
    assert main(["verify", str(out), "--checkpoint", str(run)]) == DONE
    assert main(["verify", str(out), "--checkpoint", str(checkpoint)]) == DONE
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "epoch=3.ckpt")
    assert main(["convert", str(run), str(out)]) == DONE  # the only one but the last


def test_a_folder_of_several_or_none_is_refused(run, tmp_path, capsys):
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "epoch=4.ckpt")
    assert main(["convert", str(run), str(tmp_path / "m.onnx")]) == BAD_INPUT
    said = capsys.readouterr().err
    assert "epoch=3.ckpt" in said
    assert "name the checkpoint itself" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["convert", str(empty), str(tmp_path / "m.onnx")]) == BAD_INPUT
    assert "found none; check the path, of a file or of a run's folder" in capsys.readouterr().err


# Files that were changed on purpose --------------------------------------------------------------


def renamed(proto):
    proto.metadata_props.add(key="note", value="ours")


def relabelled(proto):
    for entry in proto.metadata_props:
        if entry.key == "class_names":
            entry.value = '["x", "y", "z"]'


def another_weight(proto):
    array = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array.flat[0] += 1
    name = proto.graph.initializer[0].name
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, name))


def twice_negated(proto):
    """The same answers by another graph."""
    node = proto.graph.node[0]
    first, second = (
        onnx.helper.make_node("Neg", [a], [b])
        for a, b in (("input", "less"), ("less", "input again"))
    )
    node.input[0] = "input again"
    proto.graph.node.insert(0, second)
    proto.graph.node.insert(0, first)


@pytest.mark.parametrize(
    ("change", "right", "failed"),
    [
        (renamed, True, {"seal"}),
        (relabelled, True, {"seal", "class names"}),
        (twice_negated, True, {"seal", "graph"}),
        (another_weight, False, {"seal", "graph", "log_probs against float64"}),
    ],
)
def test_a_changed_file_is_refused_and_compared_all_the_same(
    change, right, failed, file, tmp_path, trained
):
    proto = onnx.load(file.path)
    change(proto)
    path = tmp_path / "changed.onnx"
    path.write_bytes(proto.SerializeToString())  # its seal no longer holds
    report = check_parity(model_of(), path, np.zeros((3, 6), np.float32))
    found = {check.name: check.passed for check in report.checks}
    assert not report.passed
    assert failed <= {name for name, passed in found.items() if not passed}
    assert report.rows > 100
    assert found["log_probs against float64"] is right
    assert found["argmax"] or not right


def test_verify_compares_a_changed_file(checkpoint, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    assert main(["convert", str(checkpoint), str(path)]) == DONE
    proto = onnx.load(path)
    renamed(proto)
    path.write_bytes(proto.SerializeToString())
    capsys.readouterr()
    assert main(["verify", str(path), "--checkpoint", str(checkpoint)]) == PARITY_FAILED
    said = capsys.readouterr().out
    assert "FAIL seal" in said
    assert "ok   log_probs against float64" in said
    path.write_bytes(sealed(onnx.load(path)))
    assert main(["verify", str(path), "--checkpoint", str(checkpoint)]) == DONE
