"""What a data module of streams tells of its rows, to models and to the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lightning.pytorch import LightningDataModule

from smx_lightning.data.streams.fitting import Known
from smx_lightning.tables.schema import Schema


class Told(LightningDataModule, ABC):
    """Sizes and names; the rows are read only where nobody else tells them.

    Args:
        schema: In place of what the rows tell.

    Attributes:
        input_range: ``None``: nobody has looked at all entries.
    """

    input_range = None

    def __init__(self, schema: Schema | None) -> None:
        super().__init__()
        self._schema = schema
        self._classes: tuple[str, ...] | None = None

    def heed(self, schema: Schema, class_names: Sequence[str] | None = None) -> None:
        """Take schema and classes of a trained model in place of what these rows tell.

        Args:
            schema: The model's.
            class_names: The model's; those of the labels where it is ``None``.
        """
        self.__dict__.pop("known", None)
        self._schema, self._classes = schema, None if class_names is None else tuple(class_names)

    @cached_property
    @abstractmethod
    def known(self) -> Known:
        """What the rows tell, by a pass over them."""

    @property
    def _columns(self) -> Schema:
        """The schema, for which the rows are asked only where nobody else tells it."""
        return self.known.schema if self._schema is None else self._schema

    @property
    def num_features(self) -> int:
        """Number of features."""
        return len(self._columns.feature_names)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """One name a class."""
        return [*(self._classes or self.known.class_names)]

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        return [*self._columns.feature_names]

    @property
    def schema(self) -> dict[str, Any]:
        """Which columns the features are, as plain values."""
        return self._columns.to_dict()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.num_features,)

    @property
    def wide_columns(self) -> list[int]:
        """Features of the training rows that need float64."""
        return [*self.known.wide]
