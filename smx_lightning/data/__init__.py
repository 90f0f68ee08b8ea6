"""Data modules that know their number of features, classes and class names."""

from smx_lightning.data.base import InMemoryDataModule, Loaded, Splits
from smx_lightning.data.digits import DigitsDataModule
from smx_lightning.data.idx import IdxDataModule
from smx_lightning.data.loading import BatchLoader, Rows
from smx_lightning.data.npz import NpzDataModule
from smx_lightning.data.sharing import EpochOrder, GlobalBatches
from smx_lightning.data.streams import StreamedTableDataModule
from smx_lightning.data.table import TableDataModule

__all__ = [
    "BatchLoader",
    "DigitsDataModule",
    "EpochOrder",
    "GlobalBatches",
    "IdxDataModule",
    "InMemoryDataModule",
    "Loaded",
    "NpzDataModule",
    "Rows",
    "Splits",
    "StreamedTableDataModule",
    "TableDataModule",
]
