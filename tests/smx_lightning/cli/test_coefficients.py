"""``smx-lightning coefficients``: from a checkpoint and its data to a table."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine

from smx_lightning import SoftmaxRegression
from smx_lightning.cli import main
from smx_lightning.coefficients.table import COLUMNS
from smx_lightning.data import NpzDataModule

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
DATA = ["--data=NpzDataModule", "--data.path=wine.npz"]
BEST = "lightning_logs/version_0/checkpoints/best.ckpt"
CHECKPOINT = [f"--ckpt_path={BEST}", "--trainer.accelerator=cpu"]


def save(path, **arrays):
    data = load_wine()
    whole = {"x": data.data, "y": data.target_names[data.target]}
    np.savez(path, **{**whole, "feature_names": data.feature_names, **arrays})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained model, and what was printed."""
    folder = tmp_path_factory.mktemp("wine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["smx-lightning"])
        save("wine.npz")
        assert main(["fit", *QUIET, *DATA]) == 0
    return folder


@pytest.fixture
def folder(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    monkeypatch.setattr("sys.argv", ["smx-lightning"])
    capsys.readouterr()
    return trained


def table_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == [*COLUMNS]
    return [[*row[:2], *(float(cell) if cell else None for cell in row[2:])] for row in rows]


def test_with_data_come_errors(folder, capsys):
    assert main(["coefficients", *CHECKPOINT, *DATA, "table.csv"]) == 0
    said = capsys.readouterr().out
    model = SoftmaxRegression.load_from_checkpoint(BEST)
    table = model.coefficients(NpzDataModule("wine.npz"))
    assert said == f"{table}\ncoefficients  table.csv\n"
    assert table_of("table.csv") == [list(row) for row in table.rows()]
    assert table.feature_names == tuple(load_wine().feature_names)
    assert table.distance < 0.01  # of a fit in float32


def test_without_data_come_none(folder, capsys):
    assert main(["coefficients", *CHECKPOINT, "bare.csv"]) == 0
    assert "std error" not in capsys.readouterr().out
    rows = table_of("bare.csv")
    assert len(rows) == 3 * 14
    assert {tuple(row[4:]) for row in rows} == {(None,) * 5}


def test_without_a_file_it_is_printed(folder, capsys):
    before = {*folder.rglob("*")}
    assert main(["coefficients", *CHECKPOINT]) == 0
    assert "proline" in capsys.readouterr().out
    assert {*folder.rglob("*")} == before  # no folder of a run


def test_options_are_those_of_python(folder, capsys):
    asked = ["--errors=robust", "--reference=class_1", "--level=0.9"]
    assert main(["coefficients", *CHECKPOINT, *DATA, *asked]) == 0
    table = SoftmaxRegression.load_from_checkpoint(BEST).coefficients(
        NpzDataModule("wine.npz"), errors="robust", reference="class_1", level=0.9
    )
    assert capsys.readouterr().out == f"{table}\n"
    Path("settings.yaml").write_text("errors: robust\nreference: class_1\nlevel: 0.9\n")
    assert main(["coefficients", "--config=settings.yaml", *CHECKPOINT, *DATA]) == 0
    assert capsys.readouterr().out == f"{table}\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": load_wine().data[:, ::-1]}, "expected coefficients within 0.1 standard errors of"),
        ({"y": load_wine().target}, "expected data with the model's 3 class_names, got '0' in pl"),
        (
            {"feature_names": load_wine().feature_names[::-1]},
            "expected data with the model's 13 feature_names, got 'proline' in place of 'alcohol'",
        ),
        (
            {"x": load_wine().data[:, 1:], "feature_names": load_wine().feature_names[1:]},
            "feature_names, got 'malic_acid' in place of 'alcohol'; give the data that it was",
        ),
    ],
)
def test_other_data_is_refused_and_no_file_left(changed, said, folder, capsys):
    save("other.npz", **changed)
    Path("kept.csv").write_text("kept")
    data = ["--data=NpzDataModule", "--data.path=other.npz"]
    assert main(["coefficients", *CHECKPOINT, *data, "kept.csv"]) == 2
    assert said in capsys.readouterr().err
    assert Path("kept.csv").read_text() == "kept"


def test_names_are_kept_by_data_without(folder, capsys):
    """Testing on rows without names takes nothing away, and other names are refused."""
    save("bare.npz", feature_names=[])
    np.savez("bare.npz", **{k: v for k, v in np.load("bare.npz").items() if k != "feature_names"})
    given = ["--data=NpzDataModule", f"--ckpt_path={BEST}", *QUIET]
    assert main(["test", *given, "--data.path=bare.npz"]) == 0
    capsys.readouterr()
    save("turned.npz", feature_names=load_wine().feature_names[::-1])
    assert main(["test", *given, "--data.path=turned.npz"]) == 2
    assert "that it has in another order: feature 0 is 'alcohol'" in capsys.readouterr().err
    assert main(["fit", *given, "--data.path=turned.npz"]) == 2
    assert "that it has in another order: feature 0 is 'alcohol'" in capsys.readouterr().err
