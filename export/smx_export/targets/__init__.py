"""The runtimes on which a file can be tried, one module each; a missing one is never passed over.

None of these modules needs its runtime to be imported; :meth:`Target.version` says whether it is
there.
"""

from __future__ import annotations

import importlib

from smx_export.errors import FileError
from smx_export.targets.base import NotInstalled, Outputs, Session, Target

_HOME = {
    "onnxruntime": "onnxruntime_.OnnxRuntime",
    "onnxruntime-oldest": "onnxruntime_oldest.OldestOnnxRuntime",
    "onnx-reference": "onnx_reference.OnnxReference",
    "openvino": "openvino_.OpenVino",
    "opencv": "opencv.OpenCv",
    "tract": "tract_.Tract",
    "ncnn": "ncnn_.Ncnn",
    "mnn": "mnn.Mnn",
    "litert": "litert.LiteRt",
    "onnxruntime-node": "ort_node.OnnxRuntimeNode",
    "onnxruntime-web-node": "ort_web_node.OnnxRuntimeWebNode",
    "onnxruntime-web-chromium": "ort_web_chromium.OnnxRuntimeWebChromium",
    "c": "c.CompiledC",
}
NAMES = tuple(_HOME)

__all__ = ["NAMES", "NotInstalled", "Outputs", "Session", "Target", "named", "target"]


def target(name: str) -> Target:
    """The target of that name."""
    module, _, kind = _HOME[name].partition(".")
    found: Target = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    return found


def named(names: str) -> list[str]:
    """``all``, or some names with commas between them, as a list.

    Raises:
        FileError: For a name that there is no target of.
    """
    if names == "all":
        return list(NAMES)
    chosen = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise FileError(
            f"expected targets out of {', '.join(NAMES)}, or all, got "
            f"{', '.join(name or repr(name) for name in unknown)}; name some of them"
        )
    return chosen
