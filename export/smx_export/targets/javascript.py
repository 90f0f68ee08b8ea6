"""A session in a JavaScript process: ``worker.mjs``, in node and in a browser alike.

Traps: a browser's page can crash while the browser lives on, so only the clock tells. Processes
leave files in TMPDIR, so they get one of their own. onnxruntime from 1.29 on reports the models it
loads to its maker unless ORT_DISABLE_TELEMETRY is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.targets.base import Outputs, Session
from smx_export.targets.bridge import Bridge

WORKER = Path(__file__).with_name("worker.mjs")
TIMEOUT = 60.0  # seconds for an answer; a browser's first start is the slowest
ENDING = 5.0  # seconds a process gets to end by itself

Command = Callable[[str, Path], list[str]]


class JavaScriptError(RuntimeError):
    """The first line of what JavaScript threw, or that it died or does not answer."""


class JavaScriptSession(Session):
    """A file loaded by an onnxruntime for JavaScript.

    Args:
        model: The ONNX file.
        ort: The URL of onnxruntime's module, as the process sees it.
        command: Of the bridge's URL and a temporary folder, the command line of the process.
        files: What the process may fetch from the bridge, by path.

    Attributes:
        timeout: Seconds to wait for an answer.
    """

    def __init__(
        self, model: Path, ort: str, command: Command, files: Mapping[str, Path] | None = None
    ) -> None:
        self.timeout = TIMEOUT
        content = model.read_bytes()
        stack = ExitStack()
        # Ends everything once: on close(), when the session is forgotten, or when Python exits.
        self._close = weakref.finalize(self, stack.close)
        try:
            folder = Path(mkdtemp(prefix="smx-"))
            stack.callback(_remove, folder)
            self._bridge = stack.enter_context(Bridge(files or {}))
            self._log = folder / "log"
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command(self._bridge.url, folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "TMPDIR": str(folder), "ORT_DISABLE_TELEMETRY": "1"},
                )
            stack.callback(_end, self._process)
            self._ask({"ort": ort}, content)
        except BaseException:
            self.close()
            raise

    def run(self, x: NDArray[np.generic]) -> Outputs:
        """See :class:`Session`."""
        answer, data = self._ask(_described(x), x.tobytes())
        outputs: Outputs = {}
        start = 0
        for output in answer["outputs"]:
            dtype, shape = np.dtype(output["dtype"]), output["shape"]
            flat = np.frombuffer(data, dtype, prod(shape), start)
            outputs[output["name"]] = flat.reshape(shape).copy()
            start += flat.nbytes
        return outputs

    def seconds(self, x: NDArray[np.generic], runs: int) -> float:
        """See :class:`Session`; by JavaScript's own clock."""
        answer, _ = self._ask({**_described(x), "runs": runs}, x.tobytes(), patience=runs)
        return float(answer["milliseconds"]) / 1e3

    def close(self) -> None:
        """See :class:`Session`."""
        self._close()

    def _ask(
        self, question: dict[str, Any], data: bytes, *, patience: float = 0.0
    ) -> tuple[dict[str, Any], bytes]:
        if not self._close.alive:
            raise JavaScriptError("expected a running worker, got a closed one; load the file anew")
        self._bridge.ask(question, data)
        timeout = self.timeout + patience
        deadline = monotonic() + timeout
        while (answered := self._bridge.answer(0.2)) is None:
            code = self._process.poll()
            if code is not None:
                raise self._lost(f"its process ended with exit code {code}")
            if monotonic() > deadline:
                raise self._lost(f"none came in {timeout:g} s")
        if "error" in answered[0]:
            raise JavaScriptError(answered[0]["error"])
        return answered

    def _lost(self, how: str) -> JavaScriptError:
        """Why there is no answer; the session is over, for a late one would answer the next."""
        said = self._log.read_text("utf-8", "replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "nothing")
        self.close()
        return JavaScriptError(f"expected JavaScript's answer, {how}; its last words: {last}")


def _described(x: NDArray[np.generic]) -> dict[str, Any]:
    return {"dtype": x.dtype.name, "shape": x.shape}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove(folder: Path) -> None:
    deadline = monotonic() + ENDING
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and monotonic() < deadline:  # a browser's children write a little longer
        sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)
