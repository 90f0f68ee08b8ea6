import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression

ROOT = Path(__file__).parent.parent


def run_alone(script, *arguments):
    """What a script prints in a process of its own, where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
    )
    return done.stdout


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    return export_onnx(trained, tmp_path_factory.mktemp("runtime") / "digits.onnx").path


def test_predictions_are_the_live_model_s(trained, digits, file):
    classifier = OnnxClassifier(file)
    x = digits.splits.test.x
    probs = trained(x).exp().detach().numpy()
    np.testing.assert_allclose(classifier.predict_proba(x.numpy()), probs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(x.numpy()), probs.argmax(1))
    assert classifier.class_names == digits.class_names
    assert classifier.predict_names(x[:2].numpy()) == [
        digits.class_names[k] for k in probs[:2].argmax(1)
    ]


def test_images_and_bytes_are_taken_as_they_are(digits, file):
    classifier = OnnxClassifier(file)
    x = digits.splits.test.x[:4]
    flat = classifier.predict_proba(x.flatten(1).numpy())
    np.testing.assert_array_equal(classifier.predict_proba(x.numpy().astype(np.uint8)), flat)
    np.testing.assert_array_equal(classifier.predict_proba(x[:, None].numpy()), flat)


def test_the_threshold_travels_in_the_file(tmp_path):
    model = SoftmaxRegression(1, 2, threshold=0.2)
    classifier = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx").path)
    x = np.linspace(-20, 20, 101, dtype=np.float32)[:, None]
    expected = model.decide(model(torch.from_numpy(x)))
    np.testing.assert_array_equal(classifier.predict(x), expected)
    assert (classifier.predict(x) != classifier.predict_proba(x).argmax(1)).any()


def test_an_empty_batch_is_answered_with_one(file):
    assert OnnxClassifier(file).predict_proba(np.zeros((0, 64), np.float32)).shape == (0, 10)


def test_inference_imports_neither_torch_nor_lightning_nor_onnx(file):
    script = """
import sys
import numpy
from smx_export.runtime import OnnxClassifier
OnnxClassifier(sys.argv[1]).predict(numpy.zeros((1, 64), "float32"))
heavy = {"torch", "lightning", "torchmetrics", "onnx", "smx_lightning", "sklearn"}
print(sorted(heavy & set(sys.modules)))
"""
    printed = run_alone(script, file)
    assert printed.strip() == "[]"


@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_inspect_and_predict_import_no_torch(command, file, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 64)))
    more = [str(tmp_path / "x.npy"), str(tmp_path / "out.csv")] if command == "predict" else []
    script = f"""
import sys
from smx_export.__main__ import main
assert main([{command!r}, sys.argv[1], *{more}]) == 0
print("torch" in sys.modules)
"""
    printed = run_alone(script, file)
    assert printed.splitlines()[-1] == "False"
