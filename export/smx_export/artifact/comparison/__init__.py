"""Are a file's outputs the model's? Answers in float64 against what float32 rounding allows."""

from smx_export.artifact.comparison.compare import (
    SUM,
    Changed,
    Compared,
    Outputs,
    compare,
    log_probs_of,
    log_softmax,
    max_or_nan,
    shape_of,
)
from smx_export.artifact.comparison.expected import Expected
from smx_export.artifact.comparison.top import worst

__all__ = [
    "SUM",
    "Changed",
    "Compared",
    "Expected",
    "Outputs",
    "compare",
    "log_probs_of",
    "log_softmax",
    "max_or_nan",
    "shape_of",
    "worst",
]
