"""Predicting with the file, without torch."""

from smx_export.runtime.answers import Answer, Top
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.session import open_session

__all__ = ["Answer", "OnnxClassifier", "Top", "open_session"]
