"""Is the file the model?"""

from smx_export.parity.comparison import check_parity
from smx_export.parity.report import ParityReport

__all__ = ["ParityReport", "check_parity"]
