"""OpenCV's cv2.dnn.

Traps: its LogSoftmax is log(softmax), so -inf below about -104; 4.x has outputs in an order of its
own, the label as float32 (n, 1), and out of stale memory where ArgMax drops its dimension; it logs
to stderr what it also raises; an empty batch fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.targets.base import Outputs, Session, Target


class OpenCv(Target):
    """The neural networks of the computer vision library."""

    name = "opencv"
    install = "pip install 'smx-lightning[opencv]'"

    def version(self) -> str:
        """See :class:`Target`."""
        return str(self.imported("cv2").__version__)

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        import cv2

        if hasattr(cv2, "setLogLevel"):  # 4.x
            cv2.setLogLevel(0)
        else:
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        return _Session(cv2.dnn.readNetFromONNX(str(path)))


class _Session(Session):
    def __init__(self, net: Any) -> None:
        self._net = net
        self._outputs: tuple[str, ...] = net.getUnconnectedOutLayersNames()

    def run(self, x: NDArray[np.generic]) -> Outputs:
        self._net.setInput(x)
        return dict(zip(self._outputs, self._net.forward(self._outputs), strict=True))
