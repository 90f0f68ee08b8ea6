"""Runs that nothing interrupts for good."""

from smx_lightning.recovery.callback import Recovery

__all__ = ["Recovery"]
