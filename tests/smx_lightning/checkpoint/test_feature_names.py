"""Names of features in training: where they come from, that they stay, what they refuse."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.checkpoint import read_checkpoint
from smx_lightning.cli import main
from smx_lightning.data import NpzDataModule

NAMES = ["größe, cm", "age", "=sum"]
OTHERS = ["größe, cm", "=sum", "age"]
X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


def data(path, **arrays):
    np.savez(path, **{"x": X, "y": Y, **arrays})
    return NpzDataModule(path)


def model(names=NAMES, **arguments):
    return SoftmaxRegression(3, 3, feature_names=names, **arguments)


@pytest.fixture
def checkpoint(tmp_path):
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model(), data(tmp_path / "rows.npz", feature_names=NAMES))
    trainer.save_checkpoint(tmp_path / "named.ckpt")
    return tmp_path / "named.ckpt"


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (np.array(NAMES), NAMES),
        (np.array([NAMES]), NAMES),
        (np.array([10, 20, 30]), ["10", "20", "30"]),
    ],
)
def test_a_file_names_its_features(names, wanted, tmp_path):
    assert data(tmp_path / "rows.npz", feature_names=names).feature_names == wanted


def test_a_file_need_not_and_names_do_not_change_its_rows(tmp_path):
    bare, named = data(tmp_path / "bare.npz"), data(tmp_path / "named.npz", feature_names=NAMES)
    assert bare.feature_names is None
    assert torch.equal(bare.splits.train.x, named.splits.train.x)
    assert torch.equal(bare.all_inputs(), named.all_inputs())


def test_names_need_no_labels(tmp_path):
    np.savez(tmp_path / "rows.npz", x=X, feature_names=NAMES)
    assert NpzDataModule(tmp_path / "rows.npz").feature_names == NAMES


def test_pixels_have_a_name_each(tmp_path):
    images = X.reshape(45, 2, 2)
    names = [f"{r}, {c}" for r in range(2) for c in range(2)]
    rows = data(tmp_path / "rows.npz", x=images, y=Y[:45], feature_names=names)
    assert rows.splits.train.x.shape[1:] == (2, 2)
    with pytest.raises(InputError, match="to be 4, one an entry of an input, got 3; name each"):
        _ = data(tmp_path / "few.npz", x=images, y=Y[:45], feature_names=names[:3]).splits


def test_names_stay_in_a_checkpoint(checkpoint):
    assert SoftmaxRegression.load_from_checkpoint(checkpoint).feature_names == tuple(NAMES)
    assert read_checkpoint(checkpoint).hyper_parameters["feature_names"] == NAMES
    assert read_checkpoint(checkpoint).settings["feature_names"] == NAMES


def test_whoever_loads_may_rename(checkpoint):
    again = SoftmaxRegression.load_from_checkpoint(checkpoint, feature_names=["a", "b", "c"])
    assert again.feature_names == ("a", "b", "c")
    assert SoftmaxRegression.load_from_checkpoint(checkpoint, feature_names=None).feature_names is (
        None
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (OTHERS, "got 'age' in place of '=sum'; bring them, and what they stand for, into the sa"),
        (["a", "b", "c"], "got 'größe, cm' in place of 'a'; take the data that it was trained on"),
    ],
)
@pytest.mark.parametrize("run", ["fit", "test", "validate", "predict"])
def test_a_checkpoint_of_other_features_is_refused(run, names, said, checkpoint, tmp_path):
    rows = data(tmp_path / "bare.npz")
    with pytest.raises(InputError, match=f"a checkpoint with the model's 3 feature_names, {said}"):
        getattr(quiet_trainer(max_epochs=2), run)(model(names), rows, ckpt_path=checkpoint)


@pytest.mark.parametrize("names", [NAMES, None])
def test_a_checkpoint_of_the_same_features_or_of_unknown_ones_is_not(names, checkpoint, tmp_path):
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model(names), data(tmp_path / "bare.npz"), ckpt_path=checkpoint)
    assert trainer.current_epoch == 2


def test_rows_of_other_names_are_not_predicted(tmp_path):
    rows = data(tmp_path / "rows.npz", feature_names=OTHERS)
    for kept in (model(), model(["a", "b", "c"])):
        with pytest.raises(InputError, match="data with the model's 3 feature_names, got"):
            quiet_trainer(callbacks=[PredictionsInOrder()]).predict(kept, rows)
    quiet_trainer(callbacks=[PredictionsInOrder()]).predict(model(None), rows)


class Foreign(LightningDataModule):
    """Somebody else's data module, which names its features in an attribute."""

    num_features, num_classes, feature_names = 3, 3, np.array(NAMES)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=20)


class Squared(SoftmaxRegression):
    """Makes ten features of three inputs."""

    def __init__(self, num_classes: int = 3, **arguments):
        super().__init__(9, num_classes, input_shape=(3,), **arguments)

    def features(self, x):
        return (x[:, :, None] * x[:, None]).flatten(1)


@pytest.fixture
def foreign(cli_folder, monkeypatch):
    (cli_folder / "theirs.py").write_text(f"from {__name__} import Foreign, Squared\n")
    monkeypatch.setitem(__import__("sys").modules, "theirs", __import__("sys").modules[__name__])
    return ["fit", "--data=theirs.Foreign", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]


def test_somebody_elses_data_module_names_them(foreign, capsys):
    quiet = "--trainer.enable_progress_bar=false"
    assert main([*foreign, quiet, "--model.optimizer=Adam"]) == 0
    kept = SoftmaxRegression.load_from_checkpoint("lightning_logs/version_0/checkpoints/best.ckpt")
    assert kept.feature_names == tuple(NAMES)


def test_features_of_a_subclass_do_not_take_the_inputs_names(foreign, capsys):
    quiet = "--trainer.enable_progress_bar=false"
    assert main([*foreign, quiet, "--model=theirs.Squared", "--model.optimizer=Adam"]) == 0
    path = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert Squared.load_from_checkpoint(path).feature_names is None
