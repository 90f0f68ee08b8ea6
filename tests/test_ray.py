"""The example of Ray Train: two workers, one verified file, and nothing left running."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from smx_export.runtime import OnnxClassifier

EXAMPLE = Path(__file__).parent.parent / "examples" / "ray_train.py"
if not os.environ.get("CI"):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[train]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def running_in(*folders):
    """Names of the processes that work in the folders; Ray's rename themselves, and stay there."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            folder = (process / "cwd").readlink()
            if any(folder.is_relative_to(ours) for ours in folders):
                names.add((process / "comm").read_text().strip())
        except OSError:  # gone meanwhile, or another user's
            continue
    return names


def test_two_workers_train_test_and_export(digits, tmp_path):
    # Ray's sockets have room for 107 characters, so its own folder is not beneath tmp_path.
    with (
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as session,
        (tmp_path / "out").open("w") as out,
        (tmp_path / "err").open("w") as err,
    ):
        example = subprocess.Popen(
            [sys.executable, EXAMPLE],
            cwd=tmp_path,
            env=os.environ | {"RAY_TMPDIR": session},
            stdout=out,
            stderr=err,
        )
        seen = set()
        deadline = time.monotonic() + 240
        try:
            while example.poll() is None and time.monotonic() < deadline:
                seen |= running_in(tmp_path, session)
                time.sleep(0.2)
        finally:
            example.terminate()  # Ray cleans up after SIGTERM, less so after SIGKILL
            example.wait(60)
        assert example.returncode == 0, (tmp_path / "err").read_text()
        assert {"raylet", "gcs_server", "ray::RayTrainWo"} <= seen

        deadline = time.monotonic() + 10
        while running_in(tmp_path, session) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not running_in(tmp_path, session)

    accuracy, path = (tmp_path / "out").read_text().splitlines()
    assert float(accuracy.removeprefix("test accuracy ")) > 0.95
    assert Path(path).is_relative_to(tmp_path)
    test = digits.splits.test
    assert (OnnxClassifier(path).predict(test.x.numpy()) == test.y.numpy()).mean() > 0.95
