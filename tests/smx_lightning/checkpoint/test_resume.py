"""A checkpoint against what is given besides it: explicit arguments win, or are refused.

The judges are numpy on the model's probabilities, scikit-learn, and the values that were given.
"""

import csv
import functools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sampled import sampled
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

import smx_export.__main__
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.cli import main
from smx_lightning.optim import ExactSolver

N = 120
X = (np.random.default_rng(0).normal(size=(N, 4)) * [1, 10, 1, 1] + [0, 50, 0, 0]).astype("f4")
LOGIT = (X[:, 1] - 50) / 4 + X[:, 0]
Y = (LOGIT + np.random.default_rng(1).logistic(size=N) > 0.5).astype(int)
NAMES = np.array(["no", "yes"])
RUN = [
    *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    *("--trainer.max_epochs=3", "--data=NpzDataModule", "--data.path=d.npz"),
]

ADAM = "--model.optimizer=torch.optim.Adam"


def save_data(folder):
    """Every row is a training and a test row."""
    y = NAMES[Y]
    np.savez(folder / "d.npz", x=X, y=y, x_val=X, y_val=y, x_test=X, y_test=y)


@pytest.fixture
def folder(cli_folder):
    """The working folder, with data."""
    save_data(cli_folder)
    return cli_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of the command line, with settings of its own; to be copied."""
    folder = tmp_path_factory.mktemp("run")
    more = ["--model.threshold=0.3", "--model.l2=0.02", "--model.optimizer=SGD"]
    schedule = ["--model.lr_scheduler=ExponentialLR", "--model.lr_scheduler.gamma=0.5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["smx-lightning"])
        save_data(folder)
        assert main(["fit", *RUN, *more, "--model.optimizer.lr=0.25", *schedule]) == 0
    return folder


@pytest.fixture
def ckpt(cli_folder, run):
    """The path of the run's checkpoint, in the working folder, which is as the run left it."""
    shutil.copytree(run, cli_folder, dirs_exist_ok=True)
    return "lightning_logs/version_0/checkpoints/last.ckpt"


def rows():
    return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=40)


def saved(path, **kwargs):
    model, trainer = SoftmaxRegression(4, 2, **kwargs), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(path)
    return model


def measured(printed):
    lines = (line.split() for line in printed.splitlines())
    return next(float(words[-1]) for words in lines if words[:3] == ["test", "accuracy", "micro"])


@pytest.mark.parametrize(
    ("given", "threshold"),
    sampled(
        [
            ([], 0.3),
            (["--model.threshold=0.01"], 0.01),
            (["--model.threshold=0.9"], 0.9),
            (["--model.threshold=null"], 0.5),
            (["--config=given.yaml"], 0.8),
            (["--model.l2=0.02"], 0.3),
        ],
        every=2,
    ),
)
def test_an_explicit_threshold_wins(ckpt, given, threshold, capsys):
    Path("given.yaml").write_text("model:\n  init_args:\n    threshold: 0.8\n")
    capsys.readouterr()
    config = [word for word in given if word.startswith("--config")]
    rest = [word for word in given if word not in config]
    assert main(["test", *config, *RUN, f"--ckpt_path={ckpt}", *rest]) == 0
    model = SoftmaxRegression.load_from_checkpoint(ckpt)
    p = model(torch.from_numpy(X)).exp()[:, 1].detach().numpy()
    expected = accuracy_score(Y, (p >= threshold).astype(int))
    assert measured(capsys.readouterr().out) == pytest.approx(expected, abs=5e-5)


def test_resuming_takes_the_checkpoint_s_settings_and_shows_them(ckpt):
    assert main(["fit", *RUN, f"--ckpt_path={ckpt}", "--trainer.max_epochs=4"]) == 0
    run = Path("lightning_logs/version_1")
    shown = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert (shown["l2"], shown["threshold"], shown["preprocessing"]) == (0.02, 0.3, "standardize")
    assert shown["optimizer"]["class_path"] == "torch.optim.SGD"
    assert shown["optimizer"]["init_args"]["lr"] == 0.25
    assert shown["lr_scheduler"]["init_args"]["gamma"] == 0.5
    hparams = yaml.safe_load((run / "hparams.yaml").read_text())
    assert hparams["optimizer"]["init_args"]["lr"] == 0.25
    assert hparams["data_module"]["init_args"]["path"] == "d.npz"
    went_on = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert went_on["global_step"] == 4  # a batch an epoch
    (group,) = went_on["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.25 * 0.5**4)


@pytest.mark.parametrize(
    "changed", [{"num_classes": 0}, {"nesterov": 1.5}, {"lr": [1, 2]}, {"momentum": [1]}]
)
def test_an_optimiser_that_the_parser_would_refuse_is_not_shown(changed, ckpt):
    content = torch.load(ckpt, weights_only=True)
    content["hyper_parameters"]["optimizer"]["init_args"] |= changed
    torch.save(content, "changed.ckpt")
    assert main(["test", *RUN, "--ckpt_path=changed.ckpt"]) == 0
    (config,) = Path("lightning_logs").glob("version_1/config.yaml")
    shown = yaml.safe_load(config.read_text())["model"]["init_args"]
    assert shown["optimizer"] != content["hyper_parameters"]["optimizer"]
    assert shown["threshold"] == 0.3


@pytest.mark.parametrize(
    ("given", "both"),
    sampled(
        [
            (["--model.l2=0.5"], ("l2=0.5", "l2=0.02")),
            (["--model.class_weight=balanced"], ("class_weight='balanced'", "class_weight=None")),
            (["--model.preprocessing=none"], ("preprocessing='none'", "'standardize'")),
            (["--model.optimizer=Adam"], ("was Adam(lr=0.01),", "got SGD(lr=0.25);")),
            (
                ["--model.optimizer=SGD", "--model.optimizer.lr=0.1"],
                ("SGD(lr=0.1)", "SGD(lr=0.25)"),
            ),
            (
                ["--model.lr_scheduler=ExponentialLR", "--model.lr_scheduler.gamma=0.9"],
                ("ExponentialLR(gamma=0.9)", "ExponentialLR(gamma=0.5)"),
            ),
            (["--model.lr_scheduler=null"], ("was none", "ExponentialLR(gamma=0.5)")),
        ],
        every=3,
    ),
)
def test_resuming_with_another_objective_or_optimiser_is_refused(ckpt, given, both, capsys):
    capsys.readouterr()
    assert main(["fit", *RUN, f"--ckpt_path={ckpt}", *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("smx-lightning: expected a checkpoint")
    assert all(value in line for value in both), line
    assert not list(Path("lightning_logs").glob("version_1/**/*.ckpt"))


def test_the_remedies_of_a_refusal_work(ckpt):
    loaded = SoftmaxRegression.load_from_checkpoint(ckpt, l2=0.5)
    assert (loaded.l2, loaded.threshold, loaded.preprocessing.method) == (0.5, 0.3, "standardize")
    mean = loaded.preprocessing.mean.clone()
    quiet_trainer(max_epochs=2).fit(loaded, rows())
    assert torch.equal(loaded.preprocessing.mean, mean)
    other = SoftmaxRegression.load_from_checkpoint(ckpt, optimizer=functools.partial(Adam, lr=0.1))
    assert other.configure_optimizers()["optimizer"].defaults["lr"] == 0.1
    assert other.threshold == 0.3


def test_another_preprocessing_is_refused_wherever_weights_are_loaded(tmp_path):
    path = tmp_path / "c.ckpt"
    saved(path, preprocessing="standardize")
    refused = "with preprocessing='none', as the model has, got one with 'standardize'"
    for run in ("test", "validate", "predict", "fit"):
        with pytest.raises(InputError, match=refused):
            getattr(quiet_trainer(), run)(SoftmaxRegression(4, 2), rows(), ckpt_path=path)
    with pytest.raises(InputError, match=refused):
        SoftmaxRegression.load_from_checkpoint(path, preprocessing="none")
    for fits in ({"num_features": 5}, {"num_classes": 3, "class_names": ["a", "b", "c"]}):
        with pytest.raises(InputError, match="expected a checkpoint of"):
            SoftmaxRegression.load_from_checkpoint(path, **fits)
    model = SoftmaxRegression(4, 2, preprocessing="standardize")
    quiet_trainer().test(model, rows(), ckpt_path=path, verbose=False)  # the remedy


def test_names_may_be_given_anew(tmp_path):
    saved(tmp_path / "c.ckpt", class_names=["a", "b"])
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt", class_names=["x", "y"])
    assert loaded.class_names == ("x", "y")


def test_a_checkpoint_knows_what_was_set_on_the_model(tmp_path):
    model = SoftmaxRegression(4, 2, l2=0.1)
    model.l2, model.threshold, model.class_weight = 0.7, 0.2, [1.0, 3.0]
    trainer = quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    assert (loaded.l2, loaded.threshold, loaded.class_weight) == (0.7, 0.2, [1.0, 3.0])
    given = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt", l2=0.3)
    assert (given.l2, given.threshold) == (0.3, 0.2)
    with pytest.raises(InputError, match=r"l2=0\.1, as the model has.* got one with l2=0\.7"):
        quiet_trainer().fit(SoftmaxRegression(4, 2, l2=0.1), rows(), ckpt_path=tmp_path / "c.ckpt")


def test_a_subclass_s_own_arguments_are_compared(tmp_path, caplog):
    class Power(SoftmaxRegression):
        def __init__(self, power: int = 2, sizes=(1, 2), name: str = "a", threshold=None):
            super().__init__(4, 2, threshold=threshold)
            self.power = power

        def features(self, x):
            return x**self.power

    path, trainer = tmp_path / "c.ckpt", quiet_trainer()
    trainer.fit(Power(), rows())
    trainer.save_checkpoint(path)
    for other in ({"power": 3}, {"sizes": (1, 3)}, {"name": "b"}):
        with pytest.raises(InputError, match=f"with {next(iter(other))}=.*, as the model has"):
            quiet_trainer().fit(Power(**other), rows(), ckpt_path=path)
    quiet_trainer(max_epochs=2).fit(Power(sizes=[1, 2]), rows(), ckpt_path=path)
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        quiet_trainer().test(Power(3, threshold=0.2), rows(), ckpt_path=path, verbose=False)
    assert "which count: threshold=0.2 and not None, power=3 and not 2" in caplog.text
    assert Power.load_from_checkpoint(path, power=3).power == 3


@pytest.mark.parametrize(
    ("one", "other", "resumed"),
    [
        ({"costs": np.array([1, 1, 1])}, {"costs": np.array([100, 1, 1])}, False),
        ({"costs": np.array([1, 1, 1])}, {"costs": np.array([1, 1, 1])}, True),
        ({"costs": torch.ones(3)}, {"costs": torch.ones(3).double()}, False),
        ({"gamma": 1.0}, {"gamma": 50.0}, False),
        ({"mode": "ce"}, {"mode": "square"}, False),
        ({"mode": "here/rows.npz"}, {"mode": "there/rows.npz"}, True),
        ({"mode": "ce" * 200}, {"mode": "square"}, False),
        ({"mode": "here.npz"}, {"mode": "d.npz"}, True),  # a file that exists
    ],
)
def test_arguments_behind_kwargs_and_arrays_are_compared(one, other, resumed, folder):
    class Any(SoftmaxRegression):
        def __init__(self, costs=None, **kwargs):
            super().__init__(4, 2)
            self.hparams["saved by"] = id(self)  # no argument
            self.own = kwargs

    trainer = quiet_trainer()
    trainer.fit(Any(**one), rows())
    trainer.save_checkpoint("c.ckpt")
    again = quiet_trainer(max_epochs=2)
    if resumed:
        again.fit(Any(**other), rows(), ckpt_path="c.ckpt")
        assert again.current_epoch == 2
    else:
        with pytest.raises(InputError, match=f"with {next(iter(one))}=.*, as the model has"):
            again.fit(Any(**other), rows(), ckpt_path="c.ckpt")


SCHEDULED = {"lr_scheduler": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20)}


@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using 'interval'")
@pytest.mark.parametrize(
    ("made", "other", "told"),
    [
        ({}, {"optimizer": lambda ps: Adam(ps, lr=1e-5)}, ("lr=1e-05", "lr=0.01")),
        (SCHEDULED, {"optimizer": lambda ps: Adam(ps, weight_decay=0.1)}, ("y=0.1", "y=0")),
    ],
)
def test_values_of_an_optimiser_of_0_1_are_compared(made, other, told, tmp_path):
    path = tmp_path / "c.ckpt"
    saved(path, **made)
    old_checkpoint(path)
    quiet_trainer(max_epochs=2).fit(SoftmaxRegression(4, 2, **made), rows(), ckpt_path=path)
    present, before = map(re.escape, told)
    model = SoftmaxRegression(4, 2, **{**made, **other})
    with pytest.raises(InputError, match=rf"was Adam\(.*{present}\), .* got one with .*{before};"):
        quiet_trainer(max_epochs=2).fit(model, rows(), ckpt_path=path)


def test_hparams_file_counts_in_place_of_the_checkpoint(tmp_path):
    path, file = tmp_path / "c.ckpt", tmp_path / "h.yaml"
    saved(path, l2=0.1, threshold=0.3)
    file.write_text("num_features: 4\nnum_classes: 2\nl2: 0.5\n")
    model = SoftmaxRegression.load_from_checkpoint(path, hparams_file=file)
    assert (model.l2, model.threshold) == (0.5, 0.3)


RUNS = {  # the run that was saved, and others: the same, or not
    "sgd": ({"optimizer": functools.partial(SGD, lr=0.1, momentum=0.9)}, ["its twin"]),
    "its twin": ({"optimizer": lambda ps: SGD(ps, lr=0.1, momentum=0.9)}, ["sgd"]),
    "momentum": ({"optimizer": functools.partial(SGD, lr=0.1, momentum=0.8)}, []),
    "adam": ({}, []),
    "exact": ({"optimizer": ExactSolver}, ["exact, tighter"]),
    "exact, tighter": ({"optimizer": functools.partial(ExactSolver, tol=1e-9)}, ["exact"]),
    "exact, less memory": ({"optimizer": functools.partial(ExactSolver, memory=3)}, []),
    "schedule": (
        {"lr_scheduler": functools.partial(lr_scheduler.StepLR, step_size=2)},
        ["its own twin"],
    ),
    "its own twin": ({"lr_scheduler": lambda o: lr_scheduler.StepLR(o, 2)}, ["schedule"]),
    "functions": ({"lr_scheduler": lambda o: lr_scheduler.LambdaLR(o, lambda e: 0.5)}, []),
}


@pytest.mark.parametrize("old", sampled(RUNS, every=4))
def test_a_run_is_resumed_by_its_equal_only(old, tmp_path):
    path = tmp_path / "c.ckpt"
    arguments, twins = RUNS[old]
    saved(path, l2=0.1, **arguments)
    for new, (others, _) in RUNS.items():
        trainer = quiet_trainer(max_epochs=2)
        model = SoftmaxRegression(4, 2, l2=0.1, **others)
        if new in (old, *twins):
            trainer.fit(model, rows(), ckpt_path=path)
            assert trainer.current_epoch == 2, new
            continue
        with pytest.raises(InputError, match="as the model has, to resume from, got"):
            trainer.fit(model, rows(), ckpt_path=path)


def test_weights_alone_are_no_run_to_resume(tmp_path):
    trainer = quiet_trainer()
    trainer.fit(SoftmaxRegression(4, 2), rows())
    trainer.save_checkpoint(tmp_path / "c.ckpt", weights_only=True)
    with pytest.raises(InputError, match="got one of the weights alone"):
        quiet_trainer().fit(SoftmaxRegression(4, 2), rows(), ckpt_path=tmp_path / "c.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
    quiet_trainer().fit(loaded, rows())


def old_checkpoint(path, **changes):
    """As version 0.1 wrote it."""
    content = torch.load(path, weights_only=True)
    for name in ("optimizer", "lr_scheduler", "data_module"):
        content["hyper_parameters"].pop(name)
    content["smx_lightning"].pop("settings")
    content["hyper_parameters"].update(changes)
    torch.save(content, path)


def test_checkpoints_of_0_1_load(folder, capsys):
    model = saved("old.ckpt", preprocessing="standardize", l2=0.1, class_names=["no", "yes"])
    cli = {"_class_path": "smx_lightning.SoftmaxRegression"}
    cli["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    old_checkpoint("old.ckpt", **cli)
    loaded = SoftmaxRegression.load_from_checkpoint("old.ckpt")
    assert torch.equal(loaded(torch.from_numpy(X)), model(torch.from_numpy(X)))
    assert not cli.keys() & loaded.hparams.keys()
    assert main(["test", *RUN, "--ckpt_path=old.ckpt"]) == 0
    assert smx_export.__main__.main(["convert", "old.ckpt", "old.onnx"]) == 0
    with pytest.raises(InputError, match="does not say which optimizer it was trained with"):
        quiet_trainer().fit(loaded, rows())
    same = {"preprocessing": "standardize", "l2": 0.1, "class_names": ["no", "yes"]}
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(SoftmaxRegression(4, 2, **same), rows(), ckpt_path="old.ckpt")
    assert trainer.current_epoch == 2
    for other in (SGD, functools.partial(SGD, momentum=0.9), ExactSolver):
        with pytest.raises(InputError, match="got one with amsgrad, betas, eps, lr, weight_decay"):
            quiet_trainer(max_epochs=2).fit(
                SoftmaxRegression(4, 2, **same, optimizer=other), rows(), ckpt_path="old.ckpt"
            )
    with pytest.raises(InputError, match=r"l2=0\.2, as the model has"):
        quiet_trainer(max_epochs=2).fit(
            SoftmaxRegression(4, 2, **{**same, "l2": 0.2}), rows(), ckpt_path="old.ckpt"
        )


def test_subclasses_with_any_arguments_load(tmp_path):
    class Wide(SoftmaxRegression):
        def __init__(self, num_classes: int, width: int = 4, **kwargs):
            super().__init__(width, num_classes, preprocessing="standardize", **kwargs)
            self.mix = nn.Linear(width, width)

        def features(self, x):
            return self.mix(x)

    model, trainer = Wide(2, l2=0.3, optimizer=functools.partial(SGD, lr=0.01)), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    loaded = Wide.load_from_checkpoint(tmp_path / "c.ckpt")
    assert loaded.l2 == 0.3
    assert loaded.configure_optimizers().defaults["lr"] == 0.01
    x = torch.from_numpy(X)
    assert torch.equal(loaded(x), model(x))
    with (
        pytest.warns(UserWarning, match="is of .*Wide; loaded as SoftmaxRegression"),
        pytest.raises(RuntimeError, match="Unexpected key"),
    ):
        SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")


def test_strict_and_hparams_file_as_lightning_s(tmp_path):
    model = saved(tmp_path / "c.ckpt", l2=0.3)
    content = torch.load(tmp_path / "c.ckpt", weights_only=True)
    content["state_dict"]["more"] = torch.zeros(1)
    torch.save(content, tmp_path / "more.ckpt")
    with pytest.raises(RuntimeError, match="Unexpected key"):
        SoftmaxRegression.load_from_checkpoint(tmp_path / "more.ckpt")
    with pytest.warns(UserWarning, match="The checkpoint has besides more"):
        loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "more.ckpt", strict=False)
    assert torch.equal(loaded.linear.weight, model.linear.weight)
    (tmp_path / "h.yaml").write_text("num_features: 4\nnum_classes: 2\nl2: 0.9\n")
    path, file = tmp_path / "c.ckpt", tmp_path / "h.yaml"
    assert SoftmaxRegression.load_from_checkpoint(path, hparams_file=file, l2=0.8).l2 == 0.8
    for bad in ("!!python/object/apply:os.mkdir [X]\n", "- 1\n", "a: [\n"):
        file.write_text(bad)
        with pytest.raises(InputError, match="by name"):
            SoftmaxRegression.load_from_checkpoint(path, hparams_file=file)


def predictions():
    with Path("p.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.whole
@pytest.mark.parametrize("labels", sampled(["subset", "unknown", "numbers"], named=["unknown"]))
def test_predict_asks_the_checkpoint_for_the_classes(labels, folder):
    """Not the data, whose rows may be of some classes only, or of none that anybody knows."""
    three = np.array(["a", "b", "c"])[(Y + (X[:, 2] > 0))]
    y = {"subset": three, "unknown": np.array(["zebra", "yak"])[Y], "numbers": 5 * Y}[labels]
    new = X[three != "b"]
    np.savez("d.npz", x=X, y=three)
    np.savez("new.npz", x=new, y=y[three != "b"])
    assert main(["fit", *RUN, ADAM]) == 0
    checkpoint = "lightning_logs/version_0/checkpoints/best.ckpt"
    given = [f"--ckpt_path={checkpoint}", "--predictions.path=p.csv", "--data.path=new.npz"]
    assert main(["predict", *RUN, *given]) == 0
    written = predictions()
    p = np.array([[float(row[f"p({name})"]) for name in "abc"] for row in written])
    model = SoftmaxRegression.load_from_checkpoint(checkpoint)
    expected = model(torch.from_numpy(new)).exp().detach().numpy()
    apart = np.abs(p[:, None] - expected[None]).max(2)
    assert apart.min(1).max() < 1e-6  # each is a row of the file
    assert [row["class"] for row in written] == ["abc"[k] for k in p.argmax(1)]
    assert main(["test", *RUN, *given[::2]]) == 2  # there the labels must be the checkpoint's


def test_predict_on_rows_of_another_width_says_so(folder, capsys):
    assert main(["fit", *RUN, ADAM]) == 0
    np.savez("wide.npz", x=np.c_[X, X], y=NAMES[Y])
    checkpoint = "lightning_logs/version_0/checkpoints/best.ckpt"
    capsys.readouterr()
    assert main(["predict", *RUN, f"--ckpt_path={checkpoint}", "--data.path=wide.npz"]) == 2
    assert "expected 4 features a row, got 8" in capsys.readouterr().err


def test_a_threshold_that_is_set_later_counts_in_the_metrics(tmp_path):
    """Also on a model from a checkpoint; what was counted before stays as it was."""
    model = saved(tmp_path / "c.ckpt")
    with torch.no_grad():
        chance = model(torch.from_numpy(X)).exp()[:, 1].numpy()
    for threshold in (0.05, 0.9, None):
        model.threshold = threshold
        trainer = quiet_trainer()
        trainer.test(model, rows(), verbose=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "c.ckpt")
        again = SoftmaxRegression.load_from_checkpoint(tmp_path / "c.ckpt")
        assert again.threshold == threshold
        for one in (model, again):
            trainer.test(one, rows(), verbose=False)
            truth = Y, (chance >= (threshold or 0.5)).astype(int)
            told = trainer.callback_metrics
            assert float(told["test/accuracy_micro"]) == pytest.approx(accuracy_score(*truth))
            macro = balanced_accuracy_score(*truth)
            assert float(told["test/accuracy_macro"]) == pytest.approx(macro)
            assert np.array_equal(one.confusion_matrix, confusion_matrix(*truth))
    with pytest.raises(InputError, match="threshold must lie between 0 and 1"):
        model.threshold = 7.0
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    tally = model.tallies["val"]
    tally.add(model(x), y)
    model.threshold = 0.9
    tally.add(model(x), y)
    right = [((chance >= at) == Y).mean() for at in (0.5, 0.9)]
    assert float(tally.compute()["val/accuracy_micro"]) == pytest.approx(np.mean(right))
