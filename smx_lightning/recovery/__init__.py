"""Training that goes on after a crash or a signal: its callback, and what that knows of a run."""

from smx_lightning.checkpoint.writing import WholeFileIO
from smx_lightning.recovery.callback import Recovery

__all__ = ["Recovery", "WholeFileIO"]
