"""Where the rows to predict come from, whatever they lie in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


ALL, NONE = "all", "none"  # columns to keep


@dataclass(frozen=True)
class Block:
    """Some rows in succession.

    Attributes:
        where: What they lie in, in words.
        first: The number of the first of them in it.
        rows: As the classifier takes them.
        own: The columns of a table that are kept beside the answers.
    """

    where: str
    first: int
    rows: Any
    own: pa.RecordBatch | None = None


@dataclass(frozen=True)
class Source:
    """All rows in order.

    Attributes:
        total: How many there are, ``None`` where only the end tells.
        kept: The columns of a table that are kept beside the answers; ``None`` of arrays.
        blocks: The rows.
        ended: Called when all are answered: says what was noticed on the way.
    """

    total: int | None
    kept: pa.Schema | None
    blocks: Iterator[Block]
    ended: Callable[[], None] = lambda: None
