"""Files of sparse activations as their users meet them: the classifier, inspect, the sidecar."""

from base64 import b64decode

import numpy as np
import profiled
import pytest
import references
import torch

from smx_export import FileError, Profile, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.describe import describe
from smx_export.artifact.sidecar import sidecar
from smx_export.artifact.vectors import Vectors
from smx_export.runtime import OnnxClassifier
from smx_export.targets.selftest import selftest
from smx_lightning.activations import activation_of

SPECS = ["sparsemax", "entmax15", {"alpha": 1.3}]
ids = [str(spec) for spec in SPECS]
OUTPUTS = [("log_probs", "probs"), ("probs",), ("log_probs",), ("scores",), ("scores", "label")]


@pytest.fixture(scope="module", params=SPECS, ids=ids)
def model(request):
    made = profiled.model_of(activation=request.param)
    with torch.no_grad():
        made.linear.weight.mul_(0.3)
    return made


@pytest.mark.parametrize("outputs", OUTPUTS, ids="+".join)
def test_the_classifier_answers_like_the_model(outputs, model, tmp_path):
    path = export_onnx(model, tmp_path / "model.onnx", profile=Profile.of(outputs=outputs)).path
    x = profiled.in_range(profiled.pixels()).astype(np.float32)
    classifier = OnnxClassifier(path)
    right = references.entmax(profiled.logits(model, x), activation_of(model.activation.spec).alpha)
    probs = classifier.predict_proba(x)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, right, atol=1e-5)
    assert (probs == 0).any()
    np.testing.assert_array_equal(classifier.predict(x), right.argmax(1))
    with pytest.raises(ValueError, match="expected rows that have an answer"):
        classifier.predict_proba(np.full_like(x[:2], np.nan))
    assert selftest(path).passed


def test_the_file_says_what_it_ends_in(model, tmp_path, capsys):
    path = export_onnx(model, tmp_path / "model.onnx").path
    assert describe(path).activation == model.activation.spec
    assert main(["inspect", str(path)]) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "activation" in line)
    spec = model.activation.spec
    assert (spec if isinstance(spec, str) else "alpha 1.3") in shown
    beside = sidecar(path)
    assert beside["activation"] == spec
    assert set(beside["selftest"]) == {"dtype", "shape", "inputs", "probs", "tolerance"}
    probs = np.frombuffer(b64decode(beside["selftest"]["probs"]), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)


def test_softmax_is_not_mentioned(tmp_path, capsys):
    path = export_onnx(profiled.model_of(), tmp_path / "model.onnx").path
    assert describe(path).activation is None
    assert main(["inspect", str(path)]) == 0
    assert "activation" not in capsys.readouterr().out
    assert "activation" not in sidecar(path)


def test_vectors_hold_a_row_that_rules_classes_out_and_leaves_several(model, tmp_path):
    path = export_onnx(model, tmp_path / "model.onnx").path
    vectors = OnnxClassifier(path).session.get_modelmeta().custom_metadata_map["selftest"]
    vectors, _ = Vectors.from_json(vectors)
    probs = np.exp(vectors.log_probs)
    assert ((probs == 0).any(1) & ((probs > 0) & (probs < 1)).any(1)).any()
    right = references.entmax(
        profiled.logits(model, vectors.x.reshape(len(vectors.x), *profiled.SHAPE)),
        activation_of(model.activation.spec).alpha,
    )
    assert (np.abs(probs - right).max(1) <= vectors.tolerance).all()


@pytest.mark.parametrize("told", ['"hardmax"', "{", "null", '{"alpha": 0.5}', "[]"])
def test_an_activation_that_there_is_none_of_is_refused(told, tmp_path):
    path = export_onnx(profiled.model_of(activation="sparsemax"), tmp_path / "model.onnx").path
    proto = profiled.onnx.load(path)
    profiled.metadata(proto, "activation", told)
    profiled.onnx.save(proto, path)
    with pytest.raises(FileError, match="expected an activation in the metadata") as refused:
        OnnxClassifier(path)
    assert "\n" not in str(refused.value)
