"""W and b as a named table, in the data's own units, with standard errors."""

from smx_lightning.coefficients.model import coefficients_of
from smx_lightning.coefficients.optimum import Errors, Weights
from smx_lightning.coefficients.table import Coefficients, Estimates, Row

__all__ = ["Coefficients", "Errors", "Estimates", "Row", "Weights", "coefficients_of"]
