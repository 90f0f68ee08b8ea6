"""Files and folders that are written under a name of their own before they get their final one.

A draft is locked by the process that writes it, and the kernel gives the lock up when the process
ends, however it does. So a draft that nobody holds is what a killed process has left. Of other
machines' locks on a shared disk the kernel may not know: their drafts are taken for left only when
they were not touched for a day.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from smx_lightning.processes.lock import machine

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

QUIET = 86400.0  # seconds untouched, after which another machine's draft is taken for left
# Short, whatever the final name is: that may be as long as the disk allows.
_NAME = re.compile(r"\.smx-([0-9a-f]{8})-[0-9a-f]{16}\.tmp")
# Of what others may have put there: no link is followed, and no pipe's other end waited for.
_LOOK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# A name that is taken, by a planted link say, is never written through.
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class Draft:
    """A new file or folder, which this process holds until :meth:`release`.

    Args:
        folder: Where it is made.
        mode: Its permissions, from which the process's mask is taken off.
        directory: Whether it is a folder.

    Attributes:
        path: Its name.
        descriptor: Of it, open; -1 once it is released.
    """

    def __init__(self, folder: Path, mode: int, *, directory: bool = False) -> None:
        self.descriptor = -1
        try:
            while not self._made(folder, mode, directory):
                self.release()
        except BaseException:
            self.discard()
            raise

    def _made(self, folder: Path, mode: int, directory: bool) -> bool:
        """Make it under a name that nobody can know before; whether that went."""
        self.path = folder / f".smx-{_tag()}-{secrets.token_hex(8)}.tmp"
        try:
            if directory:
                self.path.mkdir(mode)
                if fcntl is None:  # such systems open no folders
                    return True
                with suppress(FileNotFoundError):  # swept before it was held
                    self.descriptor = os.open(self.path, _LOOK)
            else:
                self.descriptor = os.open(self.path, _NEW, mode)
        except FileExistsError:
            return False
        if self.descriptor < 0:
            return False
        _lock(self.descriptor, wait=True)
        return self.is_at(self.path)  # who held it first, to look at it, may have removed it

    def is_at(self, path: Path) -> bool:
        """Whether that is the draft, and nothing that was put in its place."""
        return _is_at(self.descriptor, path)

    def release(self) -> None:
        """Hold it no longer."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def discard(self) -> None:
        """Remove a file, or an empty folder, that was not moved, and release it."""
        for remove in (self.path.unlink, self.path.rmdir):
            with suppress(OSError):
                remove()
        self.release()


def left_behind(draft: Draft) -> Iterator[Path]:
    """The other drafts in its folder whose processes are dead, each held while it is looked at.

    Only those of this user, and of the name that drafts have.
    """
    with suppress(OSError):
        now = draft.path.lstat().st_mtime  # by the clock of the disk
        with os.scandir(draft.path.parent) as entries:
            names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
        for path in map(draft.path.with_name, names):
            if path != draft.path:
                with _looked_at(path, now) as left:
                    if left:
                        yield path


def sweep(draft: Draft) -> None:
    """Remove the files, not the folders, that are :func:`left_behind`."""
    for path in left_behind(draft):
        with suppress(OSError):
            path.unlink()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold what has a final name, if anything has, so that it is not :func:`left_behind`.

    For who gives it the name of a draft for a while: a lock goes with the file, not with its name.
    """
    descriptor = -1
    with suppress(OSError):  # there is nothing, or the system opens no folders
        descriptor = os.open(path, _LOOK)
        while _lock(descriptor, wait=True) and not _is_at(descriptor, path):
            os.close(descriptor)  # who held it first has put another there
            descriptor = -1
            descriptor = os.open(path, _LOOK)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def _looked_at(path: Path, now: float) -> Iterator[bool]:
    """Hold a draft for a moment; whether it is left behind."""
    try:
        descriptor = os.open(path, _LOOK)
    except OSError:  # a link, or gone
        yield False
        return
    try:
        yield _is_left(path, descriptor, now)
    finally:
        os.close(descriptor)


def _is_left(path: Path, descriptor: int, now: float) -> bool:
    """Whether nobody holds a draft that is ours: one of this machine, or an old one."""
    found, name = os.fstat(descriptor), _NAME.fullmatch(path.name)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return False
    held = _lock(descriptor, wait=False)
    if held is False or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        return False
    try:
        if not os.path.samestat(found, path.lstat()):
            return False
    except OSError:  # it has got its final name meanwhile
        return False
    here = held is True and name is not None and name[1] == _tag()
    return here or now - found.st_mtime > QUIET


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a name is that of an open file or folder."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock a draft: whether that went; ``None`` where the disk knows no locks."""
    if fcntl is None:
        return None
    try:  # not POSIX's: those are gone as soon as the process closes the file anywhere
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _tag() -> str:
    """Of the machine, as far as locks tell who lives."""
    return sha256(machine().encode()).hexdigest()[:8]
