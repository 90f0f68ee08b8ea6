"""Which file a run saves to, and whether a file that is there already is to be resumed.

An experiment has one file in a folder, named by its fingerprint, and at most one living process.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from smx_lightning.checkpoint.content import load_plain
from smx_lightning.checkpoint.writing import NAME
from smx_lightning.errors import InputError
from smx_lightning.processes.distributed import restarted, run_id
from smx_lightning.processes.lock import Lock, Process
from smx_lightning.recovery.fingerprint import differences, digest

KEY = "smx_lightning_recovery"
OLD = "last.ckpt"  # of every experiment, in version 0.1


class Run:
    """A run of one experiment, in one folder.

    Args:
        folder: Where checkpoints are.
        experiment: Its fingerprint.

    Attributes:
        file: The experiment's checkpoint.
        finished: That of its last run that ended well, while a new one has not.
        id: The launcher's name of the job, where there is one.
    """

    def __init__(self, folder: Path, experiment: Mapping[str, Any]) -> None:
        self.folder, self.experiment, self.id = folder, experiment, run_id()
        name = digest(experiment)
        self.file = folder / f"last-{name}.ckpt"
        self.finished = folder / f"finished-{name}.ckpt"
        self._lock = _lock(self.file)

    def begin(
        self, given: Path | None, saved: Mapping[str, Any], *, newest: bool = False
    ) -> Path | None:
        """Take the experiment's lock; which checkpoint to restore, if any.

        Args:
            given: What the Trainer has restored already.
            saved: What Recovery had written into that.
            newest: Whether that was found as the newest one, and not named.

        Returns:
            A file of this experiment; ``None`` to go on with what was given, or to begin anew.

        Raises:
            InputError: Where another process trains it, or to begin would leave a run unfinished.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            owner = self._lock.acquire()
        except OSError as error:
            raise InputError(
                f"expected to write in {self.folder}, got: {error.strerror or error}; give a "
                "folder that is writable with Recovery(dirpath=…)"
            ) from error
        if owner is not None:
            raise InputError(self._occupied(owner))
        if given is None:
            return self._choice()
        return self._checked(given, saved) or (None if newest else self._left(given))

    def _choice(self) -> Path | None:
        if not self.file.is_file():
            if not restarted():  # by a launcher: nobody has changed a setting since
                self._refuse_unfinished()
            return None
        saved = read(self.file)
        self._refuse_other(self.file, saved)
        if saved.get("finished") and not (restarted() and saved.get("run") == self.id):
            # So that a restart of this run before its first save does not find it.
            self.file.replace(self.finished)
            return None
        read(self.file, whole=True)
        return self.file

    def _checked(self, given: Path, saved: Mapping[str, Any]) -> Path | None:
        """What to restore in place of ``given``, which the user has named or ``last`` has found.

        Before the data is known, ``last`` finds the newest file of these settings.
        """
        if given.parent == self.folder and NAME.fullmatch(given.name):
            if given.name == self.finished.name and not self.file.exists():
                self.finished.replace(self.file)  # there is no newer run after all
            elif given.name != self.file.name and self.file.is_file():
                return self.file
            self._refuse_other(given, saved)
        elif given.name.startswith("hpc_ckpt_"):  # of whatever job of SLURM left it there
            self._refuse_other(given, saved)
        elif differing := differences(saved.get("experiment", {}), self.experiment, "optimizer"):
            raise InputError(
                f"expected the optimiser of the checkpoint {given}, got another: {differing}; set "
                "it back to resume, or load the weights alone with load_from_checkpoint and train "
                "them without ckpt_path"
            )
        return None

    def _left(self, given: Path) -> Path | None:
        """What this job has saved since it began from ``given``, which it names at every restart.

        An unfinished run of the experiment that going on from ``given`` would overwrite is set
        aside, under a name of its own.
        """
        ours = given.parent == self.folder and NAME.fullmatch(given.name)
        if ours or given.name.startswith("hpc_ckpt_") or not self.file.is_file():
            return None
        there = read(self.file)
        if restarted() and there.get("run") == self.id:
            return self.file
        if not there.get("finished"):
            names = (f"aside-{self.file.stem[5:]}-{k}.ckpt" for k in itertools.count(1))
            aside = next(p for p in map(self.folder.joinpath, names) if not p.exists())
            self.file.replace(aside)
            print(
                f"Going on from {given}; the unfinished run of this experiment is kept in {aside}: "
                "go on with it by ckpt_path, or remove it",
                file=sys.stderr,
            )
        return None

    def _refuse_unfinished(self) -> None:
        """Complain about a run of another experiment that is neither finished nor alive."""
        for path in _files(self.folder, "last"):
            if _lock(path).held():
                continue
            try:
                saved = read(path)
            except InputError:
                if path.exists():  # else a new run of that experiment has just begun
                    raise
                continue
            if not saved.get("finished"):
                self._refuse_other(path, saved)
        self._refuse_old()

    def _refuse_old(self) -> None:
        """Complain about an unfinished run of 0.1, which could be anybody's."""
        old = self.folder / OLD
        if not old.is_file():
            return
        saved = read(old)
        if saved and not saved["experiment"] and not saved.get("finished"):
            raise InputError(
                f"expected checkpoints that say which experiment they belong to, got {old} of an "
                "unfinished run of smx-lightning 0.1; go on with it by fit(ckpt_path=…), or remove "
                "it to begin anew"
            )

    def _refuse_other(self, path: Path, saved: Mapping[str, Any]) -> None:
        """Complain about the unfinished run of another experiment."""
        differing = differences(saved.get("experiment", {}), self.experiment)
        if differing:
            raise InputError(
                f"expected a run of this experiment, got {path} of another: {differing}; set it "
                "back to go on with that run, or remove the file to begin anew, or keep both with "
                "Recovery(dirpath=…)"
            )

    def _occupied(self, owner: Process) -> str:
        elsewhere = owner.machine != Process.this(None).machine
        dead = f", or remove {self._lock.path} if it is no more" if elsewhere else ""
        return (
            f"expected no other process that trains this experiment into {self.file}, got process "
            f"{owner.pid} on {owner.host}; wait until it ends, or end it{dead}, or train a second "
            "time in a folder of its own with Recovery(dirpath=…)"
        )

    def kept(self) -> str:
        """What is left to the user once the parameters are no longer finite."""
        if not self.file.is_file():
            return "nothing was saved: begin anew"
        return f"{self.file} keeps the last finite state: remove it to begin anew"

    def beat(self) -> None:
        """Say now and then that the process is alive, to other hosts."""
        self._lock.beat()

    def end(self) -> None:
        """Forget the run before this one, which has ended well."""
        self.finished.unlink(missing_ok=True)

    def leave(self) -> None:
        """Give the lock back."""
        self._lock.release()


def _files(folder: Path, kind: str) -> list[Path]:
    return [path for path in sorted(folder.glob(f"{kind}-*.ckpt")) if NAME.fullmatch(path.name)]


def _lock(file: Path) -> Lock:
    return Lock(file.with_name(f".{file.stem}.lock"), run_id())


def read(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """What Recovery has written into a checkpoint; empty where another has written it.

    Args:
        path: The checkpoint.
        whole: Whether to look at the weights too, as before a run is resumed.

    Raises:
        InputError: For a file that torch cannot read, or that was damaged.
    """
    try:
        return written(load_plain(path, mmap=not whole))
    except (ValueError, TypeError) as error:  # an InputError is one, too
        raise InputError(
            f"expected the checkpoint of a run in {path}, got a file that is damaged or that torch "
            "cannot read; remove it to begin anew"
        ) from error


def written(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What Recovery has written into a loaded checkpoint; empty where another has written it.

    Raises:
        TypeError: Where it has not, though the names say so.
    """
    if KEY not in checkpoint:
        return {}
    saved = checkpoint[KEY]
    if not (isinstance(saved, Mapping) and isinstance(saved.get("experiment", {}), Mapping)):
        raise TypeError(f"expected a dict with the run's experiment, got {type(saved).__name__}")
    return {**saved, "experiment": dict(saved.get("experiment", {}))}


def last_files(folder: Path, settings: Mapping[str, Any]) -> set[str]:
    """Checkpoints of experiments with these settings; of any, where there are no such.

    Args:
        folder: Where checkpoints are.
        settings: What is known of the experiment so far: some parts of its fingerprint.
    """
    found = _files(folder, "last") or _files(folder, "finished")
    same = []
    for path in found:
        with suppress(InputError):  # said later, where it matters
            there = read(path).get("experiment", {})
            if not any(differences(there, settings, part) for part in settings):
                same.append(path)
    return {str(path) for path in same or found}
