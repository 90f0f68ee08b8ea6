"""Runtimes that crash, hang, lie or are not there: each fails alone and in words."""

import tempfile
import uuid

import pytest
import torch
from sampled import sampled
from tools import left

from smx_export import Profile, export_onnx
from smx_export.contract import ALL_OUTPUTS
from smx_export.targets.matrix import matrix
from smx_export.targets.report import FAILED, NOT_RUN, PASSED
from smx_lightning import SoftmaxRegression


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    """A file with all outputs."""
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    return export_onnx(trained, path, profile=Profile(robust=True, outputs=ALL_OUTPUTS)).path


# What the target for OpenCV imports, out of onnxruntime: it is right until a case spoils it.
CV2 = """
import os, signal, subprocess, sys, tempfile
import numpy as np
import onnxruntime

__version__ = "0 of the tests"
setLogLevel = loading = named = lambda given: given
spoilt = lambda rows, answers: None

class Net:
    def __init__(self, path):
        loading(path)
        self.session = onnxruntime.InferenceSession(path)
    def getUnconnectedOutLayersNames(self):
        return named([output.name for output in self.session.get_outputs()])
    def setInput(self, x):
        self.x = x
    def forward(self, names):
        answers = dict(zip(names, self.session.run(names, {"input": self.x})))
        spoilt(len(self.x), answers)
        return list(answers.values())

class dnn:
    readNetFromONNX = Net

"""
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


def loading(*statements):
    return "\n    ".join(["def loading(path):", *statements])


def spoilt(*statements):
    return "\n    ".join(["def spoilt(rows, answers):", *statements])


LOADS = {"loads": True}
# fmt: off
MISBEHAVIOUR = [  # what it does, the code, what is seen, its words
    ("crashes on load", loading(CRASH), {}, "crashed with SIGSEGV"),
    ("crashes on import", CRASH, {"version": ""}, "crashed with SIGSEGV"),
    ("crashes on several rows", spoilt(f"if rows > 1: {CRASH}"), {"batch_1": True, **LOADS},
     "crashed with SIGSEGV"),
    ("crashes and leaves a child", loading("subprocess.Popen(['sleep', '600'])", CRASH), {},
     "crashed with SIGSEGV"),
    ("crashes and leaves files", loading("tempfile.mkdtemp()", CRASH), {}, "crashed with SIGSEGV"),
    ("hangs on load", loading("signal.pause()"), {}, "took more than 2 s"),
    ("hangs on several rows", spoilt("if rows > 1: signal.pause()"), {"batch_1": True, **LOADS},
     "took more than 2 s"),
    ("hangs with a child", loading("subprocess.run(['sleep', '600'])"), {}, "took more than 2 s"),
    ("ends with nothing said", loading("os._exit(0)"), {}, "ended without an answer"),
    ("ends with a code", loading("os._exit(3)"), {}, "ended with code 3"),
    ("ends with a code in the end", spoilt("if rows > 5: os._exit(3)"),
     {**LOADS, "batch_1": True, "batch_n": True}, "ended with code 3"),
    ("raises on import", "raise AttributeError('no such symbol')", {}, "no such symbol"),
    ("raises on load", loading("raise ValueError('no such operator')"), {}, "no such operator"),
    ("raises on several rows", spoilt("if rows > 1: raise ValueError('one row only')"),
     {"batch_1": True, **LOADS}, "one row only"),
    ("raises on every row", spoilt("raise ValueError('out of order')"), {"argmax": 0, **LOADS},
     "out of order"),
    ("answers wrong values", spoilt("answers['log_probs'] *= 1.01"), {"argmax": 1.0, **LOADS},
     "log_probs is …times what rounding allows from the answer"),
    ("answers wrong values to several rows", spoilt("answers['probs'][1:] *= 1.01"),
     {"batch_1": True, "argmax": 1.0, **LOADS}, "probs is …times what rounding allows"),
    ("answers one class for another", spoilt("answers['label'][:] = (answers['label'] + 1) % 10"),
     {"argmax": 0, **LOADS}, "class …in place of class …"),
    ("answers no class", spoilt("answers['label'][:] = 10"), {"argmax": 0, **LOADS},
     "class 10 in place of class …"),
    ("answers a wrong shape", spoilt("answers['log_probs'] = answers['log_probs'][:, 1:]"),
     {"argmax": 0, **LOADS}, "log_probs is float32 (1, 9), not (1, 10)"),
    ("answers a row for many", spoilt("answers['probs'] = answers['probs'][:1]"),
     {"batch_1": True, **LOADS}, "probs is float32 (1, 10), not (3, 10)"),
    ("answers NaN", spoilt("answers['probs'][0] = np.nan"), {"argmax": 0, **LOADS},
     "probs is not finite where the answer is"),
    ("answers no numbers", spoilt("answers['label'] = answers['label'].astype(object)"),
     {"argmax": 0, **LOADS}, "label is object"),
    ("answers fewer outputs", "named = lambda names: names[:1]", {"argmax": 0, **LOADS},
     "no output label"),
]
# fmt: on


@pytest.fixture
def fake_opencv(tmp_path, monkeypatch):
    """Writes an OpenCV of our own, and lets nothing that it starts or writes escape notice."""
    mark = uuid.uuid4().hex
    home, scratch = tmp_path / "site", tmp_path / "tmp"
    home.mkdir()
    scratch.mkdir()
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("MARK", mark)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield lambda code: (home / "cv2.py").write_text(CV2 + code)
    assert left(mark) == []
    assert list(scratch.iterdir()) == []


@pytest.mark.whole
@pytest.mark.parametrize(
    ("code", "seen", "words"),
    sampled([pytest.param(*case[1:], id=case[0]) for case in MISBEHAVIOUR], every=2),
)
def test_a_runtime_that_misbehaves_fails_alone_and_in_words(code, seen, words, fake_opencv, file):
    fake_opencv(code)
    patience = 2.0 if words.startswith("took") else 20.0
    ran = matrix(file, ["opencv"], patience=patience)
    (row,) = ran.rows
    assert row.verdict == FAILED
    for part in words.split("…"):
        assert part in row.detail
    expected = {"loads": False, "batch_1": False, "batch_n": False, **seen}
    assert {name: getattr(row, name) for name in expected} == expected
    assert not ran.passed


def test_a_runtime_that_crashes_takes_no_other_along(fake_opencv, file):
    fake_opencv(CRASH)
    ran = matrix(file, ["opencv", "onnxruntime"])
    assert [row.verdict for row in ran.rows] == [FAILED, PASSED]
    assert not ran.passed


def test_the_steepest_model_is_asked_for_several_rows_too(fake_opencv, tmp_path):
    model = SoftmaxRegression(8, 3)
    with torch.no_grad():
        model.linear.weight.normal_().mul_(1e3)  # any row but zero is over 87 nats apart
    path = export_onnx(model, tmp_path / "steep.onnx").path
    fake_opencv(spoilt("if rows > 1: raise ValueError('one row only')"))
    (row,) = matrix(path, ["opencv"]).rows
    assert (row.verdict, row.batch_1, row.batch_n) == (FAILED, True, False)


def test_a_runtime_that_prints_a_lot_passes(fake_opencv, file):
    flood = "for stream in (1, 2): os.write(stream, b'x' * 100_000)"
    fake_opencv(loading(*5 * [flood]) + "\n" + spoilt(flood))
    ran = matrix(file, ["opencv"])
    assert ran.passed, ran


@pytest.mark.parametrize("reason", ["No module named 'cv2'", "libGL.so.1: no such file"])
def test_a_missing_runtime_is_not_run_and_never_passed(reason, fake_opencv, file):
    fake_opencv(f"raise ImportError({reason!r})")
    alone = matrix(file, ["opencv"])
    assert [row.verdict for row in alone.rows] == [NOT_RUN]
    assert not alone.passed
    (row,) = alone.rows
    assert reason in row.detail
    assert "pip install" in row.detail
    assert (row.error, row.argmax, row.stress, row.micros_1) == (None, None, None, None)
    assert matrix(file, ["opencv", "onnxruntime"]).passed
    assert not matrix(file, []).passed
