"""onnxruntime in Python, on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from smx_export.artifact.rows import parts_of
from smx_export.runtime.session import open_session
from smx_export.targets.base import Outputs, Session, Target


class OnnxRuntime(Target):
    """The runtime that the parity gate itself uses."""

    name = "onnxruntime"
    install = "pip install onnxruntime"
    mixed = True

    def version(self) -> str:
        """See :class:`Target`."""
        return str(onnxruntime.__version__)

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        return OnnxRuntimeSession(open_session(path.read_bytes()))


class OnnxRuntimeSession(Session):
    """An onnxruntime session, however it was opened."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: NDArray[np.generic]) -> Outputs:
        """See :class:`Session`."""
        return dict(zip(self._outputs, self._session.run(None, parts_of(x)), strict=True))
