"""OpenVINO on the CPU.

Traps: unless told not to, it computes in bfloat16 wherever the processor can, and next to int8
weights rounds the activations to int8 as well; it gives tensors that it merges one another's names,
so that outputs are named before compilation; it silently casts any input to the file's dtype, and
computes float64 files in float32, silently too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.targets.base import Outputs, Session, Target

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


class OpenVino(Target):
    """Intel's runtime, in float32."""

    name = "openvino"
    install = "pip install 'smx-lightning[openvino]'"
    float64 = False

    def version(self) -> str:
        """See :class:`Target`."""
        return str(self.imported("openvino").__version__)

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        outputs = [output.any_name for output in model.outputs]
        return _Session(core.compile_model(model, "CPU", CONFIG), outputs)


class _Session(Session):
    def __init__(self, compiled: Any, outputs: list[str]) -> None:
        self._compiled = compiled
        self._outputs = outputs

    def run(self, x: NDArray[np.generic]) -> Outputs:
        return dict(zip(self._outputs, self._compiled(x).values(), strict=True))
