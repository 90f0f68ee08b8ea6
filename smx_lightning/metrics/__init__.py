"""What is counted of each stage's rows: collections of metrics, and their tallies."""

from smx_lightning.metrics.accuracy import MacroAccuracy, decide
from smx_lightning.metrics.calibration import CalibrationError
from smx_lightning.metrics.scores import BrierScore, NegativeLogLikelihood
from smx_lightning.metrics.stages import (
    Given,
    confusion_matrix,
    evaluation_metrics,
    set_threshold,
    stage_metrics,
    training_metrics,
)

__all__ = [
    "BrierScore",
    "CalibrationError",
    "Given",
    "MacroAccuracy",
    "NegativeLogLikelihood",
    "confusion_matrix",
    "decide",
    "evaluation_metrics",
    "set_threshold",
    "stage_metrics",
    "training_metrics",
]
