"""onnxruntime-web in headless Chromium: what a visitor of a page gets.

Everything comes from ``node_modules`` through the bridge; nothing is fetched from elsewhere.

Traps: Chromium refuses to start as root with its sandbox. Where it needs other flags still, let
``SMX_CHROMIUM`` name a script that adds them and ends in ``exec``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from smx_export.targets.base import NotInstalled, Session, Target
from smx_export.targets.javascript import WORKER, JavaScriptSession
from smx_export.targets.npm import node_module, node_module_version

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MODULE = "ort.wasm.bundle.min.mjs"  # WebAssembly only; it looks for the other beside itself
DIST = (MODULE, "ort-wasm-simd-threaded.wasm")


class OnnxRuntimeWebChromium(Target):
    """onnxruntime in WebAssembly, run by a browser."""

    name = "onnxruntime-web-chromium"
    install = "npm install onnxruntime-web && apt-get install chromium"

    def version(self) -> str:
        """See :class:`Target`; with the browser's."""
        package = node_module_version("onnxruntime-web")
        asked = [chromium(), "--version"]
        browser = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
        return f"{package} in {' '.join(browser.split()[:2])}"  # the rest names the distribution

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        dist = node_module("onnxruntime-web") / "dist"
        page = WORKER.with_suffix(".html")
        files = {f"/{file.name}": file for file in (WORKER, page, *(dist / name for name in DIST))}
        return JavaScriptSession(path, f"./{MODULE}", _command, files)


def chromium() -> str:
    """Where Chromium is: what ``SMX_CHROMIUM`` names, else one of ``BROWSERS`` on PATH.

    Raises:
        NotInstalled: Where it is missing.
    """
    named = os.environ.get("SMX_CHROMIUM")
    names = [named] if named else BROWSERS
    for name in names:
        if found := shutil.which(name):
            return found
    raise NotInstalled(
        f"expected {' or '.join(names)} on PATH, found none: apt-get install chromium, or name "
        "a browser in SMX_CHROMIUM"
    )


def _command(url: str, folder: Path) -> list[str]:
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    profile = f"--user-data-dir={folder / 'profile'}"
    return [chromium(), *FLAGS, *root, profile, f"{url}worker.html"]
