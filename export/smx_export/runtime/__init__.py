"""Predicting with the file, without torch."""

from smx_export.runtime.classifier import Answer, OnnxClassifier, open_session

__all__ = ["Answer", "OnnxClassifier", "open_session"]
