"""SECURITY.md's promise: no checkpoint runs code, through whatever entry point it is read.

Each hostile file would leave ``MARK`` behind: by a command, by importing a module of ours, or by a
pickle. The first tests show that it does where a reader believes it.
"""

import io
import os
import pickle
import re
import shutil
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.saving import _load_from_checkpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from sampled import sampled
from tools import installed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

import smx_export.__main__
import smx_lightning.cli
from smx_export import export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint.content import load_plain
from smx_lightning.checkpoint.reading import read_checkpoint

MARK, MODULE = "MARK", "leaves_a_mark"
COMMAND = {"class_path": "os.system", "init_args": {"command": f"touch {MARK}"}}
THING = f"{MODULE}.Thing"
IMPORT = {"class_path": THING, "init_args": {}}
INSTANTIATOR = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
pytestmark = pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`",  # Lightning's, about the file's callbacks
    "ignore:The checkpoint is of leaves_a_mark.Thing",
)
X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3
TYPED = """
from collections.abc import Callable
from typing import Any
from torch import nn
from smx_lightning import SoftmaxRegression

class Typed(SoftmaxRegression):
    def __init__(
        self,
        num_features: int,
        num_classes: int,
        backbone: nn.Module | None = None,
        act: Callable[[Any], Any] | None = None,
        kind: type | None = None,
        either: Callable[[Any], Any] | str = "text",
        several: list[nn.Module] | None = None,
    ):
        super().__init__(num_features, num_classes)
"""


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


# Hyper-parameters that ask for code to be run, by each way that a reader may know of.
ASKING = {
    "the issue's": {**INSTANTIATOR, "optimizer": COMMAND},
    "without its instantiator": {"optimizer": COMMAND},
    "a schedule": {**INSTANTIATOR, "lr_scheduler": COMMAND},
    "both": {"optimizer": COMMAND, "lr_scheduler": COMMAND},
    "an instantiator": {"_instantiator": THING, "optimizer": IMPORT},
    "a class path": {**INSTANTIATOR, "_class_path": THING},
    "a class path alone": {"_class_path": THING},
    "a schedule of functions": {
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.LambdaLR",
            "init_args": {"lr_lambda": f"{MODULE}.thing"},
        }
    },
    "an optimiser as text": {"optimizer": THING},
    "an imported optimiser": {**INSTANTIATOR, "optimizer": IMPORT},
    "nested in torch's own": {
        **INSTANTIATOR,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": COMMAND}},
    },
    "nested in a dict": {**INSTANTIATOR, "class_weight": {"0": COMMAND}},
    "nested in a list": {**INSTANTIATOR, "class_names": [COMMAND, IMPORT, "c"]},
    "a number": {**INSTANTIATOR, "l2": COMMAND},
    "a text": {**INSTANTIATOR, "preprocessing": THING},
    "everything": {
        **INSTANTIATOR,
        **dict.fromkeys(("l2", "threshold", "class_names", "input_shape", "class_weight"), IMPORT),
    },
}
# Other places of the file.
ELSEWHERE = {
    "hparams' name and type": {"hparams_name": "optimizer", "hparams_type": THING},
    "the data module's": {
        "datamodule_hyper_parameters": {**INSTANTIATOR, "_class_path": THING, "path": COMMAND},
        "datamodule_hparams_type": THING,
    },
    "callbacks": {"callbacks": {THING: COMMAND}},
    "older names": {"hparams": {**INSTANTIATOR, "optimizer": COMMAND}, "module_arguments": IMPORT},
    "no hyper-parameters": {"hyper_parameters": [COMMAND]},
    "another's class": {"smx_lightning": {"class": THING, "training": None}},
    "settings": {
        "smx_lightning": {
            "class": "smx_lightning.module.SoftmaxRegression",
            "training": None,
            "settings": {
                "l2": COMMAND,
                "threshold": IMPORT,
                "optimizers": {"optimizer": [COMMAND]},
            },
        }
    },
    "a pickle beside": {"extra": Bomb()},
    "a pickle in hyper-parameters": {"hyper_parameters": {"l2": Bomb()}},
    "a pickle in callbacks": {"callbacks": {"ModelCheckpoint": [Bomb()]}},
    "a pickle in the weights": {"state_dict": {"smx.0.weight": Bomb()}},
    "a pickle in the optimiser": {"optimizer_states": [{"state": Bomb(), "param_groups": []}]},
    "a pickle in our notes": {"smx_lightning": {"class": "x", "training": Bomb()}},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a good checkpoint, its export, and its data."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    model, trainer = SoftmaxRegression(4, 3, input_range=(-4, 4)), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(folder / "good.ckpt")
    export_onnx(folder / "good.ckpt", folder / "good.onnx")
    np.savez(folder / "good.npz", x=X, y=Y)
    return folder


@pytest.fixture
def content(good):
    """What is in the good checkpoint."""
    return torch.load(good / "good.ckpt", weights_only=True)


@pytest.fixture
def trap(cli_folder, monkeypatch):
    """The working folder; a module that leaves the mark when it is imported can be found."""
    (cli_folder / "traps").mkdir()
    (cli_folder / "traps" / f"{MODULE}.py").write_text(
        f"open({MARK!r}, 'w').close()\nclass Thing:\n    pass\ndef thing(epoch):\n    return 1\n"
    )
    monkeypatch.syspath_prepend(cli_folder / "traps")
    yield cli_folder
    sys.modules.pop(MODULE, None)


def rows():
    return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=20)


def forged(content, path, asking=None, **changes):
    changed = {**content, **changes}
    if asking is not None:
        changed["hyper_parameters"] = {**content["hyper_parameters"], **asking}
    torch.save(changed, path)
    return path


def sprung():
    return Path(MARK).exists() or MODULE in sys.modules


# Entry points: each takes the path of a checkpoint, and the folder of good files --------------


def ship(*arguments):
    return lambda path, good: smx_export.__main__.main(
        [word.format(path=path, good=good) for word in arguments]
    )


def train(subcommand, *more):
    words = (subcommand, "--data=NpzDataModule", "--data.path={good}/good.npz", *more)
    quiet = ("enable_progress_bar=false", "logger=false", "max_epochs=2", "accelerator=cpu")
    words += ("--ckpt_path={path}", *(f"--trainer.{option}" for option in quiet))
    return lambda path, good: smx_lightning.cli.main(
        [word.format(path=path, good=good) for word in words]
    )


def trainer_s(method):
    def run(path, good):
        trainer = quiet_trainer(max_epochs=2)
        getattr(trainer, method)(SoftmaxRegression(4, 3), rows(), ckpt_path=path)

    return run


def stream(path, good):
    with path.open("rb") as file:
        SoftmaxRegression.load_from_checkpoint(io.BytesIO(file.read()))


ENTRIES = {
    "convert": ship("convert", "{path}", "out.onnx"),
    "verify": ship("verify", "{good}/good.onnx", "--checkpoint", "{path}"),
    "web": ship("web", "{path}", "site"),
    "export_onnx": lambda path, good: export_onnx(path, "out.onnx"),
    "load": lambda path, good: SoftmaxRegression.load_from_checkpoint(path),
    "load weights_only": lambda path, good: SoftmaxRegression.load_from_checkpoint(
        path, map_location="cpu", weights_only=True
    ),
    "load all": lambda path, good: SoftmaxRegression.load_from_checkpoint(path, weights_only=False),
    "load a stream": stream,
    "read": lambda path, good: read_checkpoint(path),
    "read alone": lambda path, good: load_plain(path),
    **{f"cli {name}": train(name) for name in ("fit", "validate", "test", "predict")},
    **{f"trainer {name}": trainer_s(name) for name in ("fit", "validate", "test", "predict")},
}


def clean():
    """Take away what the command before has written."""
    Path("config.yaml").unlink(missing_ok=True)
    shutil.rmtree("checkpoints", ignore_errors=True)


def grid(variants, few):
    """Each entry point with each variant.

    Some commands read as ``fit`` does, and take a second each: they get a few variants only. In
    ``make test`` two entry points get all of them, the others the first of the few.
    """
    brief = ("cli validate", "cli test", "cli predict")
    pairs = [(e, what) for e in ENTRIES for what in variants if what in few or e not in brief]
    kept = [(e, what) for e, what in pairs if what in few[:1] or e in ("load", "trainer fit")]
    return pytest.mark.parametrize(("entry", "what"), sampled(pairs, named=kept))


def outcome(entry, path, good, capsys):
    """The exit code; of what is no command, as a command would have it."""
    capsys.readouterr()
    clean()
    try:
        code = ENTRIES[entry](path, good) or 0
    except InputError as error:
        code, told = 2, str(error)
    else:
        told = capsys.readouterr().err
    code = code if isinstance(code, int) else 0
    if code == 2:
        assert len([line for line in told.splitlines() if line.strip()]) == 1, told
        assert re.search("expected|must|needs|did not", told), told
    return code


@grid(ASKING, ("the issue's", "a class path", "both", "nested in a list"))
def test_no_entry_point_runs_what_a_checkpoint_asks_for(entry, what, good, content, trap, capsys):
    code = outcome(entry, forged(content, trap / "evil.ckpt", ASKING[what]), good, capsys)
    assert not sprung()
    assert code in (0, 2)


@grid(ELSEWHERE, ("a pickle beside", "settings"))
def test_nor_what_stands_elsewhere_in_it(entry, what, good, content, trap, capsys):
    code = outcome(entry, forged(content, trap / "evil.ckpt", **ELSEWHERE[what]), good, capsys)
    assert not sprung()
    assert code == 2 if "pickle" in what else code in (0, 2)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_good_file_passes_every_entry_point(entry, good, trap, capsys):
    if entry == "web":
        installed("onnxruntime-web-node")
    refused = outcome(entry, good / "good.ckpt", good, capsys) == 2
    assert refused == (entry == "load all")  # weights_only=False


@pytest.mark.filterwarnings("ignore")  # jsonargparse's, about os.system
def test_the_files_are_dangerous(content, trap):
    arguments = {"num_features": 4, "num_classes": 3, **ASKING["the issue's"]}
    path = forged(content, trap / "evil.ckpt", hyper_parameters=arguments)
    with suppress(InputError):  # an exit code is no optimiser: that is said when it has run
        _load_from_checkpoint(SoftmaxRegression, path, weights_only=True)  # as Lightning reads it
    assert Path(MARK).exists()
    Path(MARK).unlink()
    torch.load(forged(content, trap / "evil.ckpt", extra=Bomb()), weights_only=False)
    assert Path(MARK).exists()
    Path(MARK).unlink()
    __import__(MODULE)
    assert Path(MARK).exists()


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.startswith(("cli", "trainer"))])
def test_no_environment_variable_makes_it_unpickle(entry, good, content, trap, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = forged(content, trap / "evil.ckpt", extra=Bomb())
    assert outcome(entry, path, good, capsys) == 2
    assert not sprung()


def test_a_caller_who_trusts_the_trainer_s_file_says_so(good, content, trap):
    path = forged(content, trap / "trusted.ckpt", extra=Bomb())
    quiet_trainer().test(
        SoftmaxRegression(4, 3), rows(), ckpt_path=path, weights_only=False, verbose=False
    )
    assert sprung()


def test_a_url_is_read_as_plain_data(content, trap, monkeypatch):
    """What a server answers is unpickled by Lightning's own reader."""
    path = forged(content, trap / "evil.ckpt", extra=Bomb())
    url = f"file://{path}"
    for read in (SoftmaxRegression.load_from_checkpoint, lambda url: trainer_s("test")(url, None)):
        with pytest.raises(InputError, match="without running code from it"):
            read(url)
    assert not sprung()


VALUES = {"command": COMMAND, "text": THING, "list": [IMPORT]}
NAMES = ("backbone", "act", "kind", "either", "several")
OBJECTS = [(name, value) for name in NAMES for value in VALUES]


@pytest.mark.whole
@pytest.mark.parametrize(("name", "value"), sampled(OBJECTS, every=4, named=[("either", "text")]))
def test_what_a_subclass_takes_as_an_object_is_the_caller_s(
    name, value, good, content, trap, monkeypatch, capsys
):
    (trap / f"typed_{name}.py").write_text(TYPED)
    monkeypatch.syspath_prepend(trap)
    value = VALUES[value]
    typed = getattr(__import__(f"typed_{name}"), "Typed")  # noqa: B009
    notes = {**content["smx_lightning"], "class": f"typed_{name}.Typed"}
    hyper_parameters = {"num_features": 4, "num_classes": 3, name: value, **INSTANTIATOR}
    path = forged(
        content, trap / "evil.ckpt", hyper_parameters=hyper_parameters, smx_lightning=notes
    )
    for command in ("fit", "test", "predict"):
        run = train(command, f"--model=typed_{name}.Typed")
        clean()
        assert run(path, good) in (0, 2)
        assert not sprung()
    code = ship("convert", "{path}", "out.onnx", "--model-class", f"typed_{name}:Typed")(path, good)
    assert not sprung()
    plain = name == "either" and isinstance(value, str)  # a text is a text there
    assert code == (0 if plain else 2)
    if not plain:
        error = capsys.readouterr().err
        assert f"give {name} yourself, with load_from_checkpoint(…, {name}=…)" in error
        assert typed.load_from_checkpoint(path, **{name: None}).num_classes == 3


def test_lists_without_end_end(content, tmp_path, monkeypatch):
    monkeypatch.setattr("smx_lightning.checkpoint.plain.MOST_VALUES", 10_000)
    endless: list = []
    endless.append(endless)
    many = ["x"]
    for _ in range(31):
        many = [many, many]
    for value in (endless, many):
        path = forged(content, tmp_path / "evil.ckpt", {"class_weight": value})
        with pytest.raises(InputError, match="class_weight: a list without end"):
            SoftmaxRegression.load_from_checkpoint(path)


def test_new_checkpoints_hold_plain_hyper_parameters_only(tmp_path):
    class Sub(SoftmaxRegression):
        def __init__(self, net: nn.Module, path: Path, act=torch.relu, size=2.0):
            super().__init__(4, 3, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
            self.save_hyperparameters(ignore="net")
            self.net = net

    model, trainer = Sub(nn.Identity(), Path("a/b"), size=np.float32(2)), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "sub.ckpt")
    content = torch.load(tmp_path / "sub.ckpt", weights_only=True)
    saved = content["hyper_parameters"]
    assert saved["path"] == "a/b"
    assert saved["size"] == 2
    assert type(saved["size"]) is float
    assert not {"net", "act"} & saved.keys()
    assert "hparams_type" not in content
    pickle.loads(pickle.dumps(saved))
    with pytest.raises(InputError, match=r"got net: of type Identity, .* give net yourself"):
        Sub.load_from_checkpoint(tmp_path / "sub.ckpt")
    loaded = Sub.load_from_checkpoint(tmp_path / "sub.ckpt", net=nn.Identity())
    assert torch.equal(loaded.linear.weight, model.linear.weight)


class Scaled(SoftmaxRegression):
    """Its features depend on an argument that no checkpoint can hold."""

    def __init__(self, scale=None, act=torch.relu, **kwargs):
        super().__init__(4, 3, **kwargs)
        self.scale = torch.ones(4) if scale is None else torch.as_tensor(scale)

    def features(self, x):
        return super().features(x) * self.scale.to(x)


@pytest.mark.parametrize("scale", [np.array([1.0, 2, 3, 4]), torch.arange(4.0)])
def test_an_argument_that_no_file_can_hold_is_asked_for_by_name(scale, tmp_path):
    model, trainer, path = Scaled(scale), quiet_trainer(), tmp_path / "scaled.ckpt"
    trainer.fit(model, rows())
    trainer.save_checkpoint(path)
    (tmp_path / "hparams.yaml").write_text("l2: 0.5\n")
    for load in (
        Scaled.load_from_checkpoint,
        lambda path: Scaled.load_from_checkpoint(path, hparams_file=tmp_path / "hparams.yaml"),
        lambda path: export_onnx(path, tmp_path / "scaled.onnx", model_class=Scaled),
    ):
        with pytest.raises(
            InputError, match=r"got scale: of type .*load_from_checkpoint\(…, scale"
        ):
            load(path)
    assert read_checkpoint(path).left_out.keys() == {"scale"}  # act is the class's own default
    x = torch.from_numpy(X)
    loaded = Scaled.load_from_checkpoint(path, scale=scale)
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("wrapped", [1, 2])
def test_a_reader_around_the_trainer_s_reader_is_safe_too(wrapped, content, trap, monkeypatch):
    path = forged(content, trap / "evil.ckpt", extra=Bomb())
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for source in (f"file://{path}", path):
        for method in ("fit", "test", "predict"):
            io = AsyncCheckpointIO(AsyncCheckpointIO() if wrapped == 2 else None)
            trainer = quiet_trainer(plugins=[io], max_epochs=2)
            with pytest.raises(InputError, match="without running code from it"):
                getattr(trainer, method)(SoftmaxRegression(4, 3), rows(), ckpt_path=source)
            assert not sprung()


def weight(name, value):
    return lambda content: content["state_dict"].update({name: value})


CHANGED = {  # what nobody can have saved, and how it is said
    "weight as a list": (weight("smx.0.weight", [1.0]), "a list that is no dense tensor as smx"),
    "weight as text": (weight("smx.0.bias", "x"), "a str that is no dense tensor as smx.0.bias"),
    "sparse weight": (weight("smx.0.weight", torch.eye(3, 4).to_sparse()), "no dense tensor"),
    "counts as a number": (weight("class_counts", 5), "an int|a int"),
    "integer name": (weight(5, torch.zeros(2)), "a weight under the name 5"),
    "settings as text": (
        lambda content: content["smx_lightning"].update(settings="l2 class_weight"),
        "settings of a softmax regression in the checkpoint, got 'l2 class_weight'",
    ),
    **{
        f"{name} as {value!r}": (
            lambda content, name=name, value=value: content.update({name: value}),
            f"{name} of type|without parameter groups",
        )
        for name in ("optimizer_states", "lr_schedulers", "loops", "callbacks")
        for value in (5, "abc")
    },
    "optimiser's state": (
        lambda content: content.update(optimizer_states=[{"state": 5, "param_groups": [{}]}]),
        "without parameter groups",
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_changed_checkpoints_are_refused_in_a_sentence(what, content, tmp_path):
    change, told = CHANGED[what]
    change(content)
    path = forged(content, tmp_path / "changed.ckpt")
    model = SoftmaxRegression(4, 3)
    for read in (
        SoftmaxRegression.load_from_checkpoint,
        lambda path: export_onnx(path, tmp_path / "changed.onnx"),
        lambda path: quiet_trainer().test(model, rows(), ckpt_path=path, verbose=False),
        lambda path: quiet_trainer(max_epochs=2).fit(model, rows(), ckpt_path=path),
    ):
        with pytest.raises(InputError, match=told):
            read(path)


def test_an_input_shape_that_the_features_do_not_have_is_refused(content, tmp_path):
    path = forged(content, tmp_path / "huge.ckpt", {"input_shape": [10**12]})
    for read in (SoftmaxRegression.load_from_checkpoint, lambda path: export_onnx(path, "o.onnx")):
        with pytest.raises(InputError, match=r"input_shape of 4 entries, .* got \[1000000000000\]"):
            read(path)
    loaded = SoftmaxRegression.load_from_checkpoint(path, input_shape=(2, 2))
    assert loaded.input_shape == (2, 2)


def test_another_module_s_checkpoint_is_named(tmp_path):
    class Host(LightningModule):
        def __init__(self):
            super().__init__()
            self.head = SoftmaxRegression(4, 3)

    trainer = quiet_trainer()
    trainer.strategy.connect(Host())
    trainer.save_checkpoint(tmp_path / "host.ckpt")
    for method in ("fit", "test"):
        with pytest.raises(InputError, match=r"got one of another module, without smx.0.weight"):
            getattr(quiet_trainer(), method)(
                SoftmaxRegression(4, 3), rows(), ckpt_path=tmp_path / "host.ckpt"
            )


def test_messages_say_what_to_do(good, tmp_path):
    load = SoftmaxRegression.load_from_checkpoint
    with (good / "good.ckpt").open("rb") as file:
        load(file)
        with pytest.raises(InputError, match=r"at byte \d+, .*; rewind it with seek\(0\)"):
            load(file)
        file.seek(0)
        load(file)

    class Fixed(SoftmaxRegression):
        def __init__(self, **kwargs):
            super().__init__(4, 3, l2=0.5, **{n: kwargs[n] for n in kwargs if n != "num_features"})

    with pytest.raises(InputError, match="'l2'; leave l2 out"):
        Fixed.load_from_checkpoint(good / "good.ckpt", num_classes=3, l2=0.1)
    trainer, names = quiet_trainer(), [f"c{k}" for k in range(100)]
    trainer.strategy.connect(SoftmaxRegression(4, 100, class_names=names))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    other = SoftmaxRegression(4, 100, class_names=[*names[:70], "d", *names[71:]])
    with pytest.raises(InputError, match=r"'d', .* 70 of 100.*'c70', .* 70 of 100") as refused:
        quiet_trainer().test(other, rows(), ckpt_path=tmp_path / "c.ckpt")
    assert len(str(refused.value)) < 300


def test_one_class_is_allowed_alone(tmp_path):
    class Mine(torch.optim.SGD):
        pass

    model, trainer = SoftmaxRegression(4, 3, optimizer=partial(Mine, lr=0.3)), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    again = SoftmaxRegression.load_from_checkpoint(tmp_path / "mine.ckpt", allow=Mine)
    made = again.configure_optimizers()
    assert (type(made), made.defaults["lr"]) == (Mine, 0.3)


def test_an_optimiser_with_two_eps_trains():
    quiet_trainer().fit(SoftmaxRegression(4, 3, optimizer=torch.optim.Adafactor), rows())
