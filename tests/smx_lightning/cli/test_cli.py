"""The two commands, in process: what they print, write and answer."""

import csv
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from smx_export.__main__ import main as smx_export
from smx_export.graph import written
from smx_lightning.cli import main as smx_lightning

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = [*QUIET, "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
ADAM = "--model.optimizer=torch.optim.Adam"  # two epochs of it are a whole training
PROBE = """
from smx_lightning import SoftmaxRegression

class Probe(SoftmaxRegression):
    def __init__(self, num_classes: int, class_names: list[str] | None = None, power: int = 2):
        super().__init__(8, num_classes, class_names=class_names, input_shape=(8, 8))
        self.power = power

    def features(self, x):
        return (x / 16).pow(self.power).mean(1)
"""


def test_fit_alone_does_the_main_job(cli_folder, capsys):
    assert smx_lightning(["fit", *QUIET]) == 0
    lines = capsys.readouterr().out.splitlines()
    summary = {line[:20].strip(): line[21:].strip() for line in lines}
    assert float(summary["test accuracy micro"]) >= 0.96
    assert summary["verdict"].startswith("parity holds")
    checkpoint, file = Path(summary["checkpoint"]), Path(summary["ONNX file"])
    assert checkpoint.is_file()
    assert smx_export(["convert", str(checkpoint), "digits.onnx"]) == 0
    assert Path("digits.onnx").read_bytes() == file.read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run's folder, made once; tests read it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["smx-lightning"])
        assert smx_lightning(["fit", *SHORT, ADAM, "--model.l2=0.01"]) == 0
    return folder / "lightning_logs" / "version_0"


def test_validate_test_and_predict_take_a_checkpoint(run, cli_folder, capsys):
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    assert smx_lightning(["validate", checkpoint, *SHORT]) == 0
    assert "val accuracy micro" in capsys.readouterr().out
    assert smx_lightning(["test", checkpoint, *SHORT]) == 0
    tested = capsys.readouterr().out
    accuracy = float(re.search(r"test accuracy micro +(0\.\d{4})", tested)[1])
    confusion = re.search(r"confusion matrix +(\S+)", tested)[1]
    counts = np.loadtxt(confusion, delimiter=",", skiprows=1, usecols=range(1, 11))
    assert counts.trace() / counts.sum() == pytest.approx(accuracy, abs=1e-4)
    assert smx_lightning(["predict", checkpoint, *SHORT]) == 0
    (line,) = (row for row in capsys.readouterr().out.splitlines() if "predictions" in row)
    with Path(line.split()[-1]).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1797))  # the whole file
    assert sum(float(rows[0][f"p({k})"]) for k in range(10)) == pytest.approx(1, abs=1e-5)


def test_a_checkpoint_brings_the_model_s_arguments(run, cli_folder, capsys):
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert (
        smx_lightning(["fit", f"--ckpt_path={checkpoint}", *SHORT, "--trainer.max_epochs=3"]) == 0
    )
    (config,) = cli_folder.glob("lightning_logs/version_0/config.yaml")
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["l2"] == 0.01


@pytest.mark.parametrize("given", [[*SHORT, ADAM], QUIET], ids=["adam", "exact"])
def test_the_printed_config_runs(given, cli_folder, capsys):
    with pytest.raises(SystemExit) as stop:
        smx_lightning(["fit", *given, "--print_config"])
    assert stop.value.code == 0
    Path("config.yaml").write_text(capsys.readouterr().out)
    assert smx_lightning(["fit", "--config=config.yaml"]) == 0


def test_shapes_and_names_flow_from_the_data(cli_folder, capsys):
    rng = np.random.default_rng(0)
    np.savez("d.npz", x=rng.normal(size=(90, 3, 2)), y=np.array(["u", "v", "w"] * 30))
    arguments = ["--data=NpzDataModule", "--data.path=d.npz", "--model.class_weight.w=2.0"]
    assert smx_lightning(["fit", *arguments, *SHORT, ADAM]) == 0
    file = "lightning_logs/version_0/model.onnx"
    capsys.readouterr()
    assert smx_export(["inspect", file, "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["class_names"] == ["u", "v", "w"]
    assert description["input_shape"] == [3, 2]
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert smx_export(["verify", file, "--checkpoint", best, "--data", "d.npz"]) == 0
    assert "90 labelled rows" in capsys.readouterr().out


def test_optimizer_and_scheduler_come_from_the_command_line(cli_folder):
    arguments = [
        "--model.optimizer=SGD",
        "--model.optimizer.lr=0.1",
        "--model.lr_scheduler=StepLR",
        "--model.lr_scheduler.step_size=1",
    ]
    assert smx_lightning(["fit", *arguments, *SHORT]) == 0


@pytest.mark.whole
def test_a_subclass_is_named_by_its_path(cli_folder, monkeypatch, capsys):
    Path("my_probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(cli_folder)
    assert smx_lightning(["fit", "--model=my_probe.Probe", "--model.power=3", *SHORT]) == 0
    folder = Path("lightning_logs/version_0")
    checkpoint = str(folder / "checkpoints" / "best.ckpt")
    probe = importlib.import_module("my_probe").Probe
    assert probe.load_from_checkpoint(checkpoint).power == 3
    named = ["--model-class", "my_probe:Probe"]
    assert smx_export(["convert", checkpoint, "probe.onnx", *named]) == 0
    assert smx_export(["verify", "probe.onnx", "--checkpoint", checkpoint, *named]) == 0
    capsys.readouterr()
    test = ["test", f"--ckpt_path={checkpoint}", *SHORT]
    assert smx_lightning(test) == 2
    assert "name the class with --model my_probe.Probe" in capsys.readouterr().err
    assert smx_lightning([*test, "--model=my_probe.Probe"]) == 0


def test_failed_parity_is_exit_code_1(cli_folder, monkeypatch, capsys, checkpoint):
    build = written.softmax_regression_graph
    monkeypatch.setattr(
        written,
        "softmax_regression_graph",
        lambda w, b, meta, **shift: build(w, b + 0.1 * (w[:, 0] > 0), meta, **shift),
    )
    assert smx_lightning(["fit", *SHORT, ADAM]) == 1
    assert "smx-lightning: the ONNX file is not the model" in capsys.readouterr().err
    assert not Path("lightning_logs/version_0/model.onnx").exists()
    assert smx_export(["convert", str(checkpoint), "m.onnx", "--json", "report.json"]) == 1
    assert json.loads(Path("report.json").read_text())["passed"] is False
    assert not Path("m.onnx").exists()


def test_verify_of_another_model_s_file_is_exit_code_1(run, checkpoint, cli_folder, capsys):
    file = str(run / "model.onnx")
    report = ["--json", "report.json"]
    assert smx_export(["verify", file, "--checkpoint", str(checkpoint), *report]) == 1
    assert "parity FAILED" in capsys.readouterr().out
    assert json.loads(Path("report.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("command", "arguments", "taught"),
    [
        (
            smx_lightning,
            ["fit", "--help"],
            [
                *("--model.help", "--data.help", "--trainer.max_epochs", "Exit codes: 0 done"),
                "--model.optimizer torch.optim.Adam",
            ],
        ),
        (smx_lightning, ["--help"], ["fit", "predict", "Exit codes: 0 done", "3 trained"]),
        (smx_export, ["--help"], ["convert", "verify", "inspect", "Exit codes"]),
        (smx_export, ["verify", "--help"], ["Examples: ", "--data", "--targets", "--model-class"]),
    ],
    ids=["fit", "smx-lightning", "smx-export", "verify"],
)
def test_help_teaches(command, arguments, taught, cli_folder, capsys):
    with pytest.raises(SystemExit) as stop:
        command(arguments)
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(phrase in text for phrase in taught)
