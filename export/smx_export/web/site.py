"""The page as a folder for any web server: page, model, and the runtime that runs it. No torch.

The folder needs nothing from elsewhere, and works under any path of a server. Traps: browsers offer
SHA-256 on https and localhost only, and load neither modules nor WebAssembly from ``file://``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from smx_export.contract import LOG_PROBS
from smx_export.errors import FileError
from smx_export.targets.npm import node_module

PAGE = Path(__file__).parent / "page"
RUNTIME = (  # of onnxruntime-web/dist: the build without WebGPU and WebGL
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm",
)
MODEL = "model.onnx"
SIDECAR = "model.json"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
MARKERS = (SIDECAR, "index.html")  # a folder that holds them is a site


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

    The folder is whole or absent; an earlier site in it is replaced, anything else is left alone.

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
    folder = Path(folder).resolve()
    _check_replaceable(folder, set(contents))
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copyfile(content, draft / name)
            else:
                (draft / name).write_bytes(content)
        _move_into_place(draft, folder)
    except OSError as error:
        raise FileError(
            f"expected to write {folder}, got: {error.strerror or error}; choose a folder that is "
            "writable and has room"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Site(folder, {name: (folder / name).stat().st_size for name in contents})


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder on this machine alone while the context lasts; gives the URL.

    Args:
        folder: What to serve.
        port: A free one by default.

    Raises:
        FileError: Where the folder is no site, or the port is taken.
    """
    if not all((Path(folder) / name).is_file() for name in MARKERS):
        raise FileError(f"expected a page at {folder}, found none; write one with smx-export web")
    try:
        server = _Server(("127.0.0.1", port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise FileError(
            f"expected port {port} to be free, got: {error}; choose another, or 0 for any"
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _contents(model: Path, sidecar: dict[str, Any]) -> dict[str, Path | bytes]:
    """Every file of the site by name: what to copy, or its bytes."""
    if not model.is_file():
        raise FileError(f"expected an ONNX file at {model}, found none; check the path")
    content = model.read_bytes()
    if hashlib.sha256(content).hexdigest() != sidecar["sha256"]:
        raise FileError(
            f"expected the sidecar of {model}, got one with another SHA-256; make it again from "
            "this file"
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
    return {
        **{file.name: file for file in sorted(PAGE.iterdir()) if file.is_file()},
        **{name: dist / name for name in RUNTIME},
        MODEL: content,
        SIDECAR: json.dumps(sidecar, ensure_ascii=False, allow_nan=False).encode(),
    }


def _check_replaceable(folder: Path, names: set[str]) -> None:
    """Refuse a folder that holds what a new site would not bring back."""
    if folder.exists() and not folder.is_dir():
        raise FileError(f"expected a folder to write to, got the file {folder}; choose another")
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if found and not found.issuperset(MARKERS):
        raise FileError(
            f"expected an empty folder or an earlier page, got {folder} with other content; "
            "choose another folder"
        )
    if strange := sorted(found - names):
        raise FileError(
            f"expected nothing but an earlier page in {folder}, got also {', '.join(strange)}; "
            "move that elsewhere, or choose another folder"
        )


def _move_into_place(draft: Path, folder: Path) -> None:
    """The draft becomes the folder; what was there is put back where that fails."""
    if not folder.exists():
        draft.rename(folder)
        return
    earlier = draft.with_suffix(".old")
    folder.rename(earlier)
    try:
        draft.rename(folder)
    except OSError:
        earlier.rename(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


class _Server(ThreadingHTTPServer):
    """Quiet: a browser that leaves early is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing; the browser reports what it misses."""


class _Handler(SimpleHTTPRequestHandler):
    """Files with the types that browsers insist on, never cached, never logged."""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """The content type of a file; the system's own list may lack or distort some."""
        return TYPES.get(Path(path).suffix) or super().guess_type(path)

    def end_headers(self) -> None:
        """Add that nothing is to be cached."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Print nothing."""
