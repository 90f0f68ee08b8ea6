"""Which optimiser ``fit`` takes, and with which settings, where the user leaves that open."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from configurations import printed_config, saved_config
from sampled import sampled, whole
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from smx_lightning import SoftmaxRegression
from smx_lightning.cli import fitting, main
from smx_lightning.data import NpzDataModule

N = 90
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)) * [1, 5, 0.2, 1]
Y = (X @ RNG.normal(size=(4, 3)) + RNG.gumbel(size=(N, 3))).argmax(1)
DATA = ["--data=NpzDataModule", "--data.path=d.npz"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", *DATA]
TRIAL = [*QUIET, "--trainer.fast_dev_run=true"]  # one batch, and nothing is written
ADAM = "--model.optimizer=torch.optim.Adam"
EXACT = {"max_epochs": 1000, "batch_size": 65536, "monitor": "train/objective"}
MINI = {"max_epochs": 100, "batch_size": 256, "monitor": "val/nll"}
MODELS = """
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from smx_lightning import SoftmaxRegression
from smx_lightning.data import NpzDataModule


class Plain(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, note: str = "", **kwargs):
        super().__init__(num_features, num_classes, **kwargs)


class Careful(SoftmaxRegression):
    def __init__(
        self, num_features: int, num_classes: int, threshold: float | None = 0.4, **kwargs
    ):
        super().__init__(num_features, num_classes, threshold=threshold, **kwargs)


class Backbone(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, trained: bool = True, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.backbone = nn.Linear(num_features, num_features).requires_grad_(trained)

    def features(self, x):
        return self.backbone(x)


class Dropped(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, live: bool = True, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.dropout = nn.Dropout().train(live)

    def features(self, x):
        return self.dropout(x)


class Smoothed(Plain):
    def loss(self, log_probs, y):
        return nn.functional.nll_loss(log_probs, y) - 0.1 * log_probs.mean()


class Stepping(Plain):
    def training_step(self, batch, batch_idx):
        return self.objective(*batch)


class Clipped(Plain):
    def on_after_backward(self):
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)


class Penalised(Plain):
    def penalty(self):
        return self.linear.weight.abs().sum()


class Configured(Plain):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Prepared(Plain):
    def setup(self, stage):
        self.more = nn.Linear(2, 2)


class ByHand(Plain):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.automatic_optimization = False


class Fixed(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int):
        super().__init__(num_features, num_classes)


class ByDefault(SoftmaxRegression):
    def __init__(
        self,
        num_features: int,
        num_classes: int,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.1),
    ):
        super().__init__(num_features, num_classes, optimizer=optimizer)


class Within(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        kwargs["optimizer"] = lambda params: torch.optim.SGD(params, lr=0.1)
        super().__init__(num_features, num_classes, **kwargs)


class Paced(Plain):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.lr = 0.1


class OfOneSize(NpzDataModule):
    def __init__(self, path: str):
        super().__init__(path, batch_size=20)
"""


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """The working folder, with data and models."""
    monkeypatch.syspath_prepend(cli_folder)
    monkeypatch.delitem(__import__("sys").modules, "my_models", raising=False)
    Path("my_models.py").write_text(MODELS)
    np.savez("d.npz", x=X, y=Y)
    return cli_folder


def chosen(capsys):
    """What ``fit`` says of its optimiser."""
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("optimizer "))
    return line[21:]


def settings(config):
    """Those that suit an optimiser."""
    return {
        "max_epochs": config["trainer"]["max_epochs"],
        "batch_size": config["data"]["init_args"]["batch_size"],
        "monitor": config["checkpoint"]["monitor"],
    }


@pytest.mark.parametrize(
    ("given", "optimizer", "why"),
    sampled(
        [
            ("", "ExactSolver()", "to the exact optimum; for mini-batches give"),
            ("--model=SoftmaxRegression", "ExactSolver()", "to the exact optimum"),
            ("--model.lr_scheduler=null", "ExactSolver()", "to the exact optimum"),
            ("--model.l2=0 --model.preprocessing=none", "ExactSolver()", "to the exact optimum"),
            ("--model.optimizer=ExactSolver", "ExactSolver()", "as given; for mini-batches give"),
            (ADAM, "Adam(lr=0.01)", "as given; for the exact optimum give"),
            ("--model.optimizer.lr=0.1", "Adam(lr=0.1)", "as given"),
            ("--model.optimizer=SGD", "SGD(lr=0.01)", "as given"),
            ("--config=sgd.yaml", "SGD(lr=0.2)", "as given"),
            ("--config=sgd.yaml --model.optimizer=ExactSolver", "ExactSolver()", "as given"),
            (
                "--model.lr_scheduler=StepLR --model.lr_scheduler.step_size=1",
                "Adam(lr=0.01)",
                "for the lr_scheduler that is given",
            ),
            ("--model=my_models.Plain", "ExactSolver()", "to the exact optimum"),
            (
                "--model=my_models.Backbone",
                "Adam(lr=0.01)",
                "its linear layer alone; for the",
            ),
            ("--model=my_models.Backbone --model.trained=false", "ExactSolver()", "to the exact"),
            ("--model=my_models.Dropped", "Adam(lr=0.01)", "in train mode; for the exact optimum"),
            ("--model=my_models.Dropped --model.live=false", "ExactSolver()", "to the exact"),
            ("--model=my_models.Smoothed", "Adam(lr=0.01)", "Smoothed has its own loss"),
            ("--model=my_models.Stepping", "Adam(lr=0.01)", "has its own training_step"),
            ("--model=my_models.Clipped", "Adam(lr=0.01)", "has its own on_after_backward"),
            ("--model=my_models.Penalised", "Adam(lr=0.01)", "has its own penalty"),
            ("--model=my_models.Configured", "that of Configured", "its own configure_optimizers"),
            ("--model=my_models.Prepared", "Adam(lr=0.01)", "its own setup, which may add"),
            ("--model=my_models.ByHand", "Adam(lr=0.01)", "optimised by hand"),
            ("--model=my_models.Fixed", "Adam(lr=0.01)", "takes none; for the exact optimum let"),
            ("--model=my_models.ByDefault", "SGD(lr=0.1)", "has it by default; for the exact"),
            ("--model=my_models.Within", "SGD(lr=0.1)", "Within chooses it; for the exact"),
            ("--model=my_models.Paced", "Adam(lr=0.01)", "Paced chooses it; for the exact"),
            (f"--model=my_models.Within {ADAM}", "SGD(lr=0.1)", "Within chooses it; for the exact"),
            (f"--model=my_models.Configured {ADAM}", "that of Configured", "its own configure_op"),
        ],
        every=6,
    ),
)
def test_the_exact_solver_is_taken_for_a_plain_model(given, optimizer, why, folder, capsys):
    Path("sgd.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.2}}}}"
    )
    assert main(["fit", *TRIAL, *given.split()]) == 0
    line = chosen(capsys)
    assert line.startswith(f"{optimizer}, ")
    assert why in line


@pytest.mark.parametrize(
    "model", [whole("Plain"), "Backbone --model.trained=false", whole("ByDefault")]
)
def test_the_hint_for_the_other_optimiser_works(model, folder, capsys):
    other = {"ExactSolver": "Adam", "Adam": "ExactSolver", "SGD": "ExactSolver"}
    model = ["--model=my_models." + model.split()[0], *model.split()[1:]]
    assert main(["fit", *TRIAL, *model]) == 0
    first = chosen(capsys)
    hint = re.search(r"give (--model\.optimizer \S+)$", first)[1]
    given = [*model, *shlex.split(hint), "--checkpoint.dirpath=other"]
    assert main(["fit", *TRIAL, *given]) == 0
    assert chosen(capsys).partition("(")[0] == other[first.partition("(")[0]]


@pytest.mark.parametrize(
    ("given", "expected"),
    sampled(
        [
            ([], EXACT),
            (["--model.optimizer=ExactSolver"], EXACT),
            ([ADAM, "--trainer.max_epochs=1"], {**MINI, "max_epochs": 1}),
            (
                ["--trainer.max_epochs=50", "--data.batch_size=7"],
                {**EXACT, "max_epochs": 50, "batch_size": 7},
            ),
            (["--checkpoint.monitor=val/nll"], {**EXACT, "monitor": "val/nll"}),
            (["--trainer.overfit_batches=1"], {**EXACT, "batch_size": 256}),
            (["--trainer.limit_val_batches=1"], {**EXACT, "batch_size": 256}),
            (["--config=given.yaml"], {**EXACT, "max_epochs": 60, "batch_size": 8}),
            (["--model=my_models.Plain"], EXACT),
            # Whole: a short name is looked for among the classes of all tests before.
            (['--model={"class_path": "smx_lightning.SoftmaxRegression", "init_args": {}}'], EXACT),
            (["--model=my_models.Backbone", "--model.trained=false"], {**EXACT, "batch_size": 256}),
            (["--model=my_models.Backbone", "--trainer.max_epochs=1"], {**MINI, "max_epochs": 1}),
        ],
        every=6,
    ),
    ids=str,
)
def test_a_printed_configuration_is_what_runs(given, expected, folder, capsys):
    """What only the model itself can tell is left out of it, and settled alike when it is run."""
    Path("given.yaml").write_text(
        "trainer: {max_epochs: 60}\ndata: {class_path: NpzDataModule, init_args: {batch_size: 8}}"
    )
    config = [word for word in given if word.startswith("--config")]
    given = [*config, *QUIET, *(word for word in given if word not in config)]
    printed = printed_config(capsys, *given)
    assert main(["fit", *given]) == 0
    ran = saved_config()
    assert settings(ran) == expected
    if "optimizer" in printed["model"]["init_args"]:
        assert printed == ran
    Path("printed.yaml").write_text(yaml.safe_dump(printed))
    assert main(["fit", "--config=printed.yaml"]) == 0
    assert saved_config(1) == ran


def test_the_defaults_of_a_subclass_are_its_own(folder, capsys):
    """Those of SoftmaxRegression do not go before them, but the command line's own do."""
    arguments = printed_config(capsys, "--model=my_models.Careful")["model"]["init_args"]
    assert arguments["threshold"] == 0.4
    assert (arguments["l2"], arguments["preprocessing"]) == (1e-3, "standardize")


def test_apple_s_gpus_are_left_aside(cli_folder, capsys, monkeypatch):
    """They have no float64; whoever names the accelerator, or another optimiser, gets it."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert printed_config(capsys)["trainer"]["accelerator"] == "cpu"
    assert printed_config(capsys, ADAM)["trainer"]["accelerator"] == "auto"
    named = printed_config(capsys, "--trainer.accelerator=gpu")
    assert named["trainer"]["accelerator"] == "gpu"


def test_wide_rows_make_fewer_of_them_a_batch(folder, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "ENTRIES", 4 * 300)
    assert main(["fit", *QUIET]) == 0
    assert settings(saved_config()) == {**EXACT, "batch_size": 300}
    assert main(["fit", *QUIET, "--data.batch_size=5000"]) == 0
    assert settings(saved_config(1)) == {**EXACT, "batch_size": 5000}
    monkeypatch.setattr(fitting, "ENTRIES", 1)
    assert main(["fit", *QUIET]) == 0
    assert settings(saved_config(2)) == {**EXACT, "batch_size": 256}


def test_a_data_module_that_settles_its_batches_keeps_them(folder, capsys):
    assert main(["fit", *QUIET[:2], "--data=my_models.OfOneSize", "--data.path=d.npz"]) == 0
    assert saved_config()["data"]["init_args"] == {"path": "d.npz"}
    hparams = yaml.safe_load(Path("lightning_logs/version_0/hparams.yaml").read_text())
    assert hparams["optimizer"]["class_path"] == "smx_lightning.optim.ExactSolver"


def test_in_python_nothing_changes():
    assert NpzDataModule("d.npz").batch_size == 256
    model = SoftmaxRegression(4, 3)
    assert isinstance(model.configure_optimizers(), torch.optim.Adam)


def weights(version):
    path = f"lightning_logs/version_{version}/checkpoints/last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]["smx.0.weight"]


def test_a_resumed_run_goes_on_with_its_own_optimiser(folder, capsys):
    last = "--ckpt_path=lightning_logs/version_{}/checkpoints/last.ckpt"
    assert main(["fit", *QUIET, ADAM, "--trainer.max_epochs=1"]) == 0
    assert main(["fit", *QUIET, last.format(0), "--trainer.max_epochs=2"]) == 0
    assert capsys.readouterr().out.count("optimizer            Adam(lr=0.01), as ") == 2
    assert settings(saved_config(1)) == {**MINI, "max_epochs": 2}
    assert main(["fit", *QUIET, "--trainer.max_epochs=3"]) == 3
    capsys.readouterr()
    assert main(["fit", *QUIET, last.format(2)]) == 0
    assert chosen(capsys) == "ExactSolver(), as in the checkpoint"
    assert settings(saved_config(3)) == EXACT
    assert main(["fit", *QUIET]) == 0
    assert torch.equal(weights(3), weights(4))  # as of a run that nobody interrupted


def test_a_run_of_the_exact_solver_is_asked_without_a_warning(folder, recwarn):
    assert main(["fit", *QUIET]) == 0
    best = "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"
    np.savez("d.npz", x=X)  # nobody asks these rows for their labels
    assert main(["predict", *QUIET, best]) == 0
    np.savez("d.npz", x=X, y=Y)
    for subcommand in ("test", "validate"):
        assert main([subcommand, *QUIET, best]) == 0
    assert not [w for w in recwarn if "checkpoint" in str(w.message)]


@pytest.mark.parametrize(
    "options",
    sampled(
        [
            ["--trainer.gradient_clip_val=0.1"],
            ["--trainer.accumulate_grad_batches=2"],
            ["--trainer.limit_train_batches=1", "--data.batch_size=20"],
        ],
        every=3,
    ),
    ids=lambda options: options[0],
)
def test_options_that_it_refuses_go_with_the_optimiser_that_is_named(options, folder, capsys):
    run = ["fit", *QUIET, *options, "--trainer.max_epochs=2"]
    assert main(run) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert sentence.startswith("smx-lightning: the exact solver does not go with")
    remedy = re.search(r"with (--model\.optimizer [\w.]+)", sentence)[1]
    assert main([*run, *shlex.split(remedy)]) == 0
    assert chosen(capsys).startswith("Adam(")


@pytest.mark.whole
def test_many_prototypes_are_told_apart_as_scikit_learn_does(cli_folder, capsys):
    """Digits as 40 clusters, on which the solver once stopped at .72 and called it precision."""
    x = StandardScaler().fit_transform(load_digits().data)
    y = KMeans(40, random_state=0, n_init=1).fit_predict(x)
    np.savez("prototypes.npz", x=x, y=y)
    command = ["fit", QUIET[0], "--data=NpzDataModule", "--data.path=prototypes.npz"]
    assert main([*command, "--model.preprocessing=none"]) == 0
    (accuracy,) = re.findall(r"^test accuracy micro +(\S+)$", capsys.readouterr().out, re.M)
    splits = NpzDataModule("prototypes.npz").splits
    train, test = splits.train, splits.test
    peer = LogisticRegression(C=1 / (1e-3 * len(train)), tol=1e-6, max_iter=10000)
    expected = peer.fit(train.x, train.y).score(test.x, test.y)
    assert float(accuracy) >= 0.89
    assert float(accuracy) == pytest.approx(expected, abs=1.5 / len(test))
