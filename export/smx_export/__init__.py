"""Ship it: one ONNX file, and the proof that it is the model.

The names load on first use, so that ``smx_export.runtime`` can be imported where torch is not
installed.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smx_export.callback import OnnxExport
    from smx_export.convert import Export, export_onnx, to_onnx
    from smx_export.errors import (
        FileError,
        InputRangeWarning,
        InputRoundingWarning,
        ParityError,
    )
    from smx_export.graph.composition import composed
    from smx_export.parity import check_parity
    from smx_export.parity.report import ParityReport
    from smx_export.profile import Profile
    from smx_export.runtime import OnnxClassifier

__version__: str  # that of smx_lightning: the two are one distribution

# From 1.29 on onnxruntime reports to its maker unless told otherwise before it starts: what is
# shipped, and from where, is nobody's business. Set it to 0 to let it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "Export": "convert",
    "FileError": "errors",
    "InputRangeWarning": "errors",
    "InputRoundingWarning": "errors",
    "OnnxClassifier": "runtime",
    "OnnxExport": "callback",
    "ParityError": "errors",
    "ParityReport": "parity.report",
    "Profile": "profile",
    "check_parity": "parity",
    "composed": "graph.composition",
    "export_onnx": "convert",
    "to_onnx": "convert",
}

__all__ = [
    "Export",
    "FileError",
    "InputRangeWarning",
    "InputRoundingWarning",
    "OnnxClassifier",
    "OnnxExport",
    "ParityError",
    "ParityReport",
    "Profile",
    "__version__",
    "check_parity",
    "composed",
    "export_onnx",
    "to_onnx",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("smx_lightning").__version__
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smx_lightning.errors.extras import training_needed

    with training_needed():
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
