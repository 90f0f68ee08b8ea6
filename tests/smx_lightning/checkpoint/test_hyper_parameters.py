"""Whatever arguments a model is made with: training, files, loading, resuming and Recovery go on.

What a value has to come back as stands beside it; what reads the files is torch's restricted reader
and PyYAML's safe one.
"""

import dataclasses
import enum
import functools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.optim import ExactSolver


class Colour(enum.Enum):
    """A user's own."""

    RED = "r"


@dataclasses.dataclass
class Config:
    """A user's own."""

    width: int = 3
    layer: object = None


def double(x):
    return x * 2


class Passive(SoftmaxRegression):
    """Leaves its hyper-parameters to the parent."""

    def __init__(self, value=None):
        super().__init__(4, 2)
        self.given = [value]  # a list, so that a module is none of this one's


class Saving(SoftmaxRegression):
    """Saves them once more itself, as most of Lightning's modules do."""

    def __init__(self, value=None):
        super().__init__(4, 2)
        self.save_hyperparameters()
        self.given = [value]


class Early(SoftmaxRegression):
    """Hands on whatever it is given, and saves without what Lightning's users leave out."""

    def __init__(self, value=None, **kwargs):
        super().__init__(4, 2, **kwargs)
        self.save_hyperparameters(ignore=["value", "optimizer"])
        self.given = [value]


class Behind(SoftmaxRegression):
    """A linear probe behind whatever module it is given."""

    def __init__(self, backbone, num_classes=2, class_names=None):
        super().__init__(5, num_classes, class_names=class_names, input_shape=(4,))
        self.backbone = backbone

    def features(self, x):
        return self.backbone(x)


def endless():
    value = []
    value.append(value)
    return value


PLAIN = {  # the value, and what it comes back as
    "float64": (np.float64(0.3), 0.3),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(3), 3),
    "bool": (np.True_, True),
    "str": (np.str_("a"), "a"),
    "path": (Path("a/b"), "a/b"),
    "dtype": (torch.float16, torch.float16),
    "size": (torch.Size([1, 2]), (1, 2)),
    "tuples": ((1, (2, np.int8(3))), (1, (2, 3))),
    "dict": ({"a": np.float64(2), 1: [np.str_("b")]}, {"a": 2.0, 1: ["b"]}),
    "nan": (float("nan"), float("nan")),
    "infinity": (np.inf, float("inf")),
}
OBJECTS = {
    "array": np.arange(3.0),
    "scalar array": np.array(3.0),
    "names": np.array(["a", "b"]),
    "tensor": torch.arange(3.0),
    "parameter": nn.Parameter(torch.ones(2)),
    "numpy's dtype": np.dtype("f4"),
    "lambda": lambda x: x,
    "function": double,
    "class": nn.ReLU,
    "partial": functools.partial(double),
    "module": nn.Linear(4, 4),
    "modules": {"a": [nn.Linear(4, 4)], "b": 3},
    "model": SoftmaxRegression(4, 2),
    "dataclass": Config(layer=nn.ReLU()),
    "enumeration": Colour.RED,
    "set": {1, 2},
    "bytes": b"ab",
    "generator": torch.Generator(),
    "lock": threading.Lock(),
    "library": torch,
    "keys": {(1, 2): 3},
    "endless": endless(),
}


def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(16) % 2), batch_size=8)


def trained(model, folder):
    """A trainer that has fitted, with its hyper-parameters as YAML and a checkpoint in a folder."""
    trainer = quiet_trainer(logger=CSVLogger(folder, name="", version=""), log_every_n_steps=1)
    trainer.fit(model, rows())
    trainer.save_checkpoint(folder / "c.ckpt")
    shown = yaml.safe_load((folder / "hparams.yaml").read_text())
    content = torch.load(folder / "c.ckpt", weights_only=True)
    return shown, content["hyper_parameters"]


def resumed(model, path, steps=4):
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, rows(), ckpt_path=path)
    assert trainer.global_step == steps


def cases(values, *others):
    """Every value with a class that saves its arguments itself; some with others too."""
    some = [name for name in ("float64", "tuples", "array", "lambda", "module") if name in values]
    return [(Saving, name) for name in values] + [(kind, n) for kind in others for n in some]


@pytest.mark.parametrize(("kind", "name"), cases(PLAIN, Passive))
def test_what_is_plain_comes_back_plain(kind, name, tmp_path):
    value, plain = PLAIN[name]
    shown, saved = trained(kind(value), tmp_path)
    assert repr(saved["value"]) == repr(plain)
    assert repr(kind(value).hparams["value"]) == repr(plain)
    listed = yaml.safe_load(yaml.safe_dump(shown["value"]))
    assert repr(listed) == repr(shown["value"])
    (again,) = kind.load_from_checkpoint(tmp_path / "c.ckpt").given
    assert repr(again) == repr(plain)
    resumed(kind(value), tmp_path / "c.ckpt")


@pytest.mark.parametrize(("kind", "name"), cases(OBJECTS, Passive, Early))
def test_what_is_not_is_left_out_and_asked_for(kind, name, tmp_path):
    value = OBJECTS[name]
    model = kind(value)
    shown, saved = trained(model, tmp_path)  # and nobody warns
    assert "value" not in {**shown, **saved, **model.hparams, **model.hparams_initial}
    assert saved["optimizer"]["class_path"] == "torch.optim.Adam"
    path = tmp_path / "c.ckpt"
    with pytest.raises(InputError, match=r"got value: .* give value yourself, with load_from_ch"):
        kind.load_from_checkpoint(path)
    assert kind.load_from_checkpoint(path, value=value).given == [value]
    resumed(kind(value), path)
    quiet_trainer().test(model, rows(), ckpt_path=path, verbose=False)


OURS = {  # arguments of the class itself, as other libraries give them
    "threshold": [np.float64(0.3), np.float32(0.25), np.array(0.3), torch.tensor(0.25)],
    "preprocessing": [np.str_("standardize")],
    "input_shape": [(np.int64(2), np.int32(2)), np.array([2, 2]), torch.Size([2, 2])],
    "input_range": [np.array([0.0, 9.0]), torch.tensor([0.0, 9.0]), (np.float32(0), np.int8(9))],
    "l2": [np.float32(0.5), np.array(0.5), torch.tensor(0.5)],
    "class_names": [np.array(["a", "b"]), (np.str_("a"), "b"), np.array([3, 4])],
    "class_weight": [np.array([1.0, 2.0]), np.str_("balanced"), {"1": np.float32(2)}],
    "activation": [np.str_("sparsemax"), {"alpha": np.float64(1.5)}],
    "num_classes": [np.int64(2), torch.tensor(2)],
}


class HandingOn(SoftmaxRegression):
    """Hands every argument on."""

    def __init__(self, num_classes=2, **kwargs):
        super().__init__(4, num_classes, **kwargs)


CASES = [(HandingOn, name, value) for name, values in OURS.items() for value in values]
CASES += [(SoftmaxRegression, name, values[0]) for name, values in OURS.items()]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_the_class_s_own_arguments_are_plain_whatever_library_they_come_from(
    kind, name, value, tmp_path
):
    given = {"num_classes": 2, name: value}
    if kind is SoftmaxRegression:
        given["num_features"] = 4
    model = kind(**given)
    _, saved = trained(model, tmp_path)
    path = tmp_path / "c.ckpt"
    again = kind.load_from_checkpoint(path)
    for attribute in ("class_names", "input_shape", "l2", "class_weight", "threshold"):
        assert getattr(again, attribute) == getattr(model, attribute)
    assert again.input_range == model.input_range
    assert again.preprocessing.method == model.preprocessing.method
    assert repr(again.activation) == repr(model.activation)
    assert export_onnx(path, tmp_path / "m.onnx", model_class=kind).report.passed
    resumed(kind(**given), path)
    assert type(saved[name]) in (bool, int, float, str, list, tuple, dict)


@pytest.mark.parametrize("name", ["array", "lambda", "module", "lock", "endless"])
def test_recovery_goes_on_whatever_the_arguments_are(name, tmp_path, capsys):
    class Killed(Exception):  # noqa: N818
        pass

    class Dying(Passive):
        dies = True

        def on_train_batch_end(self, *args):
            if self.dies and self.trainer.global_step == 3:
                raise Killed

    def run(dies):
        model = Dying(OBJECTS[name])
        model.dies = dies
        recovery = Recovery(str(tmp_path), every_n_steps=1)
        trainer = quiet_trainer(max_epochs=2, callbacks=[recovery], enable_checkpointing=True)
        trainer.fit(model, rows())
        return trainer.global_step

    with pytest.raises(Killed):
        run(dies=True)
    assert run(dies=False) == 4
    assert "Resuming the run of" in capsys.readouterr().err


@pytest.mark.parametrize("other", [np.arange(4.0), nn.Conv2d(1, 1, 1)])
def test_recovery_tells_other_objects_apart(other, tmp_path):
    class Ended(Exception):  # noqa: N818
        pass

    class Dying(Passive):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise Ended

    def run(value):
        callbacks = [Recovery(str(tmp_path), every_n_steps=1)]
        trainer = quiet_trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(Dying(value), rows())

    with pytest.raises(Ended):
        run(OBJECTS["array"])
    with pytest.raises(InputError, match=r"value=?.*; (set it back|leave value as it was)"):
        run(other)


def test_a_backbone_is_given_again_to_load_and_to_export(tmp_path):
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    names = np.array(["no", "yes"])
    model = Behind(net, class_names=names)
    trained(model, tmp_path)
    path = tmp_path / "c.ckpt"
    fresh = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    again = Behind.load_from_checkpoint(path, backbone=fresh)
    x = torch.randn(7, 4)
    assert torch.equal(again(x), model(x))
    assert again.class_names == ("no", "yes")
    with pytest.raises(InputError, match=r"export_onnx\(…, init_args=dict\(backbone=…\)\)"):
        export_onnx(path, tmp_path / "m.onnx", model_class=Behind)
    fresh = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    export_onnx(path, tmp_path / "m.onnx", model_class=Behind, init_args={"backbone": fresh})
    answers = OnnxClassifier(tmp_path / "m.onnx").predict_proba(x.numpy())
    np.testing.assert_allclose(answers, model(x).exp().detach().numpy(), atol=1e-6)


STEPPED = {  # with the numbers of np.logspace and of searches
    "lr": {"optimizer": functools.partial(torch.optim.SGD, lr=np.logspace(-2, 0, 3)[1])},
    "betas": {"optimizer": lambda params: torch.optim.Adam(params, betas=(np.float64(0.5), 0.9))},
    "gamma": {"lr_scheduler": functools.partial(schedules.ExponentialLR, gamma=np.float64(0.5))},
    "milestones": {
        "lr_scheduler": functools.partial(schedules.MultiStepLR, milestones=np.array([1, 3]))
    },
    "solver": {"optimizer": functools.partial(ExactSolver, tol=np.float64(1e-4)), "l2": 0.1},
}


@pytest.mark.parametrize("name", STEPPED)
def test_numpy_s_numbers_in_optimisers_and_schedules_are_plain_in_files(name, tmp_path):
    given = STEPPED[name]
    model, path = SoftmaxRegression(4, 2, **given), tmp_path / "c.ckpt"
    if name != "solver":
        model.lr = np.float64(0.25)
    _, saved = trained(model, tmp_path)  # which torch's restricted reader reads
    loaded = SoftmaxRegression.load_from_checkpoint(path)
    assert loaded.hparams["optimizer"] == saved["optimizer"]
    loaded.lr = model.lr
    resumed(loaded, path, steps=2 if name == "solver" else 4)
    made = loaded.configure_optimizers()
    expected = SoftmaxRegression(4, 2, **given).configure_optimizers()
    for one, other in zip(_settings(made), _settings(expected), strict=True):
        assert one == other


def _settings(made):
    """Class and settings of an optimiser and its schedule, but for the learning rate."""
    parts = made if isinstance(made, dict) else {"optimizer": made}
    schedule = parts.get("lr_scheduler", {}).get("scheduler")
    yield type(parts["optimizer"])
    yield {n: v for n, v in parts["optimizer"].defaults.items() if n != "lr"}
    for name in ("gamma", "milestones"):
        yield getattr(schedule, name, None)


def test_an_optimiser_that_is_ignored_comes_back_all_the_same(tmp_path):
    model = Early(optimizer=functools.partial(torch.optim.SGD, lr=0.5))
    trained(model, tmp_path)
    made = Early.load_from_checkpoint(tmp_path / "c.ckpt").configure_optimizers()
    assert (type(made), made.defaults["lr"]) == (torch.optim.SGD, 0.5)
