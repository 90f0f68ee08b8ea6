"""A command that a signal ends says so by its exit code, and claims nothing that is not done."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sampled import sampled, whole

from smx_lightning.cli import main

SENDS = """
import os
from lightning.pytorch import Callback

class Sends(Callback):
    def __init__(self, number: int, hook: str, call: int = 1):
        self.number, self.call, self.seen = number, call, 0
        setattr(self, hook, self.count)

    def count(self, *args, **kwargs):
        self.seen += 1
        if self.seen == self.call:
            os.kill(os.getpid(), self.number)
"""
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
DATA = ["--data=NpzDataModule", "--data.path=d.npz", "--data.batch_size=50"]
ADAM = ["--model.optimizer=Adam", "--trainer.max_epochs=3"]
RECOVERY = "--trainer.callbacks+=smx_lightning.Recovery"
SMALL = ["--data.batch_size=10"]  # so that the rows to test are several batches
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
TRAINING = {
    "in the first batch": ("on_train_batch_start", 1),
    "in mid-epoch": ("on_train_batch_end", 4),
    "at an epoch's end": ("on_train_epoch_end", 2),
    "in validation": ("on_validation_batch_end", 3),
}


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """The working folder, with data and a callback that sends signals; SIGINT as at a terminal."""
    monkeypatch.syspath_prepend(cli_folder)
    Path("sends.py").write_text(SENDS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    np.savez("d.npz", x=x, y=(x + rng.gumbel(size=x.shape)).argmax(1))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield cli_folder
    signal.signal(signal.SIGINT, before)


def sends(number, hook, call=1):
    kind = "--trainer.callbacks+=sends.Sends"
    given = {"number": int(number), "hook": hook, "call": call}
    return [kind, *(f"--trainer.callbacks.{name}={value}" for name, value in given.items())]


def said(capsys):
    printed = capsys.readouterr()
    return printed.out, [s for s in printed.err.splitlines() if s.startswith("smx-lightning: ")]


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("how", [[], whole(ADAM)], ids=["exact", "adam"])
@pytest.mark.parametrize("moment", sampled(TRAINING, named=["in mid-epoch"]))
def test_a_fit_that_is_ended_has_no_summary_and_no_file(number, how, moment, folder, capsys):
    assert main(["fit", *QUIET, *DATA, *how, *sends(number, *TRAINING[moment])]) == CODES[number]
    out, sentences = said(capsys)
    (sentence,) = sentences
    assert sentence.startswith(f"smx-lightning: ended by {number.name} before all was done;")
    assert [line.split()[0] for line in out.splitlines()] == ["optimizer"]
    assert not [*folder.rglob("*.onnx")]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    (last,) = [*folder.rglob("last.ckpt")] or [None]  # the sentence's remedy
    if last is not None:
        resume = ["fit", *QUIET, *DATA, *how, f"--ckpt_path={last}"]
        assert main(resume) == 0
        assert "parity holds" in said(capsys)[0]


@pytest.mark.parametrize("number", sampled(CODES, every=2))
def test_the_exact_solver_s_checkpoint_of_a_fit_that_was_ended_goes_on_to_the_optimum(
    number, folder, capsys
):
    assert main(["fit", *QUIET, *DATA, *sends(number, "on_train_epoch_end", 3)]) == CODES[number]
    resumed = "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt"
    assert main(["fit", *QUIET, *DATA, resumed]) == 0
    assert "converged" in said(capsys)[0]


@pytest.mark.parametrize("number", sampled(CODES, every=2))
def test_with_recovery_the_same_command_goes_on(number, folder, capsys):
    run = ["fit", *QUIET, *DATA, *ADAM, RECOVERY]
    stops = sends(number, "on_train_batch_start", 5)
    assert main([*run, *stops]) == CODES[number]
    out, (sentence,) = said(capsys)
    assert "and by itself where --trainer.callbacks smx_lightning.Recovery was given" in sentence
    assert "verdict" not in out
    assert main(run) == 0
    assert "Resuming the run of" in "".join(capsys.readouterr().err)


@pytest.mark.parametrize("times", [whole(1), 2])
def test_ctrl_c_with_recovery_and_a_second_one_both_exit_with_130(times, folder, capsys):
    stops = [
        part for call in range(times) for part in sends(signal.SIGINT, "on_train_batch_start", 5)
    ]
    assert main(["fit", *QUIET, *DATA, *ADAM, RECOVERY, *stops]) == 130
    assert len(said(capsys)[1]) == 1


@pytest.mark.parametrize(
    ("number", "hook"),
    [
        (signal.SIGTERM, "on_train_end"),
        whole((signal.SIGTERM, "on_test_batch_start")),
        # SIGTERM's default action, with the same code, is back here.
        (signal.SIGINT, "on_fit_end"),
        whole((signal.SIGINT, "on_test_batch_start")),
    ],
)
def test_a_signal_after_the_training_leaves_no_summary(number, hook, folder, capsys):
    """SIGTERM when training had just ended was forgotten: the test began to listen anew."""
    assert main(["fit", *QUIET, *DATA, *SMALL, *sends(number, hook)]) == CODES[number]
    out, (sentence,) = said(capsys)
    assert number.name in sentence
    assert "test accuracy" not in out


def evaluated(command, number, folder, capsys):
    """The exit code of a command that a signal reaches in its first batch, and what it printed."""
    assert main(["fit", *QUIET, *DATA]) == 0
    said(capsys)
    path = "--ckpt_path=lightning_logs/version_0/checkpoints/best.ckpt"
    hook = f"on_{command.replace('validate', 'validation')}_batch_start"
    code = main([command, *QUIET, *DATA, *SMALL, path, *sends(number, hook)])
    return code, *said(capsys)


@pytest.mark.parametrize(
    ("command", "number"),
    sampled(
        [
            ("test", signal.SIGTERM),
            ("test", signal.SIGINT),
            ("validate", signal.SIGTERM),
            ("validate", signal.SIGINT),
            ("predict", signal.SIGINT),
        ],
        every=5,
    ),
)
def test_the_other_subcommands_too(command, number, folder, capsys):
    code, out, sentences = evaluated(command, number, folder, capsys)
    assert code == CODES[number]
    assert len(sentences) == 1
    assert out == ""
    assert not [*folder.rglob("predictions.csv")]


@pytest.mark.whole
def test_predictions_are_finished_after_sigterm_and_the_code_says_so(folder, capsys):
    """Lightning looks at no signal while it predicts."""
    code, _, sentences = evaluated("predict", signal.SIGTERM, folder, capsys)
    assert (code, sentences) == (0, [])
    (file,) = folder.rglob("predictions.csv")
    assert len(file.read_text().splitlines()) == 1 + 240


@pytest.mark.parametrize("where", ["parser", "data"])
def test_ctrl_c_before_there_is_a_trainer(where, folder, monkeypatch, capsys):
    def pressed(*args, **kwargs):
        raise KeyboardInterrupt

    place = {
        "parser": "cli.commands.SmxCLI.setup_parser",
        "data": "data.npz.NpzDataModule.__init__",
    }
    monkeypatch.setattr(f"smx_lightning.{place[where]}", pressed)
    assert main(["fit", *QUIET, *DATA]) == 130
    assert len(said(capsys)[1]) == 1


@pytest.mark.parametrize(
    ("given", "code"), [(["--help"], 0), (["fit", "--help"], 0), (["train"], 2), ([], 2)]
)
def test_what_the_parser_ends_keeps_its_code(given, code, folder, capsys):
    try:
        found = main(given)
    except SystemExit as end:
        found = end.code
    assert found == code
    assert "ended by" not in capsys.readouterr().err


@pytest.mark.whole
@pytest.mark.parametrize("number", CODES)
def test_the_process_ends_with_the_code(number, folder):
    command = [sys.executable, "-m", "smx_lightning", "fit", *QUIET, *DATA, *ADAM[:1]]
    running = subprocess.Popen(
        [*command, "--trainer.max_epochs=100000"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not [*folder.rglob("last.ckpt")] and time.monotonic() < until:
            time.sleep(0.1)
        running.send_signal(number)
        error = running.communicate(timeout=60)[1]
    finally:
        running.kill()
        running.wait()
    assert running.returncode == CODES[number]
    assert len(re.findall(f"^smx-lightning: ended by {number.name}", error, re.M)) == 1
    assert "Traceback" not in error
    (best,) = folder.rglob("best.ckpt")
    assert torch.load(best, weights_only=True)["epoch"] >= 0
