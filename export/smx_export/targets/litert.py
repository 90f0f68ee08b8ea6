"""LiteRT, once TensorFlow Lite, on files that onnx2tf converts.

Traps: onnx2tf rewrites its input in place, so it gets a copy; it moves the axes of whatever looks
like an image, unless told to keep an input's; it gets DequantizeLinear wrong, silently; it imports
TensorFlow, which logs, so it runs in a process of its own, 4 to 9 seconds; it pins all it needs
(numpy 1.26, onnx 1.19, protobuf 4.25). LiteRT writes one line to stderr at its first run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import read_onnx
from smx_export.targets.base import Outputs, Session, Target

# Keep the names, and do not call the simplifier, another program, which may not be on the path.
CONVERT = (sys.executable, "-m", "onnx2tf", "-coion", "-nuo", "-n", "-i", "model.onnx", "-o", ".")


class LiteRt(Target):
    """What runs on Android."""

    name = "litert"
    install = "pip install 'smx-lightning[litert]', in a virtual environment of its own"
    float64 = False

    def version(self) -> str:
        """The runtime's and the converter's."""
        return self.packages("ai-edge-litert", "onnx2tf")

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        return _Session(path)


class _Session(Session):
    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._input = read_onnx(path).graph.input[0].name
        with TemporaryDirectory() as folder:
            shutil.copy(path, Path(folder, "model.onnx"))
            command = [*CONVERT, "-kat", self._input]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            model = Path(folder, "model_float32.tflite")
            if done.returncode or not model.exists():
                raise RuntimeError(
                    f"expected a file that onnx2tf converts, got: {done.stderr[-300:]!r}"
                )
            content = model.read_bytes()
        self._interpreter = Interpreter(model_content=content)
        self._run = self._interpreter.get_signature_runner()

    def run(self, x: NDArray[np.generic]) -> Outputs:
        outputs: Outputs = self._run(**{self._input: x})
        return outputs
