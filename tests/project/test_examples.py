"""Every example runs, in an empty folder."""

import os
import runpy
from pathlib import Path

import pytest
from sampled import whole
from tools import ROOT

from smx_lightning.cli import main as smx_lightning

EXAMPLES = ROOT / "examples"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quickstart", "parity holds"),
        whole(("sklearn_head", "the file gives the same labels: True")),
        whole(("backbone", "449 labelled rows")),
        whole(("existing_script", "'val/accuracy_macro'")),
        whole(("composition", "449 labelled rows")),
    ],
)
def test_script_runs(name, said, cli_folder, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert said in capsys.readouterr().out


def test_the_pictures_of_the_family_are_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["simplex.py", str(tmp_path / "pictures")])
    runpy.run_path(str(EXAMPLES / "simplex.py"), run_name="__main__")
    drawn = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in drawn} == {
        path.name for path in (ROOT / "docs/pictures").iterdir()
    }
    assert all(path.stat().st_size > 10_000 for path in drawn)


@pytest.mark.whole
def test_fashion_mnist_reaches_its_accuracy(cli_folder, capsys):
    if not FASHION_MNIST.is_dir():
        reason = "Debian's package dataset-fashion-mnist is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    config = str(EXAMPLES / "fashion_mnist.yaml")
    assert smx_lightning(["fit", "--config", config, "--trainer.enable_progress_bar=false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (accuracy,) = (line.split()[-1] for line in lines if line.startswith("test accuracy micro"))
    assert float(accuracy) >= 0.84
