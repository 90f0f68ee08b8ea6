"""The exit code of ``fit`` says whether the exact solver reached the optimum."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sampled import sampled

from smx_export.graph import written
from smx_lightning.cli import main
from smx_lightning.cli.outcome import outcome
from smx_lightning.optim.status import Status

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
Y = (X @ RNG.normal(size=(3, 3)) + RNG.gumbel(size=(N, 3))).argmax(1)
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
DATA = ["--data=NpzDataModule", "--data.path=d.npz"]
NOISY = """
import torch
from smx_lightning import SoftmaxRegression

class Noisy(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)

    def features(self, x):
        return x + torch.randn_like(x) if self.training else x
"""
REACHED = {  # a new status must be entered here
    Status.RUNNING: False,
    Status.CONVERGED: True,
    Status.PRECISION: True,
    Status.STALLED: False,
    Status.CHANGING: False,
    Status.SEPARABLE: False,
    Status.UNSEEN_CLASS: False,
}


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """The working folder, with data and a model whose features nobody knows twice."""
    monkeypatch.syspath_prepend(cli_folder)
    Path("noisy.py").write_text(NOISY)
    np.savez("d.npz", x=X, y=Y)
    np.savez("apart.npz", x=5 * np.eye(3)[Y] + 0.01 * X, y=Y)
    return cli_folder


@pytest.mark.parametrize("status", Status)
def test_every_status_is_told_apart(status):
    solver = SimpleNamespace(status=status, message=status.value, gap=0.0098, evaluations=17)
    trainer = SimpleNamespace(max_epochs=100, current_epoch=17)
    reached, line = outcome(SimpleNamespace(solver=solver), trainer)
    assert reached == REACHED[status]
    assert "(epochs: 17; at most about 0.01 of the objective to gain)" in line
    if status is not Status.RUNNING:
        assert line.startswith(status.value)
    assert reached or line.startswith("stopped")  # as the sentence on stderr goes on


def test_the_limit_of_precision_far_from_the_optimum_is_no_optimum():
    solver = SimpleNamespace(
        status=Status.PRECISION, message=Status.PRECISION.value, gap=0.5, evaluations=17
    )
    trainer = SimpleNamespace(max_epochs=100, current_epoch=17)
    reached, line = outcome(SimpleNamespace(solver=solver), trainer)
    assert not reached
    assert "far from the optimum: standardise, or take --trainer.precision 64-true" in line


@pytest.mark.parametrize(
    ("given", "code", "words"),
    sampled(
        [
            ([], 0, "converged: no entry of the gradient is larger than tol (epochs: "),
            (
                ["--model.optimizer=ExactSolver", "--model.optimizer.tol=0"],
                0,
                "stopped at the limit of the parameters' precision",
            ),
            (
                ["--trainer.max_epochs=2"],
                3,
                "before it converged: raise max_epochs, which is 2 (epochs: 2; ",
            ),
            (["--trainer.max_epochs=0"], 3, "raise max_epochs, which is 0 (no epoch was run)"),
            (
                ["--trainer.max_steps=2"],
                3,
                "stopped by the Trainer before it converged (epochs: 2; ",
            ),
            (["--data.path=apart.npz", "--model.l2=0"], 3, "has no minimum; set l2 above 0"),
            (["--data.class_names=[a,b,c,d]"], 3, "(without rows: 3)"),
            (
                ["--model=noisy.Noisy"],
                3,
                "the same weights gave another objective in another epoch",
            ),
            (["--model.optimizer=Adam", "--trainer.max_epochs=2"], 0, None),
            (["--trainer.fast_dev_run=true"], 0, None),
        ],
        every=3,
    ),
    ids=str,
)
@pytest.mark.filterwarnings("ignore:expected a training row of every class")
def test_the_code_and_the_summary_say_how_it_ended(given, code, words, folder, capsys):
    assert main(["fit", *QUIET, *DATA, *given]) == code
    printed = capsys.readouterr()
    told = re.findall(r"^solver +(.*)$", printed.out, re.M)
    assert len(told) == (words is not None)
    if words is not None:
        assert words in told[0]
        exported = "verdict              parity holds" in printed.out
        assert exported == ("no epoch was run" not in words)
    sentences = [s for s in printed.err.splitlines() if s.startswith("smx-lightning: ")]
    assert sentences == [f"smx-lightning: the exact solver {line}" for line in told if code == 3]


def test_failed_parity_goes_before_a_training_that_stopped_short(folder, monkeypatch, capsys):
    build = written.softmax_regression_graph
    monkeypatch.setattr(
        written,
        "softmax_regression_graph",
        lambda w, b, meta, **shift: build(w + 0.1 * (w * 0 + 1).cumsum(0), b, meta, **shift),
    )
    assert main(["fit", *QUIET, *DATA, "--trainer.max_epochs=2"]) == 1
    assert "the ONNX file is not the model" in capsys.readouterr().err


def test_a_checkpoint_that_leaves_no_epoch_is_not_called_converged(folder, capsys):
    run = ["fit", *QUIET, *DATA, "--trainer.max_epochs=2"]
    assert main(run) == 3
    capsys.readouterr()
    assert main([*run, "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"]) == 3
    assert "which is 2 (no epoch was run)" in capsys.readouterr().err


def test_a_converged_run_that_is_resumed_has_still_converged(folder, capsys):
    run = ["fit", *QUIET, *DATA]
    assert main(run) == 0
    assert main([*run, "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"]) == 0
