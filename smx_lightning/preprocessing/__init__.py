"""Standardisation: its moments, the affine map, and the digits that it must not lose."""

from smx_lightning.preprocessing.moments import Moments
from smx_lightning.preprocessing.standardization import Folded, Method, Preprocessing

__all__ = ["Folded", "Method", "Moments", "Preprocessing"]
