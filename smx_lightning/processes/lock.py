"""One live process a file: a lock that does not outlive its process.

The kernel holds it, so a process that was killed holds it no more, whoever has its id now. What
the kernel cannot tell, of another host on a disk that shares files but no locks, is told by a
heartbeat: the time at which the lock's file was last touched.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

BEAT = 10.0  # seconds from one touch of the file to the next
STALE = 300.0  # seconds without one, after which another host's process is taken for dead
PATIENCE = 1.0  # seconds until a lock that others hold is believed to be held

_held: dict[Path, int] = {}  # paths that this process holds, and its id: forks inherit the dict


@dataclass(frozen=True)
class Process:
    """Who holds a lock.

    Attributes:
        pid: Of the process, 0 where it is not known.
        host: Name of the machine.
        machine: See :func:`machine`.
        started: When the process was, in the kernel's ticks: a later one with its id is another.
        run: The launcher's name of the job, see :func:`smx_lightning.processes.distributed.run_id`.
    """

    pid: int
    host: str
    machine: str
    started: int | None
    run: str | None

    @classmethod
    def this(cls, run: str | None) -> Process:
        """The one that asks."""
        pid = os.getpid()
        return cls(pid, socket.gethostname(), machine(), started(pid), run)


UNKNOWN = Process(0, "an unknown host", "", None, None)


def machine() -> str:
    """What makes ids of processes comparable: this boot, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def started(pid: int) -> int | None:
    """When a living process was started, in ticks; ``None`` of others, and without a /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie does nothing more


class Lock:
    """The right to write the files that ``path`` stands for; given back by :meth:`release`."""

    def __init__(self, path: Path, run: str | None = None) -> None:
        self.path, self.run = path.resolve(), run
        self._descriptor: int | None = None
        self._pid, self._beaten = 0, 0.0

    def acquire(self) -> Process | None:
        """Take it; who holds it, where that is another.

        Raises:
            OSError: Where the file cannot be written.
        """
        until = time.monotonic() + PATIENCE
        while True:
            if _held.get(self.path) == os.getpid():
                return Process.this(self.run)
            owner = self._attempt()
            # Who holds it may not have said so yet, or may only be looking (see below).
            if owner is None or time.monotonic() > until:
                return owner
            time.sleep(PATIENCE / 20)

    def _attempt(self) -> Process | None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _locked(descriptor, shared=False)
            owner = _owner(descriptor)
            if locked is False:
                return owner or UNKNOWN
            if owner is not None and _alive(owner, self, kernel=locked is True):
                return owner
            if not _is_at(descriptor, self.path):  # its owner has removed it meanwhile
                return UNKNOWN
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(asdict(Process.this(self.run))).encode())
            self._descriptor, descriptor = descriptor, -1
            self._pid, self._beaten = os.getpid(), time.monotonic()
            _held[self.path] = self._pid
            return None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def held(self) -> bool:
        """Whether a living process holds it; looks, and changes nothing."""
        if _held.get(self.path) == os.getpid():
            return True
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:  # lockers that look do not hinder each other
            locked = _locked(descriptor, shared=True)
            owner = _owner(descriptor)
            return locked is False or (
                owner is not None and _alive(owner, self, kernel=locked is True)
            )
        finally:
            os.close(descriptor)

    def beat(self) -> None:
        """Say that the process is alive, where that was not said lately."""
        if self._descriptor is not None and time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            with suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Give it back, where this process holds it."""
        if self._descriptor is None or self._pid != os.getpid():
            return
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)  # where the file cannot go while it is open
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None
        _held.pop(self.path, None)


def _locked(descriptor: int, *, shared: bool) -> bool | None:
    """Lock the file: whether that went; ``None`` where the disk knows no locks."""
    if fcntl is None:
        return None
    try:
        # POSIX's: not inherited by worker processes, which outlive a killed one for a while.
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _owner(descriptor: int) -> Process | None:
    """Who has written the file last."""
    # Not by its path: closing any descriptor of a file gives up the process's locks on it.
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        known: Any = json.loads(os.read(descriptor, 4096))
        return Process(**known)
    except (OSError, ValueError, TypeError):
        return None


def _alive(owner: Process, lock: Lock, *, kernel: bool) -> bool:
    """Whether the process that wrote the file lives, as far as that can be told.

    Args:
        owner: What it wrote.
        lock: The lock of the process that asks.
        kernel: Whether the kernel says that no process of this machine has locked it.
    """
    here = Process.this(lock.run)
    if owner.machine == here.machine:
        if owner.pid == here.pid or kernel:
            return False
        if owner.started is not None:
            return started(owner.pid) == owner.started
    elif owner.run is not None and owner.run == lock.run:
        return False  # an earlier group of this job: its launcher has ended it
    return _age(lock.path) < STALE


def _age(path: Path) -> float:
    """Seconds since the file was touched, by the clock of its disk."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
