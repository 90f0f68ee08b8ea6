"""What a notebook hands over: NumPy's numbers and arrays, and text that YAML made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import DigitsDataModule, IdxDataModule, NpzDataModule
from smx_lightning.optim import minimise


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """60 rows of three features, labels 0, 1, 2 in turn."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez(tmp_path / "rows.npz", x=x, y=np.arange(60) % 3)
    return tmp_path / "rows.npz"


@pytest.mark.parametrize("names", [np.array(["a", "b", "c"]), ("a", "b", "c"), np.array([7, 8, 9])])
def test_class_names_are_any_sequence(rows: Path, names: Any) -> None:
    data = NpzDataModule(rows, class_names=names)
    assert list(data.class_names) == [str(name) for name in names]


def test_class_names_of_images_are_an_array(tmp_path: Path) -> None:
    head = bytes([0, 0, 8])
    for part in ("train", "t10k"):
        images = (
            head + b"\3" + b"".join(n.to_bytes(4, "big") for n in (20, 1, 2)) + bytes(range(40))
        )
        labels = head + b"\1" + (20).to_bytes(4, "big") + bytes([0, 1] * 10)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    data = IdxDataModule(tmp_path, class_names=np.array(["no", "yes"]))
    assert list(data.class_names) == ["no", "yes"]


def test_settings_of_numpy_split_and_are_kept_as_plain_ones(rows: Path, tmp_path: Path) -> None:
    given = NpzDataModule(
        rows, None, np.int32(16), np.float64(0.25), np.float32(0.5), seed=np.int64(3)
    )
    plain = NpzDataModule(rows, None, 16, 0.25, 0.5, seed=3)
    assert torch.equal(given.splits.train.x, plain.splits.train.x)
    model = SoftmaxRegression(3, 3, preprocessing=np.str_("scale"))
    assert repr(model.preprocessing) == "Preprocessing(3, method='scale')"
    trainer = Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, given)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    kept = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]
    settings = kept["data_module"]["init_args"]
    assert (settings["seed"], settings["val_fraction"], settings["batch_size"]) == (3, 0.25, 16)


TEXT = yaml.safe_load("1e-3")  # a text in YAML 1.1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"l2": TEXT}, "l2 must be a number, got '1e-3'; write it without quotes, in YAML with"),
        ({"l2": None}, "l2 must be a number, got None"),
        ({"l2": np.ones(2)}, "l2 must be a number, got array"),
        ({"l2": torch.ones(2)}, "l2 must be a number, got tensor"),
        ({"threshold": ".3"}, "threshold must be a number, got '.3'"),
        ({"threshold": np.array([0.3, 0.4])}, "threshold must be a number, got array"),
        ({"num_features": 4.5}, "num_features must be a whole number, got 4.5"),
        ({"num_features": "4"}, "num_features must be a whole number, got '4'"),
        ({"num_features": float("nan")}, "num_features must be a whole number, got nan"),
        ({"num_classes": None}, "num_classes must be a whole number, got None"),
        ({"input_range": 5}, "input_range must be two finite numbers, the smaller first, got 5"),
        ({"input_range": "ab"}, "input_range must be two finite numbers"),
    ],
)
def test_what_is_no_number_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        SoftmaxRegression(**({"num_features": 4, "num_classes": 2} | settings))
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"batch_size": "64"}, "batch_size must be a whole number, got '64'"),
        ({"batch_size": 64.5}, "batch_size must be a whole number, got 64.5"),
        ({"val_fraction": "0.1"}, "val_fraction must be a number, got '0.1'"),
        ({"test_fraction": None}, "test_fraction must be a number, got None"),
        ({"val_fraction": 0}, "val_fraction must lie between 0 and 1, got 0"),
    ],
)
def test_settings_of_data_are_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        DigitsDataModule(**settings)
    assert str(refused.value).startswith(said)


def test_the_remedies_work() -> None:
    assert SoftmaxRegression(4, 3, l2=yaml.safe_load("1.0e-3")).l2 == 0.001
    assert SoftmaxRegression(np.float64(4), np.array(3)).num_features == 4
    assert type(SoftmaxRegression(4, 2, threshold=torch.tensor(0.5)).hparams["threshold"]) is float


def test_half_an_evaluation_is_refused() -> None:
    batches = [(torch.zeros(2, 3), torch.tensor([0, 1]))]
    with pytest.raises(InputError, match=r"max_evaluations must be a whole number, got 0\.5"):
        minimise(batches, 3, 2, l2=1.0, max_evaluations=0.5)  # type: ignore[arg-type]
