"""Checkpoints: plain data that a model writes, reads, and is compared with."""

from smx_lightning.checkpoint.reading import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
