"""ncnn, Tencent's runtime for phones, on files that pnnx converts.

Traps: no input has a batch, so a batch of unrolled features is one matrix, as two input shapes tell
pnnx; ``fp16=0`` keeps weights float32; no ArgMax, no uint8, no float64; pnnx sums (ReduceSum) over
the wrong axis; LogSoftmax is log(softmax), NaN below about -104; a wrong number of features is
garbage or a crash. pnnx, a program in a package that asks for torch, runs without unless imported.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import batch_of, read_onnx
from smx_export.targets.base import Outputs, Session, Target

PRECISIONS = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage")
TYPES = {"float32": "f32", "uint8": "u8"}


class Ncnn(Target):
    """What runs in Tencent's apps, in float32 on the CPU."""

    name = "ncnn"
    install = "pip install 'smx-lightning[ncnn]'"
    float64 = False

    def version(self) -> str:
        """The runtime's and the converter's."""
        return self.packages("ncnn", "pnnx")

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        return _Session(path)


class _Session(Session):
    def __init__(self, path: Path) -> None:
        import ncnn
        from onnx import helper

        graph = read_onnx(path).graph
        tensor = graph.input[0].type.tensor_type
        dtype = TYPES[helper.tensor_dtype_to_np_dtype(tensor.elem_type).name]
        row = "".join(f",{dim.dim_value}" for dim in tensor.shape.dim[1:])
        self._outputs = [output.name for output in graph.output]
        self._net: Any = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        for precision in PRECISIONS:
            setattr(self._net.opt, f"use_{precision}", False)
        with TemporaryDirectory() as folder:
            shutil.copy(path, Path(folder, "model.onnx"))
            batch = batch_of(graph.input[0])
            shapes = [f"inputshape=[{batch or 1}{row}]{dtype}"]
            shapes += [] if batch else [f"inputshape2=[2{row}]{dtype}"]
            command = [_pnnx(), "model.onnx", *shapes, "fp16=0"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            param, weights = (Path(folder, f"model.ncnn.{end}") for end in ("param", "bin"))
            if done.returncode or not param.exists():
                raise RuntimeError(
                    f"expected a file that pnnx converts, got: {done.stderr[-300:]!r}"
                )
            if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
                layers = {line.split()[0] for line in param.read_text().splitlines()[2:]}
                raise RuntimeError(f"expected layers that ncnn has, got {sorted(layers)}")

    def run(self, x: NDArray[np.generic]) -> Outputs:
        import ncnn

        rows = np.ascontiguousarray(x)  # has a name because ncnn keeps a pointer alone
        with self._net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(rows))
            answers = [extractor.extract(f"out{k}") for k in range(len(self._outputs))]
            if any(status for status, _ in answers):
                raise RuntimeError(f"expected all of {self._outputs}, got {answers}")
            copies = [np.array(mat) for _, mat in answers]
        return dict(zip(self._outputs, copies, strict=True))


def _pnnx() -> str:
    spec = find_spec("pnnx")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pnnx")
    return str(next(Path(spec.origin).parent.glob("pnnx*")))
