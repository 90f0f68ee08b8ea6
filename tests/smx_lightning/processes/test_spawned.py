"""What a training in processes of Lightning's leaves its caller: all that one process leaves."""

import json
import sys

import numpy as np
import pytest
from launchers import run
from tools import SUPPORT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="cannot fork")

STRATEGIES = ["ddp_fork", *(pytest.param(s, marks=pytest.mark.whole) for s in ("ddp_spawn",))]


def answer_of(folder, *arguments):
    command = [sys.executable, SUPPORT / "spawned_job.py", *map(str, arguments)]
    ((code, output),) = run([*map(str, command)], folder=folder, timeout=300)
    assert code == 0, output
    return json.loads(output.rpartition("\nANSWER ")[2].splitlines()[0])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds."""
    folder = tmp_path_factory.mktemp("alone")
    return answer_of(folder, "auto", folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_caller_has_all_results(alone, strategy, tmp_path):
    found = answer_of(tmp_path, strategy, tmp_path)
    assert found.keys() == alone.keys()
    for name in ("weight", "probs", "objective", "best"):
        np.testing.assert_allclose(found.pop(name), alone[name], atol=1e-4, err_msg=name)
    assert found.pop("summary").keys() == alone["summary"].keys()
    assert found == {name: alone[name] for name in found}
    assert alone["status"] == "CONVERGED"
    assert sum(map(sum, alone["confusion"])) == len(alone["labels"]) == 51


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_refusal_is_one_sentence(strategy, tmp_path):
    said = answer_of(tmp_path, strategy, tmp_path, "refused")
    assert said.startswith("class_weight='balanced' needs a training sample of every class, got no")


@pytest.mark.whole
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_the_command_line_prints_its_summary(strategy, tmp_path):
    options = ["--trainer.devices", "2", "--trainer.strategy", strategy]
    command = [sys.executable, "-m", "smx_lightning", "fit", *options]
    ((code, output),) = run(command, folder=tmp_path, timeout=300)
    assert code == 0, output
    for row in ("test accuracy micro  0.97", "solver               converged", "verdict   "):
        assert row in output, output
    (version,) = (tmp_path / "lightning_logs").iterdir()
    for name in ("model.onnx", "confusion_matrix.csv", "config.yaml", "checkpoints/best.ckpt"):
        assert (version / name).is_file()
    logged = (version / "metrics.csv").read_text()
    assert "train/nll" in logged.splitlines()[0]
    assert "test/nll" in logged.splitlines()[0]
