"""MNN, Alibaba's runtime for phones, through its own converter.

Traps: ``mnnconvert`` and ``MNN.tools`` install a package and send statistics when imported, so the
converter is called where it lies, in ``_tools``; C++ writes to standard output; answers lie in
memory that the next run writes over; no float64; a NaN row is answered with a uniform distribution,
a wrong number of features with nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import read_onnx
from smx_export.targets.base import Outputs, Session, Target


class Mnn(Target):
    """What runs in Alibaba's apps."""

    name = "mnn"
    install = "pip install 'smx-lightning[mnn]'"
    float64 = False

    def version(self) -> str:
        """See :class:`Target`."""
        return self.packages("MNN")

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        return _Session(path)


class _Session(Session):
    def __init__(self, path: Path) -> None:
        graph = read_onnx(path).graph
        names = [[tensor.name for tensor in tensors] for tensors in (graph.input, graph.output)]
        self._folder = TemporaryDirectory()
        model, log = (Path(self._folder.name, name) for name in ("model.mnn", "log.txt"))
        with _output_to(log):
            import _tools
            import MNN

            files = ["--modelFile", str(path), "--MNNModel", str(model)]
            _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files])
            if model.exists():
                self._net = MNN.nn.load_module_from_file(str(model), *names)
        if not model.exists():
            raise RuntimeError(
                f"expected a file that MNN converts, got: {log.read_text()[-300:]!r}"
            )
        self._outputs = names[1]

    def run(self, x: NDArray[np.generic]) -> Outputs:
        from MNN import expr

        dtype = getattr(expr, "float" if x.dtype == np.float32 else x.dtype.name)
        given = expr.const(np.ascontiguousarray(x), [*x.shape], expr.NCHW, dtype)
        answers = self._net.forward([given])
        if not answers:
            raise RuntimeError("expected answers, got none: MNN writes why to standard output")
        copies = [np.array(answer.read()) for answer in answers]
        return dict(zip(self._outputs, copies, strict=True))

    def close(self) -> None:
        self._folder.cleanup()


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Standard output to a file, C++'s too, which no replacement of sys.stdout catches."""
    sys.stdout.flush()
    kept = os.dup(1)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
