"""Parquet files larger than memory, as batches that are the same on any number of processes."""

from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.data.streams.module import StreamedTableDataModule

__all__ = ["StreamLoader", "StreamedTableDataModule"]
