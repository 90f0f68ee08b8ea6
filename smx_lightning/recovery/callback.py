"""Training that nothing interrupts for good: not ``kill -9``, not SIGTERM, not a full disk.

A checkpoint of :class:`Recovery` is taken just before a batch begins, when all that came before is
over and done with: callbacks, schedules, validation. What follows is a pure function of it, because
the order of the rows is one of (seed, epoch), and random numbers are drawn from generators that are
seeded anew for every batch, with (seed, epoch, batch, rank). So a resumed run ends with the bits of
an uninterrupted one, whenever it was saved and however often.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from smx_lightning.callbacks import softmax_regression
from smx_lightning.checkpoint.progress import restore_digits, resume, settle
from smx_lightning.checkpoint.writing import WholeFileIO
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, non_negative
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.distributed import Votes, decided, sharing
from smx_lightning.processes.ending import exit_code
from smx_lightning.recovery.fingerprint import fingerprint, settings, weights
from smx_lightning.recovery.finite import NotFiniteError, is_finite, not_finite
from smx_lightning.recovery.runs import KEY, Run, last_files, written
from smx_lightning.recovery.seeding import seed_batch
from smx_lightning.recovery.signals import Signals


class Recovery(ModelCheckpoint):
    """Save what a run needs to go on, and let the next run go on from there, bit for bit.

    One line turns it on: ``Trainer(callbacks=[Recovery()])``, or in a configuration file
    ``trainer.callbacks: smx_lightning.Recovery``. A run that finds the checkpoint of an unfinished
    one of the same experiment resumes it, in the middle of an epoch too; for what makes an
    experiment see :mod:`smx_lightning.recovery.fingerprint`. The checkpoint of a finished run is
    resumed, and trains nothing, where torchrun or SLURM restart their job, or on
    ``ckpt_path="last"``; otherwise the next run begins anew. SIGTERM and SIGINT save and end the
    process with exit code 143 and 130; a second SIGINT ends it at once. Every checkpoint of the
    run, also those of other callbacks, is written whole or not at all.

    Resuming in the middle of an epoch needs a loader that can, as
    :class:`~smx_lightning.data.BatchLoader`, which the data modules here use.

    Args:
        dirpath: Folder of the checkpoints ``last-….ckpt``, one an experiment, named by its
            fingerprint; ``recovery`` in the Trainer's ``default_root_dir`` by default. All
            processes of all hosts must see it.
        seconds: How much work a crash may cost.
        every_n_steps: Save before every n-th batch instead, whatever the clock says.

    Raises:
        InputError: Before training, where another process trains the same experiment into the
            folder, or one of other settings or data was left unfinished there; while training,
            where parameters are not finite: they never replace a checkpoint.
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
        self._run: Run | None = None
        self._weights: dict[str, Any] = {}  # that the run begins with
        self._signals = Signals()
        self._searched = self._settled = False
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

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.dirpath or Path(trainer.default_root_dir) / "recovery").absolute()

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """What ``ckpt_path="last"`` finds."""
        found = last_files(self._folder(trainer), settings(trainer, trainer.lightning_module))
        self._searched = bool(found) and trainer.state.fn == "fit"
        return found

    # Before training -------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write files whole."""
        softmax_regression(self, pl_module)
        self.dirpath = str(self._folder(trainer))
        super().setup(trainer, pl_module, stage)
        if stage != "fit" or self._trying_out(trainer):
            return
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFileIO()
        self._weights = weights(pl_module)
        # The first to restore: other callbacks look at what was restored when the fit starts.
        trainer.callbacks = [self, *self._others(trainer)]  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume the experiment's unfinished run; all processes do what the first one decides."""
        # Behind the others: the first one's best model is the Trainer's.
        trainer.callbacks = [*self._others(trainer), self]  # type: ignore[attr-defined]
        if self._trying_out(trainer):
            return
        run = self._run = Run(
            self._folder(trainer), {**fingerprint(trainer, pl_module), **self._weights}
        )
        newest = self._searched  # what ckpt_path="last" has found
        given, loaded = self._given(trainer, run)
        file, run.file = decided(
            trainer, lambda: (run.begin(given, written(loaded), newest=newest), run.file)
        )
        if file is not None:
            resume(trainer, file)
            if trainer.is_global_zero:
                print(f"Resuming the run of {file}; remove it to begin anew", file=sys.stderr)
        restore_digits(trainer)

    def _given(self, trainer: Trainer, run: Run) -> tuple[Path | None, dict[str, Any]]:
        """The checkpoint that the Trainer resumes already, and what is in it."""
        connector, searched = trainer._checkpoint_connector, self._searched
        self._searched = False
        if trainer.strategy.restore_checkpoint_after_setup:  # it says nothing yet of a path
            return (run.file if searched else None), {}
        loaded = connector._loaded_checkpoint
        return (Path(connector._ckpt_path) if loaded and connector._ckpt_path else None), loaded

    @staticmethod
    def _trying_out(trainer: Trainer) -> bool:
        """Whether this is no run to be continued."""
        return bool(getattr(trainer, "fast_dev_run", False))

    def _others(self, trainer: Trainer) -> list[Any]:
        return [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals, and agree on a seed."""
        super().on_train_start(trainer, pl_module)
        if self._seed is None:
            self._seed = trainer.strategy.broadcast(torch.initial_seed())
        several = trainer.world_size > 1
        self._votes = Votes(trainer.strategy.root_device if several else None)
        self._since_save, self._saved_at = 0, time.monotonic()
        slurm = self._slurm(trainer)
        self._signals.take_over(trainer, None if slurm is None else slurm.requeue_signal)

    # While training --------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the batch; where it is time, save the state before it."""
        where = (self._seed, trainer.current_epoch, batch_idx, sharing(trainer)[0])
        seed_batch(trainer.strategy.root_device, *where)
        self._beat()
        if batch_idx % trainer.accumulate_grad_batches:
            return  # gradients are under way
        self._signals.early = False
        self._since_save += 1
        received, due = self._agree(trainer)
        code = self._ends_with(trainer, received)
        if code is not None:
            self._save(trainer)
            raise SIGTERMException(code)
        if received:  # pre-empted: Lightning saves its own checkpoint, and queues the job again
            self._settled = True
            self._signals.pass_on(received)
            self._settled = False
        if due:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a schedule that follows a metric be stepped in the resumed epoch too.

        Lightning leaves that out while it is restarting, for want of the metrics. But the epoch's
        own are there: those of training are restored, and validation follows its last batch.
        """
        super().on_train_epoch_end(trainer, pl_module)
        trainer.fit_loop._restarting = False

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Say that the process is alive."""
        self._beat()

    def _beat(self) -> None:
        if self._run is not None:
            self._run.beat()

    def _ends_with(self, trainer: Trainer, received: set[int]) -> int | None:
        """The exit code of a run that has received these signals; ``None`` where it goes on."""
        if self._slurm(trainer) is not None:
            received = received & {signal.SIGINT}  # the others are SLURM's
        return exit_code(max(received)) if received else None

    def _agree(self, trainer: Trainer, *, last: bool = False) -> tuple[set[int], bool]:
        """Signals that any process has received, and whether to save: the same on all of them."""
        if self.every_n_steps is not None:
            due = self._since_save >= self.every_n_steps
        else:  # by one clock
            due = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds
        numbers = self._signals.numbers
        flags = [due, *(number in self._signals.received for number in numbers)]
        agreed, *received = self._votes.agreed(flags, last=last)
        signals = {number for number, yes in zip(numbers, received, strict=True) if yes}
        self._signals.received -= signals
        return signals, (agreed if self.every_n_steps is None else due)

    def _save(self, trainer: Trainer) -> None:
        run = self._run
        if run is None or not self._is_good(trainer, run):
            return
        self._settled = True
        trainer.save_checkpoint(run.file)
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
        if self._run is not None:
            checkpoint[KEY] |= {"experiment": self._run.experiment, "run": self._run.id}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Inverse of :meth:`on_save_checkpoint`."""
        if KEY not in checkpoint or trainer.state.fn != "fit":
            return
        try:
            self._restore(trainer, pl_module, checkpoint)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                "expected a run's seed and counts in the checkpoint, as Recovery saves them, got: "
                f"{type(error).__name__} {reason(error)}; it was changed since it was saved: take "
                "an unchanged one, or train anew from load_from_checkpoint(…)"
            ) from error

    def _restore(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        saved = written(checkpoint)
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

    def _is_good(self, trainer: Trainer, run: Run) -> bool:
        return is_finite(trainer, softmax_regression(self, trainer.lightning_module), run.kept())

    # After training --------------------------------------------------------------------------

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, because what follows may crash as well; give the signals back."""
        received, _ = self._agree(trainer, last=True)
        self._signals.give_back()
        run = self._run
        if run is None or not self._is_good(trainer, run):
            return
        self._finished = _limits(trainer)
        trainer.save_checkpoint(run.file)
        self._finished = None
        if trainer.is_global_zero:
            run.end()
        code = self._ends_with(trainer, received)
        if code is not None:
            raise SIGTERMException(code)
        if trainer.is_global_zero and self._slurm(trainer) is not None:
            # Lightning would test these in place of the trained model.
            for requeued in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                requeued.unlink(missing_ok=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let others train the experiment."""
        self._leave()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back, let others train, say what is left and why the process ends."""
        if isinstance(exception, SIGTERMException) and exception.code is None:
            # Lightning's own, which says no code.
            exception.code = self._ends_with(trainer, self._signals.received)
        if not isinstance(exception, NotFiniteError) and trainer.is_global_zero:
            self._say_what_is_left(pl_module)
        self._signals.give_back()
        self._leave()

    def _say_what_is_left(self, model: LightningModule) -> None:
        if self._run is None or self._signals.early:
            return
        with suppress(RuntimeError):  # of a device that has failed: what was raised says more
            if not_finite(model) is not None:
                print(f"The parameters became infinite or NaN; {self._run.kept()}", file=sys.stderr)

    def _leave(self) -> None:
        if self._run is not None:
            self._run.leave()
            self._run = None

    @staticmethod
    def _slurm(trainer: Trainer) -> SLURMEnvironment | None:
        """The environment that handles pre-emption by itself, if that is where this runs."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            return environment
        return None


def _limits(trainer: Trainer) -> list[int | None]:
    """When training is over."""
    return [trainer.max_epochs, trainer.max_steps]
