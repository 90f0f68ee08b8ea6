"""``--model.activation`` on the command line, in configuration files and of checkpoints."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import sparse_optima
import yaml
from configurations import printed_config, saved_config
from sampled import sampled

from smx_export import OnnxExport
from smx_lightning import SoftmaxRegression
from smx_lightning.cli import main

N = 90
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(N, 4)) * [1, 5, 0.2, 1]).astype("f4")
Y = (X @ RNG.normal(size=(4, 3)) + RNG.gumbel(size=(N, 3))).argmax(1)
DATA = ["--data=NpzDataModule", "--data.path=d.npz"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", *DATA]
TRIAL = [*QUIET, "--trainer.fast_dev_run=true"]
ADAM = "--model.optimizer=torch.optim.Adam"
CHECKPOINT = "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"
MODELS = """
from smx_lightning import SoftmaxRegression


class Sparse(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, activation="sparsemax", **kwargs)


class Usually(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, activation="entmax15", **kwargs):
        super().__init__(num_features, num_classes, activation=activation, **kwargs)
"""


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """The working folder, with data: every row is a training, validation and test row.

    What the ONNX file is is the business of the exporter's own tests.
    """
    for hook in ("on_fit_start", "on_fit_end"):
        monkeypatch.delattr(OnnxExport, hook)
    monkeypatch.syspath_prepend(cli_folder)
    monkeypatch.delitem(__import__("sys").modules, "sparse_models", raising=False)
    Path("sparse_models.py").write_text(MODELS)
    np.savez("d.npz", x=X, y=Y, x_val=X, y_val=Y, x_test=X, y_test=Y)
    return cli_folder


def summary(capsys):
    found = re.findall(r"^(.+?)(?: {2,}| (?=[\d.]+$))(.*)$", capsys.readouterr().out, re.M)
    return dict(found)


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ("--model.activation=sparsemax", "sparsemax"),
        ("--model.activation.alpha=1.3", {"alpha": 1.3}),
        ('--model.activation={"alpha":1.3}', {"alpha": 1.3}),
        ("--config=a.yaml", {"alpha": 1.75}),
        ("--config=a.yaml --model.activation=entmax15", "entmax15"),
        ("", "softmax"),
    ],
)
def test_every_way_to_name_one(folder, capsys, given, spec):
    Path("a.yaml").write_text("model: {init_args: {activation: {alpha: 1.75}}}")
    printed = printed_config(capsys, *DATA, *given.split())
    assert printed["model"]["init_args"]["activation"] == spec
    Path("printed.yaml").write_text(yaml.safe_dump(printed))
    assert printed_config(capsys, "--config=printed.yaml") == printed


@pytest.mark.parametrize(
    ("given", "optimizer", "monitor"),
    sampled(
        [
            ("--model.activation=sparsemax", "ExactSolver()", "train/objective"),
            ("--model.activation.alpha=1.3", "ExactSolver()", "train/objective"),
            ("--model=sparse_models.Sparse", "ExactSolver()", "train/objective"),
            ("--model.activation.alpha=2.5", "Adam(lr=0.01)", "val/loss"),
            (f"--model.activation=entmax15 {ADAM}", "Adam(lr=0.01)", "val/loss"),
            (f"--model=sparse_models.Sparse {ADAM}", "Adam(lr=0.01)", "val/loss"),
            (f"--model=sparse_models.Usually {ADAM}", "Adam(lr=0.01)", "val/loss"),
            (f"--model.activation=softmax {ADAM}", "Adam(lr=0.01)", "val/nll"),
            (f"--model.activation.alpha=1 {ADAM}", "Adam(lr=0.01)", "val/nll"),
            (
                f"--model.activation=sparsemax {ADAM} --checkpoint.monitor=val/brier",
                "Adam(lr=0.01)",
                "val/brier",
            ),
        ],
        every=2,
    ),
)
def test_optimiser_and_monitor_suit_it(folder, capsys, given, optimizer, monitor):
    arguments = [*QUIET, "--trainer.max_epochs=1", *given.split()]
    assert main(["fit", *arguments]) in (0, 3)  # one epoch ends no exact solver
    assert summary(capsys)["optimizer"].startswith(optimizer)
    assert saved_config()["checkpoint"]["monitor"] == monitor
    assert list(Path("lightning_logs/version_0/checkpoints").glob("best.ckpt"))


def test_why_adam_is_said(folder, capsys):
    assert main(["fit", *TRIAL, "--model.activation.alpha=2.5"]) == 0
    assert summary(capsys)["optimizer"] == (
        "Adam(lr=0.01), as activation {'alpha': 2.5} is no α-entmax of α from 1 to 2, which the "
        "exact solver expects"
    )


@pytest.mark.parametrize("given", ["alpha=2.5", "normmax=2", "alpha=1.001"])
def test_what_no_file_can_end_in_is_refused_before_training(cli_folder, capsys, given):
    np.savez("d.npz", x=X, y=Y)
    assert main(["fit", *QUIET, f"--model.activation.{given}"]) == 2
    assert "expected an activation that a file can end in" in capsys.readouterr().err
    assert not list(Path().glob("**/*.ckpt"))


@pytest.fixture
def run(folder, capsys):
    """A run by Adam, and its summary."""
    given = [*QUIET, ADAM, "--trainer.max_epochs=5", "--model.activation=sparsemax"]
    assert main(["fit", *given]) == 0
    return summary(capsys)


def test_the_summary_names_what_was_measured(run, capsys):
    model = SoftmaxRegression.load_from_checkpoint(CHECKPOINT.partition("=")[2])
    z = model.scores(model.linear.weight.new_tensor(X)).detach().double().numpy()
    p = sparse_optima.entmax(z, 2)
    losses = sparse_optima.entropy(p, 2) + ((p - np.eye(3)[Y]) * z).sum(1)
    expected = {
        "test loss": losses.mean(),
        "test zeros": (p == 0).mean(),
        "test support size": (p > 0).sum(1).mean(),
        "test label in support": (p[np.arange(N), Y] > 0).mean(),
        "test accuracy micro": (p.argmax(1) == Y).mean(),
    }
    assert {n: float(run[n]) for n in expected} == pytest.approx(expected, abs=1e-4)
    assert run["test nll"] == "inf"
    assert main(["test", *QUIET, CHECKPOINT]) == 0
    again = summary(capsys)
    assert {n: again[n] for n in run if n.startswith("test ")} == {
        n: v for n, v in run.items() if n.startswith("test ")
    }
    assert main(["test", *QUIET, CHECKPOINT, "--model.activation=entmax15"]) == 0
    p = sparse_optima.entmax(z, 1.5)
    assert float(summary(capsys)["test zeros"]) == pytest.approx((p == 0).mean(), abs=1e-4)


def test_predictions_have_zeros(run, folder):
    assert main(["predict", *QUIET, CHECKPOINT, "--predictions.path=p.csv"]) == 0
    with Path("p.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    model = SoftmaxRegression.load_from_checkpoint(CHECKPOINT.partition("=")[2])
    p = model(model.linear.weight.new_tensor(X)).exp().detach().numpy()
    found = np.array([row[2:] for row in rows[:N]], dtype=float)
    np.testing.assert_allclose(found, p, atol=1e-6)
    assert (found == 0).any()
    np.testing.assert_array_equal([row[1] for row in rows[:N]], p.argmax(1).astype(str))


def test_a_run_goes_on_with_its_own(run, folder, capsys):
    given = [*QUIET, CHECKPOINT, "--trainer.max_epochs=7"]
    assert main(["fit", *given]) == 0
    assert saved_config(1)["model"]["init_args"]["activation"] == "sparsemax"
    assert saved_config(1)["checkpoint"]["monitor"] == "val/loss"
    capsys.readouterr()
    assert main(["fit", *given, "--model.activation=entmax15"]) == 2
    assert "activation='sparsemax'; leave activation as it was" in capsys.readouterr().err
