"""Every run logs into a folder of its own, also of those that begin at the same moment."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from lightning.fabric.utilities.cloud_io import _is_local_file_protocol
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from smx_lightning.errors import InputError

CONFIGURED = {"config.yaml", "hparams.yaml"}  # what a run knows before it has done anything


def claim_folders(trainer: Trainer) -> list[Path]:
    """Make the folders of loggers that would number them later, when others may take the number.

    Returns:
        Those that were made.
    """
    claimed = []
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if not isinstance(logger, (CSVLogger, TensorBoardLogger)) or logger._version is not None:
            continue  # it has a name already
        if _is_local_file_protocol(logger.root_dir):
            claimed.append(_claim(logger))
    return claimed


def give_up_empty(folders: Iterable[Path]) -> None:
    """Remove what a failed run leaves of its folders, where that is its settings at most."""
    for folder in folders:
        with suppress(OSError):  # the next run's number is higher then, which is all
            files = [path for path in folder.rglob("*") if not path.is_dir()]
            if any(path.name not in CONFIGURED or path.parent != folder for path in files):
                continue
            shutil.rmtree(folder)
            folder.parent.rmdir()  # if it was the first


def _claim(logger: CSVLogger | TensorBoardLogger) -> Path:
    least = 0
    while True:
        logger._version = version = max(logger._get_next_version(), least)
        try:
            Path(logger.log_dir).mkdir(parents=True)
        except FileExistsError:  # another run's, made since the version was chosen, or a file
            least = version + 1
        else:
            return Path(logger.log_dir)


class SaveConfig(SaveConfigCallback):
    """Lightning's own, whose refusal to overwrite is the user's to resolve."""

    brought_back: ClassVar[tuple[str, ...]] = ("already_saved",)  # see processes.spawned

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the configuration in the log folder."""
        try:
            super().setup(trainer, pl_module, stage)
        except (RuntimeError, ValueError) as error:  # seen by Lightning, or by the parser at last
            if "to NOT exist" not in str(error) and "Refusing to overwrite" not in str(error):
                raise
            raise InputError(
                f"expected no {self.config_filename} of an earlier run in {trainer.log_dir}; move "
                "it away, or train with a logger, which gives every run a folder of its own"
            ) from error
