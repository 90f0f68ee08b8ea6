"""What is counted of each stage's rows: collections of metrics, and their tallies."""

from smx_lightning.metrics.accuracy import MacroAccuracy, Prediction, decide, predicted
from smx_lightning.metrics.calibration import CalibrationError
from smx_lightning.metrics.epochs import CONFUSION, EpochMetrics, loader_of, tallies_of
from smx_lightning.metrics.scores import BrierScore, NegativeLogLikelihood
from smx_lightning.metrics.stages import (
    Given,
    confusion_matrix,
    evaluation_metrics,
    loss_name,
    set_threshold,
    stage_metrics,
    training_metrics,
    usual_metrics,
)
from smx_lightning.metrics.support import (
    LabelInSupport,
    MeanFenchelYoungLoss,
    SupportSize,
    ZeroShare,
)

__all__ = [
    "CONFUSION",
    "BrierScore",
    "CalibrationError",
    "EpochMetrics",
    "Given",
    "LabelInSupport",
    "MacroAccuracy",
    "MeanFenchelYoungLoss",
    "NegativeLogLikelihood",
    "Prediction",
    "SupportSize",
    "ZeroShare",
    "confusion_matrix",
    "decide",
    "evaluation_metrics",
    "loader_of",
    "loss_name",
    "predicted",
    "set_threshold",
    "stage_metrics",
    "tallies_of",
    "training_metrics",
    "usual_metrics",
]
