"""Writing files that are whole or absent. No torch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smx_lightning.errors import InputError
from smx_lightning.processes.drafts import Draft, sweep

MOST_LINKS = 40  # in a row, as Linux follows them


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; moved into place at the end, removed on any error.

    The data is on disk before the move, so neither a crash nor a failed check leaves a broken file
    under the final name, and what was there before survives. Each call has a draft of its own, and
    removes those that killed processes have left in the folder.

    A link stays, and the file that it leads to is written. A file that was there keeps its
    permissions, and its owner where that is allowed; a new one has those of any new file. What is
    no regular file is refused: the move would replace a device or a pipe.

    Raises:
        InputError: Where the folder is missing or cannot be written to, or ``path`` is no file's.
    """
    path, draft, writing = file_path(path), None, False
    try:
        target = _target(path)
        earlier = _status(target)
        draft = Draft(target.parent, 0o666 if earlier is None else 0o600)  # private while it grows
        sweep(draft)
        writing = True
        yield draft.path
        writing = False
        _move(draft, _target(path), earlier)
    except OSError as error:
        if writing and draft is not None and not _is_of(draft, error):
            raise  # of another file, which the caller reads meanwhile
        raise InputError(
            f"expected to write {path}, got: {error.strerror or error}; choose a folder that "
            "exists, is writable and has room"
        ) from error
    finally:
        if draft is not None:
            draft.discard()


def check_writable(path: str | Path) -> None:
    """Complain, before the work is done, about a path that cannot be written; leaves nothing.

    Raises:
        InputError: As :func:`written_whole` does.
    """
    with suppress(_Left), written_whole(path):
        raise _Left


class _Left(Exception):  # noqa: N818 (no fault)
    """Leaves a draft as it is, unwritten."""


def _is_of(draft: Draft, error: OSError) -> bool:
    """Whether it can have come from writing a draft; full disks are told without a name."""
    if isinstance(error, ConnectionError):  # of a pipe
        return False
    return error.filename is None or os.fspath(error.filename) == os.fspath(draft.path)


def at_home(path: str | Path) -> Path:
    """A path whose ``~`` is the user's home folder, as in YAML and behind ``=`` no shell reads it.

    ``~name`` of nobody's stays as it is: a file may be called so.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path's own fails there


def file_path(path: str | Path) -> Path:
    """A path as such, which would forget that it ended in a slash, at home where it begins so.

    Raises:
        InputError: Where it did, as only a folder's does.
    """
    if str(path).endswith(("/", os.sep)):
        raise InputError(f"expected a file name to write to, got the folder {path}; add a name")
    return at_home(path)


def _target(path: Path) -> Path:
    """The file that a path leads to, which may be absent.

    Raises:
        InputError: Where it leads to what is no regular file, or is no path at all.
        OSError: Where the links lead nowhere.
    """
    if not _is_path(path):
        raise InputError(f"expected a file name to write to, got {str(path)!r}; choose another")
    if path.is_dir():
        raise InputError(f"expected a file name to write to, got the folder {path}; add a name")
    target, is_stream = _followed(path)
    found = _status(target)
    if is_stream or not (found is None or stat.S_ISREG(found.st_mode)):
        raise InputError(
            f"expected a file name to write to, got {path}, which is no regular file; choose "
            "another name"
        )
    return target


def _is_path(path: Path) -> bool:
    """Whether a system can have a file of that name: Unicode allows more than any of them."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _followed(path: Path) -> tuple[Path, bool]:
    """Where links end, and whether one of them was a stream's name, such as /dev/stdout.

    Those lead to a file only by chance: what was printed to it before would be replaced.
    """
    is_stream = False
    for _ in range(MOST_LINKS):
        folder = Path(os.path.realpath(path.parent))
        path = folder / path.name
        if not path.is_symlink():
            break
        is_stream |= folder == Path("/dev") or folder.parts[:2] == ("/", "proc")
        path = folder / path.readlink()
    return path, is_stream


def _status(path: Path) -> os.stat_result | None:
    """Of the name itself, not of what a link leads to; ``None`` where there is nothing."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _move(draft: Draft, target: Path, earlier: os.stat_result | None) -> None:
    """Put a draft in the place of a file, with that file's permissions, or of none."""
    if not draft.is_at(draft.path):
        raise FileNotFoundError("its draft is gone, and something else may be in its place")
    earlier = _status(target) or earlier
    if earlier is not None:
        _take_over(draft.descriptor, earlier)
    os.fsync(draft.descriptor)
    if os.name == "nt":  # open files stay where they are
        draft.release()
    draft.path.replace(target)
    _sync_folder(target.parent)


def _take_over(descriptor: int, earlier: os.stat_result) -> None:
    """Give a file the permissions of an earlier one, and its owner and group where allowed."""
    if not hasattr(os, "fchown"):
        return
    for owner in (earlier.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, earlier.st_gid)
            break
    mode = earlier.st_mode & 0o777  # writing takes setuid off, too
    if os.fstat(descriptor).st_gid != earlier.st_gid:
        mode &= ~stat.S_IRWXG  # they were the rights of another group
    os.fchmod(descriptor, mode)


def _sync_folder(folder: Path) -> None:
    """Put the folder's own entries on the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
