"""What users type: help in a screen or two, completion, names of classes, a bar of one line."""

import inspect
import io
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from smx_export.__main__ import main as smx_export
from smx_lightning import SoftmaxRegression
from smx_lightning.cli import arguments, main
from smx_lightning.cli.bar import OneLineBar
from smx_lightning.cli.help import SUBCOMMANDS, help_asked
from smx_lightning.data import DigitsDataModule, TableDataModule
from smx_lightning.errors import InputError, completion

PROBE = """
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule

class Probe(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)

class Few(DigitsDataModule):
    pass
"""
SHORT = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
TRIAL = [*SHORT, "--trainer.fast_dev_run=true", "--trainer.logger=false"]


def printed(capsys, *given):
    with pytest.raises(SystemExit) as ended:
        main([*given])
    assert ended.value.code == 0
    return capsys.readouterr().out


# Help -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    """Every option of the parsers, as ``--help all`` prints it."""
    texts = {}
    for name in ("fit", "predict", "coefficients"):
        with redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit):
            main([name, "--help", "all"])
        texts[name] = text.getvalue()
    return texts


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_help_fits_a_terminal(name):
    lines = help_asked([name, "--help"]).splitlines()
    assert len(lines) < 100
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", ["fit", "predict", "coefficients"])
def test_each_option_of_the_help_is_one_of_the_parser(name, whole):
    known = set(whole[name].replace(",", " ").replace("[", " ").split())
    takes = {
        "model": inspect.signature(SoftmaxRegression).parameters,
        "data": inspect.signature(TableDataModule).parameters,
    }
    options = [
        part.split()[0]
        for group in SUBCOMMANDS[name].groups.values()
        for option in group
        for part in option.split(", ")
    ]
    assert len(options) >= 12
    for option in set(options) - {"--traceback", "FILE"}:
        section, _, rest = option.removeprefix("--").partition(".")
        if section in takes and rest not in ("", "help"):
            assert rest.split(".")[0] in takes[section], option
        else:
            assert option in known, option


def test_all_of_them_are_behind_it(whole):
    assert len(whole["fit"].splitlines()) > 300
    assert "--trainer.sync_batchnorm" in whole["fit"]
    assert help_asked(["fit", "--help", "all"]) is None
    assert help_asked(["fit", "--model.l2", "1"]) is None


@pytest.mark.parametrize("given", [["fit", "-h"], ["--config", "c", "test", "--help"], ["-h"]])
def test_the_help_is_that_of_the_subcommand(given, capsys):
    every = "{fit,validate,test,predict,coefficients}"
    name = next((word for word in given if word in SUBCOMMANDS), every)
    assert printed(capsys, *given).startswith(f"usage: smx-lightning {name} [options]")


# Completion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [main, smx_export], ids=["smx-lightning", "smx-export"])
def test_a_completion_that_cannot_be_is_one_sentence(run, monkeypatch, capsys):
    assert run(["--print-completion", "fish"]) == 2
    assert "expected --print-completion with bash or zsh, got fish" in capsys.readouterr().err
    monkeypatch.setattr(completion, "find_spec", lambda name: None)
    assert run(["--print-completion=bash"]) == 2
    assert "install it with pip install shtab" in capsys.readouterr().err


def completed(script, *words):
    """What bash offers for the last of some words."""
    line = " ".join(words)
    asked = f"""source /dev/stdin
    COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE="{line}"; COMP_POINT={len(line)}
    f=$(complete -p {words[0]}); f=${{f#*-F }}; ${{f%% *}} {words[0]} {words[-1]} {words[-2]}
    printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", asked], input=script, capture_output=True, text=True)
    return done.stdout.split()


def test_bash_completes_smx_export(capsys):
    pytest.importorskip("shtab", reason="no completion is installed: pip install '.[completion]'")
    assert smx_export(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed(script, "smx-export", "conv") == ["convert"]
    assert completed(script, "smx-export", "convert", "--pro") == ["--profile"]
    assert smx_export(["--print_completion=zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef smx-export")


@pytest.mark.whole
def test_bash_completes_smx_lightning(capsys, cli_folder):
    pytest.importorskip("shtab", reason="no completion is installed: pip install '.[completion]'")
    script = printed(capsys, "--print-completion", "bash")
    assert completed(script, "smx-lightning", "fi") == ["fit"]
    assert "--model.l2" in completed(script, "smx-lightning", "fit", "--model.l")
    assert "--onnx.profile" in completed(script, "smx-lightning", "fit", "--onnx.p")


# Names of classes -------------------------------------------------------------------------------


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """A module in the working folder, which Python's path does not hold."""
    Path("named_here.py").write_text(PROBE)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
    yield cli_folder
    sys.modules.pop("named_here", None)


@pytest.mark.parametrize(
    "given",
    [
        "--model named_here.Probe",
        "--model=named_here:Probe",
        "--model named_here:Probe --data named_here:Few --data.batch_size 99",
        "--data=named_here.Few",
        "--model SoftmaxRegression --model.optimizer torch.optim:SGD",
        "--config colons.yaml",
        "--config dots.yaml",
    ],
)
def test_a_class_is_named_with_dots_or_a_colon(given, folder, capsys):
    for name, mark in (("colons", ":"), ("dots", ".")):
        settings = {
            "model": {"class_path": f"named_here{mark}Probe", "init_args": {"l2": 0.5}},
            "data": {"class_path": f"named_here{mark}Few"},
        }
        Path(f"{name}.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", *TRIAL, *given.split()]) == 0


def test_the_working_folder_is_searched_last_and_only_where_it_is_named(folder):
    Path("json.py").write_text("")
    for name in ("json.Decoder", "torch.optim.Adam", "absent.Net", "FILE.npz"):
        before = list(sys.path)
        assert arguments.class_path(name) == name
        assert sys.path == before
    assert arguments.class_path("named_here:Probe") == "named_here.Probe"
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("fit --data.path C:x --model a.b:C", "fit --data.path C:x --model a.b.C"),
        ("fit --trainer.callbacks+=a:B --help all", "fit --trainer.callbacks+=a.B --help"),
        ("fit --model.name a:B all", "fit --model.name a:B all"),
        ("fit --model=a:B.C", "fit --model=a.B.C"),
    ],
)
def test_other_arguments_stay_as_they_are(given, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arguments, "_check_class", lambda option, name: None)  # there is none
    assert arguments.completed(given.split()) == made.split()


@pytest.mark.parametrize("option", ["--data", "--model"])
def test_rows_in_place_of_a_class_are_not_printed(option, cli_folder, capsys):
    Path("cover.xlsx").write_text("".join(f"{n},{n + 1},{n + 2}\n" for n in range(100_000)))
    assert main(["fit", option, "cover.xlsx"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 400
    assert f"expected {option} with a class, or with a YAML file of its settings" in said
    with pytest.raises(InputError):
        arguments.completed([f"{option}=cover.xlsx"])


@pytest.mark.parametrize("option", ["--config", "--trainer", "--model", "--trainer.callbacks"])
def test_no_complaint_of_the_parser_is_longer_than_a_sentence(option, cli_folder, capsys):
    Path("rows").write_text("".join(f"{n} {n + 1} {n + 2}\n" for n in range(9_000)))
    with pytest.raises(SystemExit) as ended:
        main(["fit", option, "rows"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert len(said) < 900
    assert len(said.splitlines()) == 3
    assert said.startswith("usage: smx-lightning fit [options]\n")


SCRIPT = (
    PROBE
    + """
from lightning.pytorch import Trainer

def train():
    data = DigitsDataModule()
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu",
                      enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Probe(64, 10), data)
    trainer.save_checkpoint("script.ckpt")

if __name__ == "__main__":
    train()
"""
)


def test_a_class_of_a_script_can_be_named_as_the_sentence_says(folder, capsys, monkeypatch):
    Path("named_here.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:  # as where the script runs
        made = type(sys)("__main__")
        patch.setitem(sys.modules, "__main__", made)
        exec(compile(SCRIPT, "named_here.py", "exec"), made.__dict__)
    convert = ["convert", "script.ckpt", "m.onnx"]
    for given in ([], ["--model-class", "__main__:Probe"], ["--model-class", "__main__.Probe"]):
        assert smx_export([*convert, *given]) == 2
        said = capsys.readouterr().err
        assert 'let what it runs follow if __name__ == "__main__":' in said
        assert "with --model-class FILE:Probe, FILE without its .py" in said
    for name in ("named_here:Probe", "named_here.Probe"):
        assert smx_export([*convert, "--model-class", name]) == 0
    capsys.readouterr()
    test = ["test", *SHORT, "--trainer.logger=false", "--ckpt_path=script.ckpt"]
    assert main(test) == 2
    assert "with --model FILE.Probe, FILE without its .py" in capsys.readouterr().err
    assert main([*test, "--model", "named_here:Probe"]) == 0


# The progress bar -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("activation", ["softmax", "sparsemax"])
def test_the_progress_bar_is_one_line(width, activation, quiet_trainer):
    shown = io.StringIO()
    bar = OneLineBar()
    bar._console_kwargs = {"force_terminal": True, "width": width, "file": shown}
    trainer = quiet_trainer(max_epochs=3, enable_progress_bar=True, callbacks=[bar])
    trainer.fit(SoftmaxRegression(64, 10, activation=activation), DigitsDataModule())
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).replace("\r", "\n").split("\n")
    lines = [line for line in lines if line.strip()]
    assert {line.split()[0] for line in lines} <= {"Epoch", "Sanity", "Validation"}
    assert max(map(len, lines)) <= width
    loss = "nll" if activation == "softmax" else "loss"
    last = [line for line in lines if line.startswith("Epoch 2/2")][-1]
    assert re.search(rf"train/{loss}: \d\S+ val/{loss}: \d\S+", last)
    assert ("val/accuracy_micro" in last) == (width == 200)


def test_a_bar_of_the_user_goes_before_it(cli_folder, capsys):
    assert main(["fit", *TRIAL[1:], "--trainer.callbacks=TQDMProgressBar"]) == 0
