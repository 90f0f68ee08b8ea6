"""The rows of a table that have a label, with their targets and weights as a data set has them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError
from smx_lightning.tables.encoding import listed
from smx_lightning.tables.labels import Labels, row_weights, targets
from smx_lightning.tables.places import Place
from smx_lightning.tables.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa


class Source(NamedTuple):
    """A table that was read, and where its rows come from."""

    table: pa.Table
    place: Place


class Labelled(NamedTuple):
    """The rows of a table that have a label.

    Attributes:
        places: Theirs in the table, (rows,).
        y: Class indices (rows,), or distributions (rows, classes).
        weight: (rows,), where the table has such a column.
    """

    places: NDArray[np.int64]
    y: NDArray[Any]
    weight: NDArray[np.float64] | None

    def rows(self, x: Tensor, chosen: Tensor | slice = slice(None)) -> Rows:
        """Chosen ones of these rows.

        Args:
            x: The features of all rows of the table.
            chosen: Which of the labelled ones; all by default.
        """
        places, y = (torch.from_numpy(values)[chosen] for values in (self.places, self.y))
        weight = None if self.weight is None else torch.from_numpy(self.weight)[chosen]
        return Rows(x[places], y, weight)


def kept(source: Any) -> Any:
    """A source; one that can be read only once as a table."""
    if type(source).__name__ == "RecordBatchReader" and hasattr(source, "read_all"):
        return source.read_all()
    return source


def name_of(source: Any) -> str:
    """A source in words."""
    return str(source) if isinstance(source, (str, PathLike)) else "the table"


def named_target(given: Any) -> str | tuple[str, ...] | None:
    """The name of a column, or of several; data frames may have numbers for names."""
    if given is None or isinstance(given, str):
        return given
    return tuple(map(str, given)) if isinstance(given, (list, tuple)) else str(given)


def names_in_use(found: tuple[str, ...], known: tuple[str, ...] | None) -> tuple[str, ...]:
    """A trained model's classes, but for one that has numbers where the labels are words.

    Args:
        found: Of the labels that are there.
        known: The model's, where there is one.
    """
    known = known or found
    numbered = known == tuple(map(str, range(len(known))))
    return found if numbered and not {*found} <= {*known} else known


def columns_of_labels(
    source: Source,
    known: Schema | None,
    target: str | Sequence[str] | None,
    weight: str | None,
) -> Schema:
    """A schema of the columns of labels and weights alone.

    Args:
        source: The training rows.
        known: A trained model's schema, which counts where the user says nothing.
        target: As the user names it.
        weight: Likewise.

    Raises:
        InputError: Where nobody says which column the labels are in.
    """
    known = known or Schema(())
    target = known.target if target is None else target
    if target is None:
        raise InputError(
            f"expected the column of the labels as target, got none; name one of the columns of "
            f"{source.place.source}: {listed(source.table.column_names)}"
        )
    target = target if isinstance(target, str) else tuple(target)
    return Schema((), target, weight or known.weight)


def class_names(source: Source, spoken: Schema) -> tuple[str, ...]:
    """One name a class, of the labels of all rows."""
    found = Labels(spoken.target or ())
    found.add(source.table, source.place)
    return found.class_names


def labelled(source: Source, spoken: Schema, names: tuple[str, ...]) -> Labelled:
    """The rows that have a label.

    Raises:
        InputError: Where there are none, for labels of no class, and for weights below 0.
    """
    y = targets(spoken, names, source.table, place=source.place)
    weight = row_weights(spoken, source.table, place=source.place)
    places = np.flatnonzero(y >= 0 if y.ndim == 1 else ~np.isnan(y[:, 0]))
    if len(places) == 0:
        raise InputError(
            f"expected rows with a label in {source.place.source}, got none in "
            f"{source.table.num_rows} rows; only predict takes rows without labels"
        )
    return Labelled(places, y[places], None if weight is None else weight[places])
