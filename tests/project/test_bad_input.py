"""Whatever is wrong, the user reads one sentence: expected, got, remedy. And nothing is lost.

Every row of the tables in tests/support/bad_input goes through a real entry point in a folder of
good and bad files. Besides the message, each row is held to three promises: no file that was there
changes, no half-written or temporary file stays, and nothing inside a file is executed (the pickles
in the folder would leave ``EXPLODED`` behind).
"""

import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import (
    arguments,
    checkpoints,
    coefficients,
    estimators,
    idx_data,
    inputs,
    labels_and_features,
    loaders,
    npz_data,
    onnx_files,
    outputs,
    predicted_tables,
    streams,
    tables,
    usage,
)
from bad_input.actions import BAD, NPZ, RUN, USAGE
from bad_input.files import SENTINEL, fill
from sampled import sampled

TABLES = (
    labels_and_features,
    npz_data,
    idx_data,
    tables,
    loaders,
    arguments,
    checkpoints,
    onnx_files,
    inputs,
    outputs,
    predicted_tables,
    streams,
    usage,
    estimators,
    coefficients,
)


CASES = [pytest.param(*row, id=name) for table in TABLES for name, *row in table.CASES]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """The folder that every case gets a copy of."""
    shelf = tmp_path_factory.mktemp("shelf")
    fill(shelf)
    return shelf


@pytest.fixture
def folder(shelf, cli_folder, monkeypatch):
    """The working folder, filled; --model-class may add to the import path."""
    shutil.copytree(shelf, cli_folder, dirs_exist_ok=True)
    os.mkfifo(cli_folder / "pipe")  # copytree takes no pipes
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return cli_folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.stat().st_mode
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("action", "outcome", "message"),
    sampled(CASES, every=3),
)
def test_bad_input(action, outcome, message, folder, capsys):
    before = contents(folder)

    if isinstance(outcome, int):
        assert action() == outcome
        out, said = capsys.readouterr()
        if outcome == BAD:
            assert re.fullmatch(r"smx-(lightning|export): [^\n]+\n", said), said
        said = out + said
    else:
        with pytest.raises(outcome) as caught:
            action()
        said = str(caught.value) if outcome is not USAGE else capsys.readouterr().err
        assert outcome is not USAGE or caught.value.code == 2
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    said = " ".join(said.split())
    assert re.search(pattern, said), f"expected {message!r}, got {said!r}"

    after = contents(folder)
    assert before.items() <= after.items()
    made = {Path(path).parts[0] for path in after.keys() - before.keys()}
    assert made <= {"bad.npz", "bad.csv", "idx", "lightning_logs", "set"}


@pytest.mark.parametrize(
    "unpickle",
    [
        lambda: np.load("bomb.npz", allow_pickle=True)["x"],
        lambda: np.load("bomb_y.npz", allow_pickle=True)["y"],
        lambda: torch.load("bomb.ckpt", weights_only=False),
        lambda: pickle.loads(Path("pickle.ckpt").read_bytes()),
    ],
)
def test_the_bombs_are_live(unpickle, folder):
    with suppress(FileExistsError):  # an array holds several
        unpickle()
    assert (folder / SENTINEL).is_dir()


@pytest.mark.whole
def test_a_real_process_says_one_line(folder):
    """Nothing of Lightning's own reaches stderr before the sentence, however late the failure.

    Our own warning does: a class without a row.
    """
    command = [sys.executable, "-m", "smx_lightning", *shlex.split(f"fit {RUN} {NPZ}=good.npz")]
    late = ["--data.class_names=[a,b,c,d]", "--model.class_weight=balanced"]
    done = subprocess.run([*command, *late], capture_output=True, text=True, check=False)
    assert done.returncode == BAD
    warning, sentence = done.stderr.splitlines()
    assert "expected a training row of every class, got none of d (1 of 4 classes)" in warning
    assert sentence.startswith("smx-lightning: class_weight='balanced' needs ")
