"""Columns that are the label again, under another name or in another spelling."""

from __future__ import annotations

from typing import Any

from smx_lightning.tables.encoding import listed

FIRST = 1000  # rows that tell most columns apart from the label
MOST = 1000  # pairs of value and label that are kept


class Twins:
    """Finds columns whose value tells the label, and the label it: one value a class.

    Args:
        target: The column of the labels; of distributions nothing is looked for.
    """

    def __init__(self, target: str | tuple[str, ...]) -> None:
        self.target = target
        self._pairs: dict[str, set[tuple[Any, Any]]] | None = None

    def add(self, table: Any, columns: dict[str, Any]) -> None:
        """Look at the columns that are still like the label."""
        if not isinstance(self.target, str):
            return
        if self._pairs is None:
            self._pairs = {name: set() for name in columns}
        for some in (table.slice(0, FIRST), table):
            for name in [*self._pairs]:
                self._pairs[name] |= _pairs(some, name, self.target)
                if not _is_one_to_one(self._pairs[name]):
                    del self._pairs[name]

    def notes(self, targets: list[str]) -> tuple[str, ...]:
        """A sentence where there are such columns and more than one class."""
        names = [name for name, pairs in (self._pairs or {}).items() if len(pairs) > 1]
        if not names:
            return ()
        return (
            f"expected features that are not the label, got {listed(names)}, which has one value "
            f"for each value of {listed(targets)}; if it is the label again, leave it out with "
            "drop=",
        )


def _pairs(table: Any, name: str, target: str) -> set[tuple[Any, Any]]:
    import pyarrow as pa

    columns = [table.column(name), table.column(target)]
    columns = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in columns]
    found = pa.table(dict(zip("ab", columns, strict=True))).group_by(["a", "b"]).aggregate([])
    found = found.slice(0, MOST)
    return {*zip(*(found.column(k).to_pylist() for k in "ab"), strict=True)}


def _is_one_to_one(pairs: set[tuple[Any, Any]]) -> bool:
    ways = ({value for value, _ in pairs}, {label for _, label in pairs})
    return all(len(values) == len(pairs) for values in ways)
