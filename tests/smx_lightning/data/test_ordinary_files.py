"""Files as people have them: names, packing, places, scales, columns of tables; final fits."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import idx_folder
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import ConfusionCsv
from smx_lightning.checkpoint import read_checkpoint
from smx_lightning.cli import main
from smx_lightning.data import (
    DigitsDataModule,
    IdxDataModule,
    InMemoryDataModule,
    Loaded,
    NpzDataModule,
    Rows,
)
from smx_lightning.data.named import read_named

Y, Y_TEST = np.arange(30) % 3, np.arange(9) % 3


@pytest.fixture
def idx(tmp_path):
    """A folder of IDX files, and what is in it."""
    (folder := tmp_path / "files").mkdir()
    return folder, idx_folder(folder, Y, Y_TEST)


def assert_read(path, images):
    data = IdxDataModule(path)
    np.testing.assert_array_equal(data.all_inputs().numpy(), np.concatenate([*images.values()]))
    np.testing.assert_array_equal(data.splits.test.y, Y_TEST)


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize(("suffix", "packed"), [("", False), ("", True), (".gz", True)])
def test_idx_files_are_read_under_their_usual_names_packed_or_not(idx, dot, suffix, packed):
    folder, images = idx
    for file in [*folder.iterdir()]:
        content = file.read_bytes()
        name = file.name.replace("-idx", ".idx") if dot else file.name
        file.unlink()
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if packed else content)
    assert_read(folder, images)


@pytest.mark.parametrize("below", ["MNIST/raw", "FashionMNIST/raw", "raw"])
def test_a_folder_of_torchvision_s_is_found_from_above(idx, below, tmp_path):
    folder, images = idx
    (target := tmp_path / "root" / below).parent.mkdir(parents=True)
    folder.rename(target)
    assert_read(tmp_path / "root", images)
    assert_read(target, images)


def test_several_data_sets_below_a_folder_are_told_apart_by_the_user(idx, tmp_path):
    folder, images = idx
    for name in ("MNIST", "KMNIST"):
        (tmp_path / "root" / name).mkdir(parents=True)
        idx_folder_again = tmp_path / "root" / name / "raw"
        idx_folder_again.mkdir()
        for file in folder.iterdir():
            (idx_folder_again / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"got several: KMNIST/raw, MNIST/raw; point path at one"):
        IdxDataModule(tmp_path / "root").load()
    assert_read(tmp_path / "root" / "MNIST", images)


def test_packed_content_under_a_plain_name_that_is_cut_short_is_refused(idx):
    folder, _ = idx
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(gzip.compress(file.read_bytes())[:-9])
    with pytest.raises(InputError, match=r"expected whole gzip data in .*-ubyte, got .*; the file"):
        IdxDataModule(folder).load()


# The home folder -----------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    x = np.arange(60.0).reshape(30, 2) % 7
    np.savez(tmp_path / "rows.npz", x=x, y=Y)
    np.savez(tmp_path / "~nobody-at-all.npz", x=x, y=Y)
    assert len(NpzDataModule("~/rows.npz").all_inputs()) == 30
    assert len(NpzDataModule("~nobody-at-all.npz").all_inputs()) == 30
    (tmp_path / "mnist").mkdir()
    assert_read("~/mnist", idx_folder(tmp_path / "mnist", Y, Y_TEST))
    model, data = SoftmaxRegression(2, 3), NpzDataModule("~/rows.npz")
    confusion = ConfusionCsv("~/confusion.csv")
    trainer = quiet_trainer(callbacks=[confusion])
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    trainer.test(model, data, ckpt_path="~/run.ckpt", verbose=False)
    assert confusion.written == tmp_path / "confusion.csv"
    assert confusion.written.is_file()
    assert read_checkpoint("~/run.ckpt").path == Path("~/run.ckpt")
    again = SoftmaxRegression.load_from_checkpoint("~/run.ckpt")
    assert torch.equal(again.linear.weight, model.linear.weight)
    assert again.to_onnx("~/model.onnx").is_file()
    assert (tmp_path / "model.onnx").is_file()
    assert not (tmp_path / "~").exists()


# Scales -------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 4), np.uint8)
PIXELS[0, 0] = 255


@pytest.mark.parametrize(
    ("train", "other", "sentence"),
    [
        (
            PIXELS,
            PIXELS / 255,
            r"got train inputs of 0 to 255 \(uint8\) and {} inputs of 0 to 1 \(f",
        ),
        (
            PIXELS / 255,
            PIXELS,
            r"got {} inputs of 0 to 255 \(uint8\) and train inputs of 0 to 1 \(f",
        ),
        (
            PIXELS.astype(float),
            PIXELS[:9] / 255,
            r"got train inputs of .* to 255 \(float32\) and {}",
        ),
        (
            PIXELS % 17,
            PIXELS % 17 / 16,
            r"got train inputs of 0 to 16 \(uint8\) and {} inputs of 0",
        ),
    ],
)
@pytest.mark.parametrize("split", ["val", "test"])
def test_splits_on_other_scales_are_refused_before_training(
    train, other, sentence, split, tmp_path
):
    given = {f"x_{split}": other, f"y_{split}": np.arange(len(other)) % 3}
    np.savez(tmp_path / "rows.npz", x=train, y=Y, **given)
    with pytest.raises(InputError, match=sentence.format(split) + ".*multiply the latter by 255"):
        _ = NpzDataModule(tmp_path / "rows.npz").splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (PIXELS, PIXELS[:9]),
        (PIXELS, PIXELS[:9].astype(float)),
        (PIXELS, np.zeros((9, 4))),  # black images are on every scale
        (PIXELS, (PIXELS[:9] > 128).astype(float)),
        (PIXELS / 255, PIXELS[:9] / 512),
        (PIXELS / 3, PIXELS[:9] / 255),  # measurements, for all that is known
        (PIXELS % 2, PIXELS[:9] / 255),
        (PIXELS.astype(float) - 100, PIXELS[:9] / 255),
        (PIXELS.astype(float) * 9, PIXELS[:9] / 255),
    ],
)
def test_scales_that_may_be_meant_are_taken(train, test, tmp_path):
    np.savez(tmp_path / "rows.npz", x=train, y=Y, x_test=test, y_test=Y_TEST)
    assert len(NpzDataModule(tmp_path / "rows.npz").splits.test) == 9


# Where the NaN is ---------------------------------------------------------------------------


@pytest.mark.parametrize(("array", "split"), [("x", "train"), ("x_val", "val"), ("x_test", "test")])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_a_nan_is_named_by_row_and_column_of_the_file(array, split, shape, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {}
    for name in ("x", "x_val", "x_test"):
        arrays |= {name: rng.normal(size=(30, *shape)), name.replace("x", "y"): Y}
    row, column = 17, 3 if len(shape) == 1 else (1, 0)
    arrays[array][row][column] = np.nan
    arrays[array][row + 4] = np.inf
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(InputError, match="remove or impute them: the first is ") as caught:
        _ = NpzDataModule(tmp_path / "rows.npz").splits
    assert f"row 17 of the {split} rows (2 such rows)" in str(caught.value)
    said = re.search(
        r"(column|entry) (.*?) of row (\d+) of (\w+) in (.*), counted", str(caught.value)
    )
    kind, place, at, name, file = said.groups()
    assert kind == ("column" if len(shape) == 1 else "entry")
    with np.load(file) as found:
        assert np.isnan(found[name][int(at)][eval(place) if len(shape) == 1 else (*eval(place),)])
    with pytest.raises(InputError, match=rf"of row 17 of {array} in .*rows.npz, counted from 0"):
        NpzDataModule(tmp_path / "rows.npz").predict_dataloader()


def test_a_data_module_of_one_s_own_names_the_split():
    class Own(InMemoryDataModule):
        def load(self):
            x = torch.zeros(30, 4)
            x[2, 1] = torch.nan
            return Loaded(Rows(x, torch.from_numpy(Y)), ("a", "b", "c"))

    with pytest.raises(InputError, match="first is column 1 of row 2 of the train inputs, counted"):
        _ = Own().splits


# Labels and inputs of other kinds -----------------------------------------------------------


def test_a_column_of_labels_is_one_label_a_row(tmp_path):
    x = np.arange(60.0).reshape(30, 2)
    np.savez(tmp_path / "rows.npz", x=x, y=Y[:, None], x_test=x[:9], y_test=Y_TEST[:, None])
    splits = NpzDataModule(tmp_path / "rows.npz").splits
    assert splits.test.y.tolist() == Y_TEST.tolist()


@pytest.mark.parametrize("labels", [torch.uint8, torch.uint16, torch.int16, torch.uint64])
@pytest.mark.parametrize("inputs", [torch.uint8, torch.uint16, torch.int32])
def test_tensors_of_any_integers_make_a_data_module(labels, inputs):
    x = torch.from_numpy(PIXELS.astype(np.int64))

    class Own(InMemoryDataModule):
        def load(self):
            return Loaded(Rows(x.to(inputs), torch.from_numpy(Y).to(labels)), ("a", "b", "c"))

    data = Own(batch_size=8)
    model = SoftmaxRegression(4, 3, preprocessing="standardize", class_weight="balanced")
    trainer = quiet_trainer()
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert torch.equal(data.splits.train.y, data.splits.train.y.long())
    assert data.input_range == (0, 255)
    mean = data.splits.train.x.double().mean(0)
    torch.testing.assert_close(model.preprocessing.mean.double(), mean)


# A final fit --------------------------------------------------------------------------------


def test_a_final_fit_tests_nothing_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["smx-lightning"])
    assert main(["fit", "--data.test_fraction", "0"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^test +none, as no rows were held out for it", printed, re.MULTILINE)
    assert "verdict" in printed
    assert not re.search("^(test (nll|accuracy)|confusion)", printed, re.MULTILINE)
    data, best = DigitsDataModule(test_fraction=0), "lightning_logs/version_0/checkpoints/best.ckpt"
    model = SoftmaxRegression.load_from_checkpoint(best)
    x, y = data.splits.val.x, data.splits.val.y
    nll = float(-model(x).detach().gather(1, y[:, None]).mean())
    assert f"{nll:.4f}" == re.search(r"^val nll +(\S+)", printed, re.MULTILINE).group(1)
    assert main(["test", "--ckpt_path", best, "--data.test_fraction", "0"]) == 2
    assert "expected rows to test on, got test_fraction=0" in capsys.readouterr().err


def test_all_rows_but_the_validation_s_are_trained_on_where_nothing_is_tested():
    data = DigitsDataModule(test_fraction=0)
    assert (len(data.splits.train), len(data.splits.val), len(data.splits.test)) == (1617, 180, 0)
    assert not data.tested
    assert DigitsDataModule().tested
    assert len(data.all_inputs()) == 1797
    with pytest.raises(InputError, match="expected rows to test on, got test_fraction=0"):
        quiet_trainer().test(SoftmaxRegression(64, 10), data, verbose=False)


def test_a_given_test_split_is_tested_whatever_the_fraction(tmp_path):
    np.savez(tmp_path / "rows.npz", x=PIXELS, y=Y, x_test=PIXELS[:9], y_test=Y_TEST)
    assert NpzDataModule(tmp_path / "rows.npz", test_fraction=0).tested


def test_a_printed_model_shows_its_layers_in_a_few_lines():
    printed = repr(SoftmaxRegression(4, 3))
    assert "Linear(in_features=4, out_features=3" in printed
    assert len(printed.splitlines()) <= 8
    assert "Accuracy" not in printed


def test_a_file_of_several_inputs_is_found_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "rows.npz", age=np.arange(3.0), y=[0, 1, 0])
    assert read_named("~/rows.npz", ["age"])["age"].tolist() == [0, 1, 2]
