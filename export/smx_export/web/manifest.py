"""Which files of a folder are a page that was written before: those that its manifest lists.

Other programs' pages have an ``index.html`` and a ``model.json``, too, and a page's owner may have
changed it. So nothing is taken for ours by its name: its content must be what was written.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from smx_export.errors import FileError

MANIFEST = "smx-page.json"
LARGEST = 1 << 20  # bytes of a manifest


def manifest_of(contents: Mapping[str, bytes]) -> bytes:
    """The manifest of files by name."""
    hashes = {name: sha256(content).hexdigest() for name, content in contents.items()}
    return (
        json.dumps({"written_by": "smx-export web", "sha256": hashes}, indent=1) + "\n"
    ).encode()


def check_replaceable(folder: Path, named: Path | None = None) -> None:
    """Refuse a folder that holds anything but an earlier page, unchanged.

    Args:
        folder: Where it is; it may be absent, or empty.
        named: What the messages call it.

    Raises:
        FileError: With what was found.
        OSError: Where it cannot be read.
    """
    while folder.exists():
        looked_at = folder.stat()
        fault = _fault(folder, named or folder)
        if fault is None:
            return
        # Otherwise another process has put its page there meanwhile: what was seen is of two.
        if folder.exists() and os.path.samestat(looked_at, folder.stat()):
            raise FileError(fault)


def _fault(folder: Path, named: Path) -> str | None:
    """What a folder holds that is no page of ours, as a sentence."""
    if not folder.is_dir():
        return f"expected a folder to write to, got the file {named}; choose another"
    found = {entry.name for entry in folder.iterdir()}
    hashes = _hashes(folder)
    if not found:
        return None
    if hashes is None:
        return (
            f"expected an empty folder or an earlier page, got {named} with other content and no "
            f"{MANIFEST} of smx-export web; choose another folder"
        )
    if strange := sorted(found - {MANIFEST, *hashes}):
        return (
            f"expected nothing but an earlier page in {named}, got also {', '.join(strange)}; "
            "move that elsewhere, or choose another folder"
        )
    changed = sorted(n for n in found & hashes.keys() if not _is(folder / n, hashes[n]))
    if changed:
        return (
            f"expected the page in {named} as it was written, got another {', '.join(changed)}; "
            "move that elsewhere, or choose another folder"
        )
    return None


def remove_draft(folder: Path) -> None:
    """Remove what writing a page has left: a page that was replaced, or a part of a new one.

    Of a page, which may have been somebody's for years, only what its manifest lists; it goes last,
    so that a removal that was interrupted can go on. What has none yet was never anybody's.
    """
    hashes = _hashes(folder)
    if hashes is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        for name, expected in hashes.items():
            if _is(folder / name, expected):
                (folder / name).unlink()
        if {entry.name for entry in folder.iterdir()} == {MANIFEST}:
            (folder / MANIFEST).unlink()
            folder.rmdir()


def _hashes(folder: Path) -> dict[str, str] | None:
    """SHA-256 of each file, as the manifest has it; ``None`` where there is none of ours."""
    try:
        listed: Any = json.loads(_content(folder / MANIFEST, LARGEST))["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        return None
    return {name: value for name, value in listed.items() if Path(name).name == name != MANIFEST}


def _is(path: Path, expected: str) -> bool:
    """Whether a file has that content."""
    try:
        return sha256(_content(path)).hexdigest() == expected
    except (OSError, ValueError):
        return False


def _content(path: Path, most: int | None = None) -> bytes:
    """Of a regular file, no link's.

    Raises:
        OSError: Where it is none.
        ValueError: Where it is larger than ``most``.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no regular file")
    if most is not None and status.st_size > most:
        raise ValueError(f"{path} is too large")
    return path.read_bytes()
