"""tract, Sonos' runtime in Rust.

Traps: its LogSoftmax is log(softmax), so -inf below about -104; it refuses a batch dimension that
has no name; it names outputs after nodes, so that the file must say what they are called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import read_onnx
from smx_export.targets.base import Outputs, Session, Target


class Tract(Target):
    """What runs where Rust runs."""

    name = "tract"
    install = "pip install 'smx-lightning[tract]'"

    def version(self) -> str:
        """See :class:`Target`."""
        return str(self.imported("tract").version())

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        import tract

        outputs = [output.name for output in read_onnx(path).graph.output]
        return _Session(tract.onnx().load(str(path)).into_model().into_runnable(), outputs)


class _Session(Session):
    def __init__(self, runnable: Any, outputs: list[str]) -> None:
        self._runnable = runnable
        self._outputs = outputs

    def run(self, x: NDArray[np.generic]) -> Outputs:
        answers = self._runnable.run([np.ascontiguousarray(x)])
        return {
            name: answer.to_numpy() for name, answer in zip(self._outputs, answers, strict=True)
        }
