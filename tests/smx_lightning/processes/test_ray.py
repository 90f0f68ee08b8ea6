"""The example of Ray Train: two workers, one verified file, and nothing left running."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from launchers import run
from tools import ROOT

from smx_export.runtime import OnnxClassifier

EXAMPLE = ROOT / "examples" / "ray_train.py"
if not os.environ.get("CI"):
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds its processes in /proc")


@pytest.mark.whole
def test_two_workers_train_test_and_export(digits, tmp_path):
    # Ray's sockets have room for 107 characters, so its own folder is not beneath tmp_path.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as session:
        command = [sys.executable, str(EXAMPLE)]
        environ = {"RAY_TMPDIR": session, "HOME": str(tmp_path)}
        ((code, output),) = run(command, folder=tmp_path, environ=[environ], timeout=240)
    assert code == 0, output
    accuracy, path = output.splitlines()[-2:]
    assert float(accuracy.removeprefix("test accuracy ")) > 0.95
    assert Path(path).is_relative_to(tmp_path)
    test = digits.splits.test
    assert (OnnxClassifier(path).predict(test.x.numpy()) == test.y.numpy()).mean() > 0.95
