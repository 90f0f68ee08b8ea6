"""Optimisers and schedules in hyper-parameters and checkpoints; the judge is torch itself."""

import functools
import inspect

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint.injected import restored
from smx_lightning.checkpoint.optimizers import KNOWN, MADE_OF_OBJECTS
from smx_lightning.data import DigitsDataModule
from smx_lightning.optim import ExactSolver

OPTIMIZERS = [k for k in KNOWN.values() if issubclass(k, torch.optim.Optimizer)]
OPTIMIZERS = [k for k in OPTIMIZERS if k.__name__ not in ("Muon", "ExactSolver")]  # matrices; ours
SCHEDULES = [
    functools.partial(lr_scheduler.StepLR, step_size=3, gamma=0.3),
    lambda o: lr_scheduler.StepLR(o, 3, 0.3),
    lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 5], 0.5),
    lambda o: lr_scheduler.ConstantLR(o, 0.25, 4),
    lambda o: lr_scheduler.LinearLR(o, 0.1, 0.9, 6),
    lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    lambda o: lr_scheduler.PolynomialLR(o, 8, 2.0),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 7, 1e-3),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 1e-3),
    functools.partial(lr_scheduler.OneCycleLR, max_lr=0.7, total_steps=12, pct_start=0.4),
]


def grouped(params):
    return SGD([{"params": list(params), "lr": 0.1, "momentum": 0.9}], lr=0.01)


class Mine(SGD):
    """A user's own."""


class Odd(SGD):
    """Keeps no record of an argument."""

    def __init__(self, params, lr=0.1, secret=0):
        super().__init__(params, lr=lr)


def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def rows(n=30):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(n) % 3), batch_size=10)


def trained(path, *, epochs=1, **kwargs):
    model, trainer = SoftmaxRegression(4, 3, **kwargs), quiet_trainer(max_epochs=epochs)
    trainer.fit(model, rows())
    trainer.save_checkpoint(path)
    return model


def rates(make, steps=12):
    optimizer = SGD(layer().parameters(), lr=0.2, momentum=0.9)
    schedule, seen = make(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", ["class", "partial", "lambda"])
def test_an_optimiser_comes_back_with_all_its_settings(kind, how, tmp_path):
    lr = 0.123
    make = {
        "class": kind,
        "partial": functools.partial(kind, lr=lr),
        "lambda": lambda params: kind(params, lr=lr),
    }[how]
    model, trainer = SoftmaxRegression(4, 3, optimizer=make), quiet_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    expected, restored = make(layer().parameters()), loaded.configure_optimizers()
    assert type(restored) is kind
    assert restored.defaults == expected.defaults
    description = loaded.hparams["optimizer"]
    assert description["class_path"] == f"torch.optim.{kind.__name__}"
    assert description["init_args"]["lr"] == expected.defaults["lr"]
    assert description == loaded.hparams_initial["optimizer"] == model.hparams["optimizer"]


@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using 'interval'")  # Lightning's
@pytest.mark.parametrize("make", SCHEDULES)
def test_a_schedule_comes_back_with_the_same_learning_rates(make, tmp_path):
    optimizer = functools.partial(SGD, lr=0.2, momentum=0.9)
    model = trained(tmp_path / "c.ckpt", epochs=2, optimizer=optimizer, lr_scheduler=make)
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    assert rates(loaded._lr_scheduler) == rates(make)
    assert loaded.hparams["lr_scheduler"] == model.hparams["lr_scheduler"]


def test_no_schedule_that_takes_functions_is_made_from_a_file():
    """As torch declares them, whatever classes it has."""
    for name, kind in vars(lr_scheduler).items():
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler):
            told = [str(p.annotation) for p in inspect.signature(kind).parameters.values()]
            objects = any("Callable" in text or "LRScheduler" in text for text in told)
            assert objects == (name in MADE_OF_OBJECTS), name


def test_the_plateau_schedule_and_the_exact_solver_come_back(tmp_path):
    plateau = functools.partial(ReduceLROnPlateau, monitor="train/nll", patience=3, min_lr=0.01)
    trained(tmp_path / "p.ckpt", lr_scheduler=plateau)
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "p.ckpt")
    schedule = loaded._lr_scheduler(Adam(layer().parameters()))
    assert (schedule.monitor, schedule.patience, schedule.min_lrs) == ("train/nll", 3, [0.01])
    solver = functools.partial(ExactSolver, tol=1e-3, memory=7)
    trained(tmp_path / "e.ckpt", optimizer=solver)
    restored = SoftmaxRegression.load_from_checkpoint(tmp_path / "e.ckpt").configure_optimizers()
    assert (type(restored), restored.tol, restored.memory) == (ExactSolver, 1e-3, 7)


def test_training_goes_on_with_the_optimiser_of_the_checkpoint(tmp_path):
    optimizer = functools.partial(SGD, lr=0.5, momentum=0.9)
    trained(tmp_path / "c.ckpt", optimizer=optimizer)
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    expected = SoftmaxRegression(4, 3)
    expected.load_state_dict(torch.load(tmp_path / "c.ckpt")["state_dict"])
    reference = SGD(expected.linear.parameters(), lr=0.5, momentum=0.9)
    for _ in range(2):  # by hand
        for x, y in rows():
            reference.zero_grad()
            nn.functional.cross_entropy(expected.linear(x), y).backward()
            reference.step()
    quiet_trainer(max_epochs=2).fit(loaded, rows())
    torch.testing.assert_close(loaded.linear.weight, expected.linear.weight, rtol=1e-5, atol=1e-6)


def test_a_live_description_is_the_injected_one(tmp_path):
    """What training began with, not what a schedule has made of it."""
    made = trained(
        tmp_path / "c.ckpt",
        epochs=3,
        optimizer=functools.partial(SGD, lr=0.4),
        lr_scheduler=functools.partial(lr_scheduler.ExponentialLR, gamma=0.1),
    )
    assert made.trainer.optimizers[0].param_groups[0]["lr"] < 0.01
    saved = torch.load(tmp_path / "c.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["optimizer"]["init_args"]["lr"] == 0.4
    assert saved["lr_scheduler"]["init_args"] == {"gamma": 0.1}


NOT_RESTORED = {
    "another's": (Mine, None, "Mine(lr="),
    "untold": (lambda params: Odd(params, secret=3), None, "Odd(lr=0.1)"),
    "groups": (
        lambda ps: SGD([{"params": [p], "lr": k + 1.0} for k, p in enumerate(ps)]),
        None,
        "",
    ),
    "a schedule of functions": (
        SGD,
        lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
        "LambdaLR()",
    ),
    "a chain": (
        SGD,
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o), lr_scheduler.StepLR(o, 1)], milestones=[1]
        ),
        "SequentialLR(",
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # SequentialLR's
@pytest.mark.parametrize("what", NOT_RESTORED)
def test_what_cannot_be_restored_predicts_and_asks_when_it_is_trained(what, tmp_path):
    optimizer, schedule, told = NOT_RESTORED[what]
    made = trained(tmp_path / "c.ckpt", optimizer=optimizer, lr_scheduler=schedule)
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    x = torch.randn(5, 4)
    assert torch.equal(loaded(x), made(x))
    argument = "lr_scheduler" if schedule else "optimizer"
    with pytest.raises(InputError, match=f"expected an? {argument} to train with") as refusal:
        quiet_trainer().fit(loaded, rows())
    assert told in str(refusal.value)
    assert f"load_from_checkpoint(…, {argument}=…)" in str(refusal.value)
    again = quiet_trainer()
    again.strategy.connect(loaded)
    again.save_checkpoint(tmp_path / "again.ckpt")  # forgets nothing
    for path in ("c.ckpt", "again.ckpt"):
        given = {argument: optimizer if argument == "optimizer" else schedule}
        quiet_trainer().fit(
            SoftmaxRegression.load_from_checkpoint(tmp_path / path, **given), rows()
        )


def test_a_class_that_the_caller_allows_is_made(tmp_path):
    trained(tmp_path / "c.ckpt", optimizer=functools.partial(Mine, lr=0.7, momentum=0.2))
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt", allow=(Mine,))
    made = loaded.configure_optimizers()
    assert (type(made), made.defaults["lr"], made.defaults["momentum"]) == (Mine, 0.7, 0.2)


def test_a_callable_is_tried_once_and_its_failure_is_its_own():
    calls = []

    def careful(params):
        calls.append(params)
        if params[0].is_meta:
            raise OSError("no")
        return SGD(params, lr=0.3)

    state = torch.random.get_rng_state()
    model = SoftmaxRegression(4, 3, optimizer=careful)
    fresh = SoftmaxRegression(4, 3)
    assert len(calls) == 1
    assert model.hparams["optimizer"]["partial"]
    trainer = quiet_trainer()
    trainer.fit(model, rows())
    assert len(calls) == 2
    assert model.hparams["optimizer"]["init_args"]["lr"] == 0.3  # seen by then
    torch.random.set_rng_state(state)
    drawing = SoftmaxRegression(4, 3, optimizer=lambda ps: SGD(ps, lr=float(torch.rand(()))))
    assert torch.equal(SoftmaxRegression(4, 3).linear.weight, fresh.linear.weight)
    assert drawing.hparams["optimizer"]["class_path"] == "torch.optim.SGD"


def test_loggers_show_optimiser_learning_rate_schedule_and_data(tmp_path):
    model = SoftmaxRegression(
        64,
        10,
        optimizer=functools.partial(SGD, lr=0.25),
        lr_scheduler=functools.partial(lr_scheduler.StepLR, step_size=2),
    )
    logger = CSVLogger(tmp_path)
    quiet_trainer(
        logger=logger, limit_train_batches=1, limit_val_batches=1, log_every_n_steps=1
    ).fit(model, DigitsDataModule(batch_size=100, seed=7))
    shown = yaml.safe_load((tmp_path / "lightning_logs/version_0/hparams.yaml").read_text())
    assert shown["optimizer"]["class_path"] == "torch.optim.SGD"
    assert shown["optimizer"]["init_args"]["lr"] == 0.25
    assert shown["lr_scheduler"]["init_args"] == {"step_size": 2, "gamma": 0.1}
    assert shown["data_module"] == {
        "class_path": "smx_lightning.data.digits.DigitsDataModule",
        "init_args": {"batch_size": 100, "val_fraction": 0.1, "test_fraction": 0.25, "seed": 7},
    }


def test_a_learning_rate_that_was_found_is_the_checkpoint_s(tmp_path):
    finder = LearningRateFinder(1e-4, 1, num_training_steps=40, early_stop_threshold=None)
    model = SoftmaxRegression(4, 3, optimizer=functools.partial(SGD, lr=1e-5))
    trainer = quiet_trainer(callbacks=[finder], default_root_dir=tmp_path)
    trainer.fit(model, rows(500))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    assert model.lr == finder.optimal_lr.suggestion() >= 1e-4
    assert loaded.configure_optimizers().param_groups[0]["lr"] == pytest.approx(model.lr)


def test_an_optimiser_of_a_subclass_s_own_is_described_when_training_begins(tmp_path):
    class Own(SoftmaxRegression):
        def configure_optimizers(self):
            return [SGD([p], lr=0.1 + k) for k, p in enumerate(self.parameters())][:1]

    model, trainer = Own(4, 3), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert model.hparams["optimizer"]["init_args"]["lr"] == 0.1
    again = quiet_trainer(max_epochs=2)
    again.fit(Own.load_from_checkpoint(tmp_path / "c.ckpt"), rows(), ckpt_path=tmp_path / "c.ckpt")
    assert again.global_step == 6


@pytest.mark.parametrize("fitted", [True, False])
def test_an_argument_that_a_subclass_saves_itself_is_described_all_the_same(fitted, tmp_path):
    class Saving(SoftmaxRegression):
        def __init__(self, optimizer=SGD, lr_scheduler=None):
            super().__init__(4, 3, optimizer=optimizer, lr_scheduler=lr_scheduler)
            self.save_hyperparameters()

    schedule = functools.partial(lr_scheduler.StepLR, step_size=4)
    model, trainer = Saving(functools.partial(SGD, lr=0.6), schedule), quiet_trainer()
    if fitted:
        trainer.fit(model, rows())
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    made = Saving.load_from_checkpoint(tmp_path / "c.ckpt").configure_optimizers()
    assert made["optimizer"].defaults["lr"] == 0.6
    assert made["lr_scheduler"]["scheduler"].step_size == 4


def test_an_optimiser_that_is_set_on_the_instance_is_the_one_described(tmp_path):
    model, trainer = SoftmaxRegression(4, 3), quiet_trainer()
    model.configure_optimizers = lambda: SGD(model.parameters(), lr=0.9)
    trainer.fit(model, rows())
    assert model.hparams["optimizer"]["class_path"] == "torch.optim.SGD"
    assert model.hparams["optimizer"]["init_args"]["lr"] == 0.9


@pytest.mark.parametrize(
    "schedule", [None, lambda o: lr_scheduler.LinearLR(o, 0.5), lambda o: ReduceLROnPlateau(o, "x")]
)
def test_the_settings_of_the_only_group_are_told(schedule):
    model = SoftmaxRegression(4, 3, optimizer=grouped, lr_scheduler=schedule)
    told = model.hparams["optimizer"]["init_args"]
    assert (told["lr"], told["momentum"]) == (0.1, 0.9)
    again = restored("optimizer", model.hparams["optimizer"])(layer().parameters())
    assert again.param_groups[0]["lr"] == 0.1
    assert again.param_groups[0]["momentum"] == 0.9
