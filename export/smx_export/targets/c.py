"""C: emx-onnx-cgen writes it, the machine's compiler compiles it, ctypes calls it.

Traps, all of the generator: of a batch with a name it reduces the first row only and cannot ArgMax,
so it writes the code of one row (of a file of one batch, that of a batch), and a loop calls that;
it copies metadata into comments, which ``*/`` in a class name would end; weights over 100 KiB go to
a second file. C checks no shapes.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import batch_of, read_onnx
from smx_export.targets.base import Outputs, Session, Target

COMPILE = ("cc", "-std=c99", "-O2", "-w", "-shared", "-fPIC")  # c99: a · b + c is not fused


class CompiledC(Target):
    """A function that needs no runtime."""

    name = "c"
    install = "pip install 'smx-lightning[c]', and a C compiler: apt-get install gcc"

    def version(self) -> str:
        """The generator's and the compiler's."""
        generator = self.packages("emx-onnx-cgen")
        if shutil.which(COMPILE[0]) is None:
            raise self.missing("a C compiler named cc")
        compiler = subprocess.run([COMPILE[0], "--version"], capture_output=True, text=True)
        return f"emx-onnx-cgen {generator}, {compiler.stdout.splitlines()[0]}"

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        from emx_onnx_cgen.compiler import Compiler, CompilerOptions

        model = read_onnx(path)
        del model.metadata_props[:], model.graph.value_info[:]
        tensors = [*model.graph.input, *model.graph.output]
        batch = batch_of(model.graph.input[0]) or 1
        for tensor in tensors:
            tensor.type.tensor_type.shape.dim[0].dim_value = batch
        source = Compiler(CompilerOptions(large_weight_threshold=0)).compile(model)
        return _Session(source, {tensor.name: _row(tensor) for tensor in tensors}, batch)


def _row(tensor: Any) -> np.dtype[Any]:
    from onnx import helper

    _, *dims = (dim.dim_value for dim in tensor.type.tensor_type.shape.dim)
    return np.dtype((helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type), (*dims,)))


class _Session(Session):
    def __init__(self, source: str, rows: dict[str, np.dtype[Any]], batch: int) -> None:
        self._batch = batch
        (_, self._input), *self._outputs = rows.items()
        at = ", ".join(f"(void *)at[{k}]" for k in range(len(rows)))
        sizes = [batch * row.itemsize for row in rows.values()]
        steps = " ".join(f"at[{k}] += {size};" for k, size in enumerate(sizes))
        loop = f"void rows(long n, char **at) {{ while (n-- > 0) {{ model({at}); {steps} }} }}"
        with TemporaryDirectory() as folder:  # needed no more once the library is loaded
            code, library = Path(folder, "model.c"), Path(folder, "model.so")
            code.write_text(f"{source}\n{loop}\n", encoding="utf-8")
            command = [*COMPILE, "-o", str(library), str(code), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"expected C that compiles, got: {done.stderr}")
            self._call = ctypes.CDLL(str(library)).rows

    def run(self, x: NDArray[np.generic]) -> Outputs:
        if (x.dtype, x.shape[1:]) != (self._input.base, self._input.shape):
            raise ValueError(f"expected rows of {self._input}, got {x.dtype} {x.shape[1:]}")
        if len(x) % self._batch:
            raise ValueError(f"expected batches of {self._batch} rows, got {len(x)} rows")
        answers = {name: np.empty(len(x), row) for name, row in self._outputs}
        arrays = [np.ascontiguousarray(x), *answers.values()]
        at = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        self._call(ctypes.c_long(len(x) // self._batch), at)
        return answers
