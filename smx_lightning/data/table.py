"""Any table as a data set: CSV, Parquet, Feather, folders of them, data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.labelled import (
    Source,
    class_names,
    columns_of_labels,
    kept,
    labelled,
    name_of,
    named_target,
    names_in_use,
)
from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable
from smx_lightning.tables.fitting import Missing, SchemaFit, kinds_by_name
from smx_lightning.tables.reading import ROWS, whole
from smx_lightning.tables.schema import Kind, Schema
from smx_lightning.tables.unknown import Unknown

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = float(np.finfo(np.float32).max)


class TableDataModule(InMemoryDataModule):
    """A table with a column of labels: a file, a folder of files, or a data frame.

    Files are ``.csv``, ``.tsv`` (both also ``.gz``), ``.parquet``, ``.feather`` or ``.arrow``; a
    folder's are read in the order of their names. In memory it may be a dict of columns, a pandas,
    polars or pyarrow table, a duckdb relation, a Hugging Face Dataset, or anything else that speaks
    the Arrow PyCapsule interface.

    What becomes of a column, :mod:`smx_lightning.tables.schema` says. Means and categories are
    those of the training rows, which are split off first; a trained model's schema goes before
    that. Rows without a label are predicted, and left out of everything else.

    Args:
        source: The table.
        target: The column of the labels; or several, which are a distribution over as many classes.
            A trained model's schema knows it.
        features: Names of the columns that become features; by default all others.
        weight: The column of the rows' weights.
        drop: Names of columns that are left out.
        kinds: Of columns by name, where their type does not say it: ``number``, ``boolean``,
            ``date`` or ``category``, as in ``{"zip": "category"}``.
        min_count: Categories of fewer training rows, weights counted, share one feature.
        missing: ``indicator``: the mean stands in place of a missing value, and a feature says so;
            ``refuse`` complains of it.
        schema: In place of what the training rows tell: a Schema, or the dict that stands for it.
        val: A table to validate on; split off where there is none.
        test: A table to test on; split off where there is none.
        separator: Between the columns of CSV files; a tab for ``.tsv``, else a comma.
        decimal: The decimal point of CSV files.
        batch_size: Rows a batch.
        val_fraction: Share of the training rows to validate on.
        test_fraction: Share of all rows to test on; 0 for a final fit, which nothing tests.
        seed: Of the splits, which are stratified, and of the order of the training rows.

    Attributes:
        source: As given; one that can be read only once is kept as a table.
    """

    def __init__(
        self,
        source: Any,
        target: str | list[str] | None = None,
        features: list[str] | None = None,
        weight: str | None = None,
        drop: list[str] | None = None,
        kinds: dict[str, Kind] | None = None,
        min_count: float = 1,
        missing: Missing = "indicator",
        schema: Any = None,
        val: Any = None,
        test: Any = None,
        separator: str | None = None,
        decimal: str = ".",
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, test_fraction, seed)
        self.source, self.val, self.test = map(kept, (source, val, test))
        self.target = named_target(target)
        self.weight, self.kinds = weight, kinds_by_name(kinds)
        self.options: dict[str, Any] = {
            "features": features,
            "drop": drop or (),
            "min_count": min_count,
            "missing": missing,
        }
        self.csv: dict[str, Any] = {"separator": separator, "decimal": decimal}
        if self.target is not None:  # what the arguments alone tell is told at once
            self._fit()
        self._schema = Schema.given(schema)
        self._classes: tuple[str, ...] | None = None
        self._fitted: Schema | None = None

    def heed(self, schema: Schema, class_names: Sequence[str] | None = None) -> None:
        """Take schema and classes of a trained model in place of what this table tells.

        Args:
            schema: The model's.
            class_names: The model's; those of the labels where it is ``None``.
        """
        classes = self._classes if class_names is None else tuple(class_names)
        known = (self._schema, self._classes)
        if "splits" in self.__dict__:
            known = (self._fitted, self.splits.class_names)
        if known != (schema, classes or known[1]):
            for read in ("splits", "wide_columns"):
                self.__dict__.pop(read, None)
        self._schema, self._classes = schema, classes
        self.classes_known = classes is not None

    @property
    def schema(self) -> dict[str, Any]:
        """Which columns the features are, as :meth:`Schema.to_dict` tells it."""
        return self._known_schema().to_dict()

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        return [*self._known_schema().feature_names]

    def load(self) -> Loaded:
        """Read the tables, split off rows, and find out what the columns are by those that stay."""
        train = self._read(self.source)
        spoken = columns_of_labels(train, self._schema, self.target, self.weight)
        names = names_in_use(class_names(train, spoken), self._classes)
        rows = labelled(train, spoken, names)
        others = {
            name: self._read(given)
            for name, given in (("val", self.val), ("test", self.test))
            if given is not None
        }
        index = torch.arange(len(rows.places))
        y = torch.from_numpy(rows.y if rows.y.ndim == 1 else rows.y.argmax(1))
        chosen = {"train": index}
        for name, fraction in (("test", self.test_fraction), ("val", self.val_fraction)):
            if name not in others and len(index):
                kept = Rows(chosen["train"], y[chosen["train"]])
                kept, held_out = self._split_off(kept, None, fraction, name)
                chosen["train"], chosen[name] = kept.x, held_out.x
        self._fitted = self._schema or self._fit_to(train, rows.places[chosen["train"].numpy()])
        unknown = Unknown()
        x = self._inputs(train, unknown)
        loaded = {name: rows.rows(x, part) for name, part in chosen.items() if len(part)}
        for name, source in others.items():
            loaded[name] = labelled(source, spoken, names).rows(self._inputs(source, unknown))
        _warn(unknown.notes)
        loaded.setdefault("train", rows.rows(x))
        return Loaded(class_names=names, **loaded)

    def called(self, split: str) -> str:
        """The table."""
        given = {"val": self.val, "test": self.test}.get(split)
        return f"the features of {name_of(self.source if given is None else given)}"

    def all_inputs(self) -> Tensor:
        """The rows of the table in their order, then those of ``val`` and ``test``."""
        self._known_schema()
        given = [source for source in (self.source, self.val, self.test) if source is not None]
        unknown = Unknown()
        parts = [self._inputs(self._read(source), unknown) for source in given]
        _warn(unknown.notes)
        return torch.cat(parts)

    def identifiers(self) -> pa.Table:
        """The table's own columns in the order of :meth:`all_inputs`, to tell the rows by.

        Columns of CSV files that are no features stay the text that they are. Of several sources
        those columns that all of them have.
        """
        import pyarrow as pa

        schema = self._known_schema()
        used = {column.name for column in schema.columns}
        tables = []
        for source in (self.source, self.val, self.test):
            if source is not None:
                others = {*self._read(source).table.column_names} - used
                as_text: dict[str, Kind] = dict.fromkeys(others, "category")
                tables.append(whole(source, kinds=as_text, schema=schema, **self.csv)[0])
        names = [n for n in tables[0].column_names if all(n in t.column_names for t in tables)]
        chosen = [table.select([n for n in names if names.count(n) == 1]) for table in tables]
        return pa.concat_tables(chosen, promote_options="permissive")

    def _heed_model(self) -> None:
        # Not the base's: that reads once more for float64, which the inputs are already.
        module = None if self.trainer is None else self.trainer.lightning_module
        for model in () if module is None else module.modules():
            schema = getattr(model, "schema", None)
            if isinstance(schema, Schema):
                names: Any = model.class_names
                self.heed(schema, names)
                return

    def _known_schema(self) -> Schema:
        """The schema in use: that which is given, a model's, or what the training rows tell."""
        if self._schema is not None:
            return self._schema
        found: Schema | None = self._fitted if self.splits else None
        assert found is not None
        return found

    def _read(self, source: Any) -> Source:
        return Source(*whole(source, kinds=self.kinds, schema=self._schema, **self.csv))

    def _fit(self) -> SchemaFit:
        assert self.target is not None
        return SchemaFit(self.target, weight=self.weight, kinds=self.kinds, **self.options)

    def _fit_to(self, train: Source, index: NDArray[np.int64]) -> Schema:
        """The schema of some rows."""
        fit = self._fit()
        for start in range(0, len(index), ROWS):
            part = index[start : start + ROWS]
            fit.add(train.table.take(part), place=train.place.chosen(part))
        schema = fit.schema()
        _warn(fit.notes)
        return schema

    def _inputs(self, source: Source, unknown: Unknown) -> Tensor:
        """The features of all rows, in float64: the model rounds what it has standardised."""
        schema = self._fitted if self._schema is None else self._schema
        assert schema is not None
        x = source.features(schema, unknown)
        if x.size and max(x.max(), -x.min()) > LARGEST:
            row, column = np.argwhere(np.abs(x) > LARGEST)[0]
            raise InputError(
                f"expected numbers that float32 can hold, up to {LARGEST:.3g}, got "
                f"{x[row, column]:.3g} in column {printable(schema.feature_names[column])!r}, "
                f"{source.place.row(row)}; divide the column by a constant"
            )
        return torch.from_numpy(x)


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        rank_zero_warn(note)
