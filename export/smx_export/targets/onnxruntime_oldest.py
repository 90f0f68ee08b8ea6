"""Would the oldest onnxruntime in the field take the file? Its limits, and no optimiser's help.

Trap: operators outside the standard (com.microsoft, which the optimiser also writes into files that
it saves) have one version for ever, so that no file says which onnxruntime knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime

from smx_export.artifact.files import read_onnx
from smx_export.errors import FileError
from smx_export.targets.base import Session, Target
from smx_export.targets.onnxruntime_ import OnnxRuntimeSession

# What 1.17.3 answers to a file beyond them ("max supported IR version: 9", "official support for
# domain ai.onnx is till opset 20"); 1.20, the oldest that we support, takes IR 10 and opset 21.
OLDEST = "1.17"
IR_VERSION = 9
OPSETS = {"": 20, "ai.onnx": 20, "ai.onnx.ml": 4}


class OldestOnnxRuntime(Target):
    """The installed onnxruntime, within the limits of 1.17 and without graph optimisation."""

    name = "onnxruntime-oldest"
    install = "pip install onnxruntime"
    mixed = True

    def version(self) -> str:
        """What runs the file, and the limits."""
        limits = f"opset {OPSETS['']} and IR {IR_VERSION} of {OLDEST}"
        return f"{onnxruntime.__version__} unoptimised, within {limits}"

    def load(self, path: Path) -> Session:
        """See :class:`Target`; a :class:`FileError` where the file exceeds the limits."""
        check_limits(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CPUExecutionProvider"]
        return OnnxRuntimeSession(onnxruntime.InferenceSession(path, options, providers=providers))


def check_limits(path: Path) -> None:
    """Raise :class:`FileError` where onnxruntime ``OLDEST`` would refuse a file."""
    model = read_onnx(path)
    excess = [f"IR {model.ir_version}"] if model.ir_version > IR_VERSION else []
    for opset in model.opset_import:
        if opset.version > OPSETS.get(opset.domain, opset.version):
            excess.append(f"opset {opset.version} of {opset.domain or 'ai.onnx'}")
    known = OPSETS.keys() | {function.domain for function in model.functions}
    foreign = {node.domain for graph in [model.graph, *model.functions] for node in _nodes(graph)}
    excess += [f"operators of {domain}" for domain in sorted(foreign - known)]
    if excess:
        raise FileError(
            f"expected what onnxruntime {OLDEST} reads, at most IR {IR_VERSION} and opset "
            f"{OPSETS['']} and operators of the standard, got {', '.join(excess)} in {path}; "
            "export it with an older opset_version"
        )


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from _nodes(inner)
