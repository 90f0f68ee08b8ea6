"""Writing files that are whole or absent, predictions among them. No torch."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from smx_lightning.errors import InputError
from smx_lightning.errors.text import csv_text


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; moved into place at the end, removed on any error.

    The data is on disk before the move, so neither a crash nor a failed check leaves a broken file
    under the final name, and what was there before survives. Each call has a draft of its own.

    Raises:
        InputError: Where the folder is missing or cannot be written to.
    """
    path, draft = Path(path), None
    try:
        if path.is_dir():
            raise InputError(f"expected a file name to write to, got the folder {path}; add a name")
        if path.exists() and not path.is_file():  # the move would replace a device or a pipe
            raise InputError(
                f"expected a file name to write to, got {path}, which is no regular file; choose "
                "another name"
            )
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        draft.touch(exist_ok=False)
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"expected to write {path}, got: {error.strerror or error}; choose a folder that "
            "exists, is writable and has room"
        ) from error
    finally:
        if draft is not None:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def check_writable(path: str | Path) -> None:
    """Complain, before the work is done, about a path that cannot be written; leaves nothing.

    Raises:
        InputError: As :func:`written_whole` does.
    """
    with suppress(_Left), written_whole(path):
        raise _Left


class _Left(Exception):  # noqa: N818 (no fault)
    """Leaves a draft as it is, unwritten."""


def _sync_folder(folder: Path) -> None:
    """Put the folder's own entries on the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


MISSING = -1  # label of a row that has no answer
Write = Callable[[Sequence[int], Sequence[Sequence[float]]], None]


@contextmanager
def predictions_csv(path: str | Path, class_names: Sequence[str]) -> Iterator[Write]:
    """A function that appends rows to a CSV file, which appears when all of them are written.

    Its columns are row, counted from 0; class, the name as :func:`csv_text` has it, empty where the
    label is -1; and one p(name) a class.

    Args:
        path: The file.
        class_names: One name a class.

    Yields:
        A function of labels (n,) and probabilities (n, classes), to be called a block at a time.

    Raises:
        InputError: Where the file cannot be written.
    """
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "class", *(f"p({name})" for name in class_names)])
        cells = [csv_text(name) for name in class_names]
        written = 0

        def write(labels: Sequence[int], probs: Sequence[Sequence[float]]) -> None:
            nonlocal written
            for label, p in zip(labels, probs, strict=True):
                name = "" if label == MISSING else cells[label]
                writer.writerow([written, name, *(f"{value:.7g}" for value in p)])
                written += 1

        yield write
