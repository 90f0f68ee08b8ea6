"""Whether the files of one table have the same columns."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable
from smx_lightning.tables.encoding import listed
from smx_lightning.tables.schema import Schema
from smx_lightning.tables.sources.suffixes import is_text
from smx_lightning.tables.values import kind_of


class Agreement:
    """Compares files with the first one: names and kinds of columns, in whatever order.

    Args:
        schema: Where there is one, each file is held against that when it is encoded, and not
            against the others.
    """

    def __init__(self, schema: Schema | None = None) -> None:
        self.heeds_others = schema is None
        self._kinds: dict[str, tuple[Any, str]] | None = None
        self._first = ""

    def check(self, schema: Any, name: str) -> None:
        """Complain about the columns of a file, by their names and kinds.

        Raises:
            InputError: It names the file and the column.
        """
        if not self.heeds_others:
            return
        import pyarrow.types as types

        found = {
            field.name: None if types.is_null(field.type) else kind_of(field.type) or field.type
            for field in schema
        }
        if self._kinds is None:
            self._kinds, self._first = {n: (kind, name) for n, kind in found.items()}, name
            return
        for missing, (has, lacks) in (
            ([n for n in self._kinds if n not in found], (self._first, name)),
            ([n for n in found if n not in self._kinds], (name, self._first)),
        ):
            if missing:
                raise InputError(
                    f"expected the same columns in all files, got {listed(missing)} in {has} and "
                    f"not in {lacks}; give the files the same columns, or move one elsewhere"
                )
        for column, kind in found.items():
            before, file = self._kinds[column]
            if before is None:
                self._kinds[column] = (kind, name)
            elif kind is not None and _apart(kind, before):
                texts = is_text(PurePath(file)) and is_text(PurePath(name))
                say = f"say which with kinds={{{column!r}: 'category'}}, or " if texts else ""
                raise InputError(
                    f"expected column {printable(column)!r} to be of one kind in all files, got "
                    f"{_word(before)} in {file} and {_word(kind)} in {name}; {say}write one of "
                    "them again with the other's type"
                )

    def joined(self, tables: list[Any]) -> Any:
        """Tables one after another, their columns by name in the order of the first.

        Raises:
            InputError: For types that nothing holds in common.
        """
        import pyarrow as pa

        types: dict[str, set[Any]] = {}
        for table in tables:
            for field in table.schema:
                types.setdefault(field.name, set()).add(field.type)
        mixed = {name for name, held in types.items() if len(held) > 1}
        plain = [_undictionaried(table, mixed) for table in tables]
        try:
            return pa.concat_tables(plain, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                f"expected columns of types that go together in all files, got: {error}; convert "
                "these columns"
            ) from error


def _apart(kind: Any, other: Any) -> bool:
    """Whether two kinds differ; dates and timestamps do not."""
    if isinstance(kind, tuple) and isinstance(other, tuple):
        return (kind[0], kind[1] is None) != (other[0], other[1] is None)
    return bool(kind != other)


def _word(kind: Any) -> str:
    name, unit = kind if isinstance(kind, tuple) else (str(kind), None)
    return f"{name} in {unit}" if unit else name


def _undictionaried(table: Any, names: set[str]) -> Any:
    import pyarrow as pa
    import pyarrow.types as types

    fields = [
        field.with_type(field.type.value_type)
        if field.name in names and types.is_dictionary(field.type)
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
