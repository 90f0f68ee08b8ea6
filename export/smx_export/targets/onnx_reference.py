"""onnx.reference: the standard, in numpy.

Traps: its LogSoftmax is log(softmax), so -inf where others still answer -104 and below: no safe
oracle; numpy warns where that happens; it accepts any dtype and answers in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from smx_export.artifact.rows import parts_of
from smx_export.targets.base import Outputs, Session, Target


class OnnxReference(Target):
    """What the operators mean, by those who define them."""

    name = "onnx-reference"
    install = "pip install onnx"
    mixed = True

    def version(self) -> str:
        """See :class:`Target`."""
        return str(onnx.__version__)

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        return _Session(ReferenceEvaluator(str(path)))


class _Session(Session):
    def __init__(self, evaluator: Any) -> None:
        self._evaluator = evaluator
        self._outputs: list[str] = evaluator.output_names

    def run(self, x: NDArray[np.generic]) -> Outputs:
        with np.errstate(all="ignore"):  # an infinity is seen in the outputs
            answers = self._evaluator.run(None, parts_of(x))
        return dict(zip(self._outputs, answers, strict=True))
