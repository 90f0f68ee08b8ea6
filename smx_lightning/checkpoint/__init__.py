"""Checkpoints: plain data that a model writes, reads, and is compared with."""

from smx_lightning.checkpoint.reading import read_checkpoint

__all__ = ["read_checkpoint"]
