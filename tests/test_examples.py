"""Every example runs, in an empty folder."""

import copy
import os
import runpy
from pathlib import Path

import numpy as np
import pytest

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning.cli import main as smx_lightning

EXAMPLES = Path(__file__).parent.parent / "examples"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quickstart", "parity holds"),
        ("backbone", "449 labelled rows"),
        ("existing_script", "'val/accuracy_macro'"),
    ],
)
def test_script_runs(name, said, cli_folder, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("mean", [None, 1e5], ids=["folded", "shifted"])
def test_numpy_alone_gives_the_same_answers(mean, trained, digits, cli_folder, capsys):
    model = copy.deepcopy(trained, {id(trained._trainer): None})
    if mean is not None:
        model.preprocessing.mean.add_(mean)
    export_onnx(model, "digits.onnx")
    x = digits.splits.test.x[:50].numpy() + np.float32(mean or 0)
    np.save("x.npy", x)
    example = runpy.run_path(str(EXAMPLES / "numpy_only.py"))
    example["main"]("digits.onnx", "x.npy")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    classifier = OnnxClassifier("digits.onnx")
    assert [name for name, _ in printed] == classifier.predict_names(x)
    np.testing.assert_allclose(
        [float(p) for _, p in printed], classifier.predict_proba(x).max(1), atol=2e-6
    )


def test_numpy_example_needs_numpy_alone():
    source = (EXAMPLES / "numpy_only.py").read_text()
    imported = {
        line.split()[1] for line in source.splitlines() if line.startswith(("import", "from"))
    }
    assert imported == {"json", "sys", "collections.abc", "pathlib", "typing", "numpy"}


def test_fashion_mnist_reaches_its_accuracy(cli_folder, capsys):
    if not FASHION_MNIST.is_dir():
        reason = "Debian's package dataset-fashion-mnist is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    config = str(EXAMPLES / "fashion_mnist.yaml")
    assert smx_lightning(["fit", "--config", config, "--trainer.enable_progress_bar=false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (accuracy,) = (line.split()[-1] for line in lines if line.startswith("test accuracy micro"))
    assert float(accuracy) >= 0.84
