"""W and b as a named table, in the data's own units, with standard errors."""

from smx_lightning.coefficients.model import coefficients_of
from smx_lightning.coefficients.table import Coefficients, Estimates, Row

__all__ = ["Coefficients", "Estimates", "Row", "coefficients_of"]
