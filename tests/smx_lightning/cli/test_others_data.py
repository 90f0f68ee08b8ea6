"""``--data`` with a LightningDataModule of somebody else's: what it tells, and what is given."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression

from smx_export.__main__ import main as smx_export
from smx_lightning.cli import main

N, D, K = 240, 5, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (X @ RNG.normal(size=(D, K)) + RNG.gumbel(size=(N, K))).argmax(1)
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
SIZES = [f"--model.num_features={D}", f"--model.num_classes={K}"]
MODULES = """
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class Bare(LightningDataModule):
    def __init__(self, batch_size: int = 30, shape: tuple[int, ...] = (5,)):
        super().__init__()
        self.batch_size, self.shape = batch_size, shape
    def setup(self, stage):
        arrays = np.load("rows.npz")
        x = torch.from_numpy(arrays["x"]).reshape(-1, *self.shape)
        self.rows = TensorDataset(x, torch.from_numpy(arrays["y"]))
    def train_dataloader(self):
        assert self.batch_size == 30, "its own default"
        return DataLoader(self.rows, batch_size=self.batch_size, shuffle=True)
    def val_dataloader(self):
        return DataLoader(self.rows, batch_size=self.batch_size)
    test_dataloader = predict_dataloader = val_dataloader

class Told(Bare):
    def __init__(self):
        super().__init__()
        self.num_features, self.num_classes = 5, 3

class Numpy(Bare):
    def __init__(self):
        super().__init__()
        self.num_features, self.num_classes = np.int64(5), torch.tensor(3)
        self.class_names = np.array(["a", "b", "c"])
        self.input_range = np.array([-9.0, 9.0])
        self.input_shape = torch.Size([5])

class Late(Bare):
    @property
    def num_features(self):
        return self.rows[0][0].numel()

    num_classes = 3

class TrainOnly(LightningDataModule):
    num_features, num_classes = 5, 3
    def train_dataloader(self):
        module = Bare()
        module.setup("fit")
        return module.train_dataloader()

class TrainAndVal(TrainOnly):
    def val_dataloader(self):
        return DataLoader(self.train_dataloader().dataset, batch_size=50)
"""


@pytest.fixture
def folder(cli_folder, monkeypatch):
    np.savez("rows.npz", x=X, y=Y)
    Path("others.py").write_text(MODULES)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield cli_folder
    sys.modules.pop("others", None)


def run(command, *given):
    return main([command, *QUIET, *given])


def description(capsys, file="lightning_logs/version_0/model.onnx"):
    capsys.readouterr()
    assert smx_export(["inspect", file, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_four_subcommands_take_it(folder, capsys):
    assert run("fit", "--data=others:Told", "--model.l2=0.001") == 0
    last = "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"
    for command in ("validate", "test", "predict"):
        assert run(command, "--data=others:Told", last) == 0
    (written,) = Path("lightning_logs").glob("*/predictions.csv")
    with written.open() as file:
        answered = [[float(row[f"p({k})"]) for k in range(K)] for row in csv.DictReader(file)]
    # The mean of the loss plus l2 / 2 |W|², of standardised columns: C of a sum of losses.
    z = (X - X.mean(0)) / X.std(0)
    judge = LogisticRegression(C=1 / (0.001 * N), tol=1e-8, max_iter=1000).fit(z, Y)
    assert np.allclose(answered, judge.predict_proba(z), atol=1e-3)


def test_numbers_of_numpy_and_torch_are_numbers(folder, capsys):
    assert run("fit", "--data=others.Numpy", "--trainer.max_epochs=1") == 3
    told = description(capsys)
    assert told["class_names"] == ["a", "b", "c"]
    assert (told["input_shape"], told["input_range"]) == ([D], [-9, 9])


@pytest.mark.parametrize(
    ("data", "missing"),
    [("Bare", ["num_features", "num_classes"]), ("Late", ["num_features"])],
)
def test_what_it_does_not_tell_is_asked_for_and_taken(data, missing, folder, capsys):
    assert run("fit", f"--data=others.{data}") == 2
    said = capsys.readouterr().err
    assert (
        f"expected others.{data} to have {' and '.join(missing)} once it is made, got none" in said
    )
    assert "give " + " ".join(f"--model.{name} N" for name in missing) in said
    assert not Path("lightning_logs").exists()
    given = [option for option in SIZES if any(name in option for name in missing)]
    assert run("fit", f"--data=others.{data}", *given) == 0
    test = ["--data=others.Bare", "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"]
    assert run("test", *test) == 0  # sizes are those of the checkpoint
    assert run("test", *test, "--model.num_classes=7") == 2


def test_the_settings_of_a_run_run_again(folder, capsys):
    assert run("fit", "--data=others.Bare", *SIZES, "--trainer.max_epochs=1") == 3
    kept = Path("lightning_logs/version_0/config.yaml").read_text()
    assert yaml.safe_load(kept)["data"]["init_args"]["batch_size"] == 30
    assert main(["fit", "--config=lightning_logs/version_0/config.yaml"]) == 3
    files = [Path(f"lightning_logs/version_{n}/model.onnx").read_bytes() for n in (0, 1)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("data", "stage"), [("TrainOnly", "train"), ("TrainAndVal", "val")])
@pytest.mark.parametrize("optimizer", ["ExactSolver", "Adam"])
@pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`")
def test_rows_that_are_not_there_are_not_asked_for(data, stage, optimizer, folder, capsys):
    given = ["--trainer.max_epochs=2", f"--model.optimizer={optimizer}"]
    assert run("fit", f"--data=others.{data}", *given) == (3 if optimizer == "ExactSolver" else 0)
    said = capsys.readouterr()
    assert f"{stage} nll" in said.out
    assert "could not find the monitored key" not in said.err
    session = ort.InferenceSession("lightning_logs/version_0/model.onnx")
    log_probs = torch.from_numpy(session.run(["log_probs"], {"input": X})[0])
    found = float(torch.nn.functional.nll_loss(log_probs, torch.from_numpy(Y)))
    if stage == "val":  # of the model that was exported; train's is the mean over an epoch
        shown = next(line for line in said.out.splitlines() if line.startswith("val nll"))
        assert float(shown.split()[-1]) == pytest.approx(found, abs=1e-4)


def test_what_is_given_by_hand_goes_before_what_data_tell(folder, capsys):
    np.savez("d.npz", x=X, y=Y)
    given = ["--data=NpzDataModule", "--data.path=d.npz", "--trainer.max_epochs=1"]
    assert run("fit", *given, "--model.class_names=[u,v,w]", "--model.input_range=[-7,7]") == 3
    told = description(capsys)
    assert (told["class_names"], told["input_range"]) == (["u", "v", "w"], [-7, 7])
    assert run("fit", *given, "--model.num_features=4") == 2
    assert run("fit", *given, "--model.num_classes=2") == 2
