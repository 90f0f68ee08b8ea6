"""The page as a folder for any web server: page, model, and the runtime that runs it. No torch.

The folder needs nothing from elsewhere, and works under any path of a server. Traps: browsers offer
SHA-256 on https and localhost only, and load neither modules nor WebAssembly from ``file://``.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smx_export.artifact.content import read_bytes
from smx_export.contract import LOG_PROBS
from smx_export.errors import FileError
from smx_export.targets.npm import node_module
from smx_export.web.manifest import MANIFEST, check_replaceable, manifest_of, remove_draft
from smx_export.web.server import serve
from smx_lightning.processes.drafts import Draft, held, left_behind, sweep

__all__ = ["Site", "serve", "write_site"]

PAGE = Path(__file__).parent / "page"
RUNTIME = (  # of onnxruntime-web/dist: the build without WebGPU and WebGL
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm",
)
MODEL = "model.onnx"
SIDECAR = "model.json"


@dataclass(frozen=True)
class Site:
    """A page that was written.

    Attributes:
        folder: Where it is.
        sizes: Bytes of each of its files, by name.
    """

    folder: Path
    sizes: dict[str, int]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(self.sizes.values())


def write_site(model: Path, sidecar: dict[str, Any], folder: Path) -> Site:
    """Write a page that runs the model, with all it needs, into a folder.

    The folder is whole or absent. An earlier page in it is replaced at one moment, as far as its
    manifest lists it and it is unchanged; anything else is refused and left alone.

    Args:
        model: The ONNX file.
        sidecar: What the page has to know of it, out of
            :func:`smx_export.artifact.sidecar.sidecar`.
        folder: Where the page goes; folders above it are made.

    Raises:
        FileError: Where the sidecar is another file's, or the folder holds something else or cannot
            be written.
        NotInstalled: Where npm's onnxruntime-web is missing.
    """
    contents = _contents(Path(model), sidecar)
    contents[MANIFEST] = manifest_of(contents)  # the last one: with it the page is whole
    folder = Path(os.path.realpath(folder))
    try:
        _check_elsewhere(folder)
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Draft(folder.parent, 0o777, directory=True)
        try:
            _remove_left_behind(draft)
            for name, content in contents.items():
                _write(draft.path / name, content)
            _move_into_place(draft.path, folder)
        finally:
            if draft.path.is_dir():  # what was written of it
                remove_draft(draft.path)
            draft.release()
    except OSError as error:
        raise FileError(
            f"expected to write {folder}, got: {error.strerror or error}; choose a folder that is "
            "writable and has room"
        ) from error
    return Site(folder, {name: len(content) for name, content in contents.items()})


def _check_elsewhere(folder: Path) -> None:
    """Refuse the current folder: a new one takes its name, and whoever is in it stays in the old.

    Raises:
        FileError: Then.
    """
    if folder.exists() and folder.samefile(os.curdir):
        raise FileError(
            f"expected another folder than the current one, {folder}, which would be replaced "
            "beneath you; name it from the folder above, or a new one in it"
        )


def _contents(model: Path, sidecar: dict[str, Any]) -> dict[str, bytes]:
    """The content of every file of the site by name."""
    content = read_bytes(model)
    if hashlib.sha256(content).hexdigest() != sidecar["sha256"]:
        raise FileError(
            f"expected the sidecar of {model}, got one with another SHA-256; make it again from "
            "this file"
        )
    given = sidecar["input"]
    if isinstance(given, list) or given["dtype"] not in ("float32", "float64", "uint8"):
        taken = ", ".join(f"{one['name']} of {one['dtype']}" for one in _listed(given))
        raise FileError(
            f"expected a file of one input of numbers, which the page draws or has typed, got "
            f"{taken}; ask it with onnxruntime-web in a page of your own"
        )
    if LOG_PROBS not in sidecar["outputs"]:
        raise FileError(
            f"expected a file that answers {LOG_PROBS}, which the page's self-test needs, got "
            f"outputs {', '.join(sidecar['outputs'])}; export it with more --outputs"
        )
    dist = node_module("onnxruntime-web") / "dist"
    for name in RUNTIME:
        if not (dist / name).is_file():
            raise FileError(
                f"expected {name} in {dist}, found none; npm install onnxruntime-web@1.30.0"
            )
    files = [file for file in sorted(PAGE.iterdir()) if file.is_file()]
    return {
        **{file.name: file.read_bytes() for file in files},
        **{name: (dist / name).read_bytes() for name in RUNTIME},
        MODEL: content,
        SIDECAR: json.dumps(sidecar, ensure_ascii=False, allow_nan=False).encode(),
    }


def _listed(given: Any) -> list[dict[str, Any]]:
    return given if isinstance(given, list) else [given]


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_left_behind(draft: Draft) -> None:
    """Remove what killed processes have left beside the folder."""
    sweep(draft)
    for path in left_behind(draft):
        if path.is_dir():
            remove_draft(path)


def _move_into_place(draft: Path, folder: Path) -> None:
    """The draft becomes the folder, and a page that was there, if any, is removed."""
    with suppress(FileNotFoundError):
        draft.chmod(stat.S_IMODE(folder.stat().st_mode))
    try:
        draft.rename(folder)  # where there is nothing, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    with held(folder):  # once it has the draft's name, nobody else takes it for left behind
        _exchange(draft, folder)
        try:
            check_replaceable(draft, folder)  # whatever was put there meanwhile
        except BaseException:
            _exchange(draft, folder)
            raise
        remove_draft(draft)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders have each other's name, at one moment where the system knows how.

    Elsewhere there is a moment without a page; who is killed then leaves the earlier one beside it,
    under a name that ends in ``.old``.
    """
    code = _exchanged(os.fsencode(one), os.fsencode(other))
    if code == 0:
        return
    if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise OSError(code, os.strerror(code))
    between = one.with_suffix(".old")
    other.rename(between)
    try:
        one.rename(other)
    except OSError:
        between.rename(other)
        raise
    between.rename(one)


def _exchanged(one: bytes, other: bytes) -> int:
    """Linux's or macOS's own call: 0, or the system's number of what is wrong with it."""
    if os.name == "nt":
        return errno.ENOSYS
    system = ctypes.CDLL(None, use_errno=True)
    swap, here = 2, -100  # RENAME_EXCHANGE, and RENAME_SWAP; AT_FDCWD
    if hasattr(system, "renameat2"):
        failed = system.renameat2(here, one, here, other, swap)
    elif hasattr(system, "renamex_np"):
        failed = system.renamex_np(one, other, swap)
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0
