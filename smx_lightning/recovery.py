"""Training that nothing interrupts for good: not ``kill -9``, not SIGTERM, not a full disk.

A checkpoint of :class:`Recovery` is taken just before a batch begins, when all that came before is
over and done with: callbacks, schedules, validation. What follows is a pure function of it, because
the order of the rows is one of (seed, epoch), and random numbers are drawn from generators that are
seeded anew for every batch, with (seed, epoch, batch, rank). So a resumed run ends with the bits of
an uninterrupted one, whenever it was saved and however often.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from smx_lightning.callbacks import softmax_regression
from smx_lightning.checkpoint import UNREADABLE
from smx_lightning.checks import at_least, non_negative
from smx_lightning.data.loading import sharing
from smx_lightning.distributed import Votes
from smx_lightning.errors import InputError
from smx_lightning.files import written_whole
from smx_lightning.progress import settle

KEY = "smx_lightning_recovery"
FILE = "last.ckpt"
TERMINATED = 128 + signal.SIGTERM  # the exit code that shells give a process ended by SIGTERM


class WholeFileIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside their target, flushed to disk, moved."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint``; what was at ``path`` stays until the new one is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft, draft.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch hides the system's complaint behind its own
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


class Recovery(ModelCheckpoint):
    """Save what a run needs to go on, and let the next run go on from there, bit for bit.

    One line turns it on: ``Trainer(callbacks=[Recovery()])``, or in a configuration file
    ``trainer.callbacks: smx_lightning.Recovery``. A run that finds the checkpoint of an unfinished
    one resumes it, in the middle of an epoch too. That of a finished one is resumed, and trains
    nothing, where torchrun or SLURM restart their job, or on ``ckpt_path="last"``; otherwise the
    next run begins anew. SIGTERM saves and ends the process with exit code 143. Every checkpoint of
    the run, also those of other callbacks, is written whole or not at all.

    Resuming in the middle of an epoch needs a loader that can, as
    :class:`~smx_lightning.data.BatchLoader`, which the data modules here use.

    Args:
        dirpath: Folder of the checkpoint ``last.ckpt``; ``recovery`` in the Trainer's
            ``default_root_dir`` by default. All processes of all hosts must see it.
        seconds: How much work a crash may cost.
        every_n_steps: Save before every n-th batch instead, whatever the clock says.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        seconds: float = 60.0,
        every_n_steps: int | None = None,
    ) -> None:
        super().__init__(dirpath=dirpath, save_top_k=0, save_last=False)
        self.seconds = non_negative("seconds", seconds)
        self.every_n_steps = every_n_steps and at_least("every_n_steps", every_n_steps, 1)
        self._seed: int | None = None
        self._received: set[int] = set()
        self._handlers: dict[int, Any] = {}
        self._settled = False
        self._finished: list[int | None] | None = None
        self._votes = Votes(None)
        self._since_save, self._saved_at = 0, 0.0

    @property
    def state_key(self) -> str:
        """One, whatever the arguments: they may change between runs."""
        return KEY

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see :meth:`on_save_checkpoint`."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""

    def file(self, trainer: Trainer) -> Path:
        """The checkpoint."""
        return Path(self.dirpath or Path(trainer.default_root_dir) / "recovery") / FILE

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """What ``ckpt_path="last"`` finds."""
        file = self.file(trainer)
        return {str(file)} if file.is_file() else set()

    # Before training -------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write files whole, and resume an unfinished run."""
        softmax_regression(self, pl_module)
        file = self.file(trainer)
        self.dirpath = str(file.parent)
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or self._trying_out(trainer):
            return
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFileIO()
        # Behind the others: the first one's best model is the Trainer's.
        others = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            for draft in file.parent.glob(f".{FILE}.*.tmp"):  # of a run that was killed
                with suppress(OSError):
                    draft.unlink()
        if not trainer.strategy.restore_checkpoint_after_setup:
            self._resume(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume where the classes had to be spread over processes first."""
        if trainer.strategy.restore_checkpoint_after_setup and not self._trying_out(trainer):
            self._resume(trainer)

    @staticmethod
    def _trying_out(trainer: Trainer) -> bool:
        """Whether this is no run to be continued."""
        return bool(getattr(trainer, "fast_dev_run", False))

    def _resume(self, trainer: Trainer) -> None:
        """Let the Trainer restore the run of ``file``; a path given to ``fit`` goes before it."""
        file = self.file(trainer)
        if not trainer.strategy.broadcast(file.is_file()):
            return
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except UNREADABLE as error:
            raise InputError(
                f"expected the checkpoint of a run in {file}, got a file that torch cannot read; "
                "remove it to begin anew"
            ) from error
        if content.get(KEY, {}).get("finished") and not _restarted():
            return
        trainer._checkpoint_connector.resume_start(file)
        if trainer.is_global_zero:
            print(f"Resuming the run of {file}; remove it to begin anew", file=sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals, and agree on a seed."""
        super().on_train_start(trainer, pl_module)
        if self._seed is None:
            self._seed = trainer.strategy.broadcast(torch.initial_seed())
        several = trainer.world_size > 1
        self._votes = Votes(trainer.strategy.root_device if several else None)
        self._since_save, self._saved_at = 0, time.monotonic()
        self._received.clear()
        if threading.current_thread() is not threading.main_thread():
            return
        self._handlers = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
        slurm = self._slurm(trainer)
        if slurm is not None and slurm.requeue_signal is not None:
            self._handlers[slurm.requeue_signal] = signal.getsignal(slurm.requeue_signal)
        for signum in self._handlers:
            signal.signal(signum, lambda number, _: self._note(trainer, number))

    # While training --------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the batch; where it is time, save the state before it."""
        # Of integers, so not salted: the same in every process and every run.
        key = hash((self._seed, trainer.current_epoch, batch_idx, sharing(trainer)[0]))
        _seed_torch(key, trainer.strategy.root_device)
        np.random.seed(key % 2**32)
        random.seed(key)
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients are under way
        self._since_save += 1
        received, due = self._agree(trainer)
        if signal.SIGTERM in received and self._slurm(trainer) is None:
            self._save(trainer)
            raise SIGTERMException(TERMINATED)
        if received:  # pre-empted: Lightning saves its own checkpoint, and queues the job again
            self._settled = True
            for signum in received:
                self._handlers[signum](signum, None)
            self._settled = False
        if due:
            self._save(trainer)

    def _agree(self, trainer: Trainer, *, last: bool = False) -> tuple[set[int], bool]:
        """Signals that any process has received, and whether to save: the same on all of them."""
        if self.every_n_steps is not None:
            due = self._since_save >= self.every_n_steps
        else:  # by one clock
            due = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds
        numbers = list(self._handlers)
        flags = [due, *(number in self._received for number in numbers)]
        agreed, *received = self._votes.agreed(flags, last=last)
        signals = {number for number, yes in zip(numbers, received, strict=True) if yes}
        self._received -= signals
        return signals, (agreed if self.every_n_steps is None else due)

    def _save(self, trainer: Trainer) -> None:
        if self._trying_out(trainer):
            return
        self._settled = True
        trainer.save_checkpoint(self.file(trainer))
        self._settled = False
        self._since_save, self._saved_at = 0, time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the seed and what the training metrics have counted of the epoch, on each process."""
        model = softmax_regression(self, pl_module)
        if self._settled:
            settle(checkpoint["loops"]["fit_loop"])
        states: list[Any] = []
        if model.solver is None:  # which repeats the epoch from its beginning
            states = [model.tallies["train"].state()] * trainer.world_size
            if trainer.world_size > 1:
                torch.distributed.all_gather_object(states, states[0])
                # Processes that share the classes of a model have counted the same rows.
                states = states[:: trainer.world_size // sharing(trainer)[1]]
        checkpoint[KEY] = {"seed": self._seed, "tallies": states, "finished": self._finished}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Inverse of :meth:`on_save_checkpoint`."""
        saved = checkpoint.get(KEY)
        if saved is None or trainer.state.fn != "fit":
            return
        if saved["finished"] == _limits(trainer):
            trainer.should_stop = True  # it may have stopped early
        for other in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(other.state_key, {})
            if isinstance(other, ModelCheckpoint) and "dirpath" in state:
                # Lightning forgets the best score where a resumed run logs into a new folder.
                state["dirpath"] = other.dirpath
        self._seed = saved["seed"]
        states = saved["tallies"]
        tally = softmax_regression(self, pl_module).tallies["train"]
        # As many processes as then take what each had; others share it out.
        rank, shares = sharing(trainer)
        tally.restore(states[rank::shares])

    # After training --------------------------------------------------------------------------

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, because what follows may crash as well; give the signals back."""
        received, _ = self._agree(trainer, last=True)
        self._give_back()
        if self._trying_out(trainer):
            return
        self._finished = _limits(trainer)
        trainer.save_checkpoint(self.file(trainer))
        self._finished = None
        if signal.SIGTERM in received and self._slurm(trainer) is None:
            raise SIGTERMException(TERMINATED)
        if trainer.is_global_zero and self._slurm(trainer) is not None:
            # Lightning would test these in place of the trained model.
            for requeued in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                requeued.unlink(missing_ok=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}

    def _note(self, trainer: Trainer, number: int) -> None:
        """Only note the signal: in the middle of a batch there is no state worth saving."""
        self._received.add(number)
        launcher = trainer.strategy.launcher
        if launcher is not None:  # the processes that this one has started
            launcher.kill(signal.Signals(number))

    @staticmethod
    def _slurm(trainer: Trainer) -> SLURMEnvironment | None:
        """The environment that handles pre-emption by itself, if that is where this runs."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            return environment
        return None


def _seed_torch(key: int, device: torch.device) -> None:
    """Seed the generators in use; ``torch.manual_seed`` takes 0.3 ms to prepare the others."""
    torch.default_generator.manual_seed(key)
    if device.type == "cuda":
        torch.cuda.manual_seed(key)
    elif device.type != "cpu":
        torch.manual_seed(key)


def _limits(trainer: Trainer) -> list[int | None]:
    """When training is over."""
    return [trainer.max_epochs, trainer.max_steps]


def _restarted() -> bool:
    """Whether a launcher started this process in the place of one that failed."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(count, "0") != "0" for count in counts)
