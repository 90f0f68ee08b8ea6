"""Runs that begin at the same moment log into folders of their own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import yaml
from lightning.pytorch import cli
from lightning.pytorch.loggers import CSVLogger
from trainers import quiet_trainer

from smx_lightning.cli import main
from smx_lightning.cli.folders import claim_folders

RUN = ["fit", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]


def claimed(**logger):
    trainer = quiet_trainer(logger=CSVLogger(**logger))
    claim_folders(trainer)
    return Path(trainer.log_dir)


def test_each_of_many_at_once_gets_a_folder_of_its_own(tmp_path):
    together = Barrier(16)

    def run(number):
        together.wait()
        return [claimed(save_dir=tmp_path) for _ in range(5)]

    with ThreadPoolExecutor(16) as pool:
        folders = [folder for some in pool.map(run, range(16)) for folder in some]
    assert len({*folders}) == 80
    assert {*folders} == {tmp_path / "lightning_logs" / f"version_{n}" for n in range(80)}
    assert all(folder.is_dir() for folder in folders)


def test_the_number_is_lightning_s_and_a_file_in_the_way_is_passed_by(tmp_path):
    logs = tmp_path / "lightning_logs"
    (logs / "version_7").mkdir(parents=True)
    (logs / "version_8").write_text("no folder")
    assert claimed(save_dir=tmp_path) == logs / "version_9"
    assert (logs / "version_8").read_text() == "no folder"


def test_a_folder_with_a_name_is_left_to_its_user(tmp_path):
    for version in (3, "mine"):
        assert not claimed(save_dir=tmp_path, version=version).exists()
    trainer = quiet_trainer(default_root_dir=tmp_path)
    claim_folders(trainer)  # without a logger
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("seen", [True, False])  # before it is written, or only then
def test_where_two_runs_share_a_folder_the_second_is_told_in_one_sentence(
    seen, cli_folder, monkeypatch, capsys
):
    run = [*RUN, "--trainer.max_epochs=1", "--trainer.logger.version=0"]
    assert main(run) == 3
    capsys.readouterr()
    if not seen:
        monkeypatch.setattr(cli, "get_filesystem", Blind)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        assert main(run) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith("smx-lightning: expected no config.yaml of an earlier run in ")
    monkeypatch.undo()
    monkeypatch.chdir(cli_folder)
    monkeypatch.setattr("sys.argv", ["smx-lightning"])
    assert main(run[:-1]) == 3  # the remedy: a logger that numbers its folders


class Blind:
    """A file system on which another run's file appears a moment too late."""

    def __init__(self, path):
        pass

    def isfile(self, path):
        return False

    def makedirs(self, path, exist_ok):
        Path(path).mkdir(parents=True, exist_ok=exist_ok)


@pytest.mark.whole
def test_five_commands_at_once(tmp_path):
    command = [sys.executable, "-m", "smx_lightning", *RUN, "--trainer.max_epochs=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [*command, f"--model.l2={l2}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for l2 in (1, 2, 3, 4, 5)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [3] * 5, said  # two epochs are too few
    folders = [*(tmp_path / "lightning_logs").iterdir()]
    assert {folder.name for folder in folders} == {f"version_{n}" for n in range(5)}
    settings = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    assert sorted(s["model"]["init_args"]["l2"] for s in settings) == [1, 2, 3, 4, 5]
    for folder in folders:
        assert (folder / "model.onnx").exists()
        assert (folder / "metrics.csv").exists()
        assert (folder / "checkpoints" / "best.ckpt").exists()
