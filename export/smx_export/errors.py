"""What can go wrong when a model is exported, and when its file is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smx_export.parity.report import ParityReport


class FileError(ValueError):
    """A file that cannot be used: what was expected, what was given, and the remedy."""


class InputRangeWarning(UserWarning):
    """Inputs that are clearly not in the units of the training data."""


class InputRoundingWarning(UserWarning):
    """Inputs that were rounded to float32, within the tolerance of the file."""


class TableWarning(UserWarning):
    """What a table holds that the file does not know, or what the file does not say of tables."""


class NotInstalled(ImportError):  # noqa: N818 (an answer, not a fault)
    """A runtime is not on this machine; the message says how to get it."""


class ParityError(RuntimeError):
    """The file is not the model. ``report`` holds every check.

    Attributes:
        report: The failed :class:`smx_export.ParityReport`.
    """

    def __init__(self, report: ParityReport) -> None:
        failed = "; ".join(f"{check.name}: {check.detail}" for check in report.failed)
        super().__init__(f"the ONNX file is not the model: {failed}")
        self.report = report
