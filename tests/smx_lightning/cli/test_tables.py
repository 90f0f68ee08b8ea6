"""Data named by a file or a folder: which data module, and from fit to predict."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tables
import yaml
from idx_files import idx_folder

from smx_lightning.cli import main
from smx_lightning.cli.arguments import completed, data_module
from smx_lightning.errors import InputError
from smx_lightning.tables import Schema

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
TABLE, NPZ, IDX = (f"smx_lightning.data.{name}DataModule" for name in ("Table", "Npz", "Idx"))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("wine.csv", (TABLE, "--data.source")),
        ("WINE.CSV", (TABLE, "--data.source")),
        ("a.b/wine.tsv.gz", (TABLE, "--data.source")),
        ("~/wine.parquet", (TABLE, "--data.source")),
        ("wine.feather", (TABLE, "--data.source")),
        ("wine.npz", (NPZ, "--data.path")),
        ("DigitsDataModule", None),
        ("package.module.Class", None),
        ("package.module:Class", None),
        ("settings.yaml", None),
        ("wine.npy", None),
    ],
)
def test_a_suffix_chooses_the_data_module(file, expected):
    assert data_module(file) == expected


def test_a_folder_is_chosen_by_what_is_in_it(cli_folder):
    tables.write_folder(tables.real("iris"), cli_folder / "rows")
    (digits := cli_folder / "digits").mkdir()
    idx_folder(digits, np.arange(30) % 3, np.arange(9) % 3)
    (cli_folder / "package").mkdir()
    for name in ("rows", "rows/", "./rows"):
        assert data_module(name) == (TABLE, "--data.source")
    assert data_module("digits") == (IDX, "--data.path")
    assert data_module("package") is None  # a module, perhaps
    with pytest.raises(
        InputError, match=r"of tables .* or of IDX files, got \./package, which has"
    ):
        data_module("./package")


@pytest.mark.parametrize(
    "given",
    [
        ["fit", "--data", "a.csv", "--data.target", "y"],
        ["fit", "--data=a.csv", "--data.target", "y"],
        ["fit", "--data.target", "y", "--data", "a.csv"],
        ["fit", "--data.target", "y", "--data=a.csv"],
    ],
)
def test_the_data_module_goes_before_its_settings(given):
    made = completed(given)
    at = made.index(TABLE)
    assert made[at - 1 : at + 3] == ["--data", TABLE, "--data.source", "a.csv"]
    assert made.index("--data.target") > at
    assert len(made) == 7


@pytest.mark.parametrize("file", ["a.csv", "[a].csv", "a #b.csv", '"a".csv', "ä é.csv"])
def test_a_printed_configuration_names_module_and_file(file, cli_folder, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--data", file, "--data.target", "y", "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["class_path"] == TABLE
    assert data["init_args"]["source"] == file
    assert data["init_args"]["target"] == "y"


def test_a_path_that_the_parser_takes_for_a_mapping_is_refused():
    with pytest.raises(InputError, match=r"without ': ', .* got a: b\.csv; rename the file"):
        completed(["fit", "--data", "a: b.csv"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fit of a CSV file with gaps and categories; the folder that it was made in."""
    folder = tmp_path_factory.mktemp("tables")
    table = tables.mixed(200).drop(["share"])
    tables.write(table, folder / "rows.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["smx-lightning"])
        given = ["--data=rows.csv", "--data.target=outcome", "--data.drop=[id]"]
        assert main(["fit", *given, *QUIET]) == 0
    return folder


def checkpoint_of(run):
    return f"--ckpt_path={run / 'lightning_logs/version_0/checkpoints/best.ckpt'}"


def test_fit_trains_and_exports_a_table(run):
    written = run / "lightning_logs/version_0"
    settings = yaml.safe_load((written / "config.yaml").read_text())
    assert settings["data"]["class_path"] == TABLE
    assert (written / "model.onnx").is_file()


def test_a_checkpoint_s_schema_reads_other_tables(run, cli_folder, capsys):
    """Columns in another order, fewer classes and categories, another kind of file, no ids."""
    table = tables.mixed(120, seed=5).drop(["share", "id"])
    keep = [k for k, word in enumerate(table.column("outcome").to_pylist()) if word != "same"]
    table = table.take(keep).select(sorted(table.column_names))
    tables.write_folder(table, cli_folder / "other", suffix=".feather")
    assert main(["test", "--data=other", checkpoint_of(run), *QUIET]) == 0
    assert "test accuracy micro" in capsys.readouterr().out
    unlabelled = table.drop(["outcome"])
    tables.write(unlabelled, cli_folder / "new.parquet")
    assert main(["predict", "--data=new.parquet", checkpoint_of(run), *QUIET]) == 0
    path = Path(capsys.readouterr().out.split()[-1])
    rows = [*csv.reader(path.read_text(encoding="utf-8").splitlines())]
    assert len(rows) == 1 + table.num_rows
    assert rows[0][-4:] == ["class", "p(better)", "p(same)", "p(worse)"]


@pytest.mark.parametrize(("split", "share"), [("data", 0.25), ("data.test", 1)])
def test_test_measures_a_share_of_its_table_and_all_rows_of_a_table_to_test_on(
    split, share, run, cli_folder
):
    table = tables.mixed(120, seed=5).drop(["share", "id"])
    tables.write(table, cli_folder / "new.csv")
    given = ["--data=new.csv"] if split == "data" else [f"--data={run / 'rows.csv'}"]
    assert main(["test", *given, f"--{split}=new.csv", checkpoint_of(run), *QUIET]) == 0
    written = next(cli_folder.glob("**/confusion_matrix.csv")).read_text(encoding="utf-8")
    counts = [int(cell) for row in csv.reader(written.splitlines()[1:]) for cell in row[1:]]
    labelled = sum(word is not None for word in table.column("outcome").to_pylist())
    assert sum(counts) == pytest.approx(share * labelled, abs=2)


def test_training_is_resumed_with_the_checkpoint_s_schema(run, cli_folder, monkeypatch):
    monkeypatch.chdir(run)
    given = [
        "--data=rows.csv",
        "--data.drop=[id]",
        "--data.min_count=1000",
        "--trainer.max_epochs=50",
    ]
    assert main(["fit", *given, checkpoint_of(run), *QUIET]) == 0


def test_the_schema_is_in_the_checkpoint(run):
    from smx_lightning import SoftmaxRegression

    path = checkpoint_of(run).removeprefix("--ckpt_path=")
    model = SoftmaxRegression.load_from_checkpoint(path)
    assert isinstance(model.schema, Schema)
    assert "colour = red" in model.feature_names
    assert model.schema.target == "outcome"
