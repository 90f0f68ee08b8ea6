"""Predicting with the file, without torch."""

from smx_export.runtime.classifier import Answer, OnnxClassifier
from smx_export.runtime.session import open_session

__all__ = ["Answer", "OnnxClassifier", "open_session"]
