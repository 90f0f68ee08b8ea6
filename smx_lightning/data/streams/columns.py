"""The columns that files have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def common(schemas: Mapping[str, pa.Schema], wanted: Sequence[str] | None) -> pa.Schema:
    """The columns of all files, in the order of the first file's.

    A column that is of integers here and of floating-point numbers there, or has no value in one of
    the files, is of the wider type; where one file has it dictionary-encoded it is read plain.

    Args:
        schemas: Of each file, by its path.
        wanted: The columns that are needed; all by default.

    Raises:
        InputError: Where one file lacks a column, has it twice, or has another kind of values.
    """
    paths = [*schemas]
    first = schemas[paths[0]]
    names = [*dict.fromkeys(first.names if wanted is None else wanted)]
    distinct: dict[Any, str] = {}  # most files have one schema
    for path in paths:
        distinct.setdefault(schemas[path].remove_metadata(), path)
    for schema, path in distinct.items():
        _check_names(schema, path, names, paths[0], complete=wanted is None)
    import pyarrow as pa

    return pa.schema([_field(name, distinct) for name in names])


def _check_names(
    schema: pa.Schema, path: str, names: Sequence[str], first: str, *, complete: bool
) -> None:
    for name in names:
        found = schema.names.count(name)
        if found != 1:
            what = "no such column" if not found else f"{found} of that name"
            raise InputError(
                f"expected one column {name!r} in every file, got {what} in {path}; write the "
                "files alike, or name the columns that all have, with features"
            )
    more = [name for name in schema.names if name not in names] if complete else []
    if more:
        raise InputError(
            f"expected the columns of {first} in every file, got {more[0]!r} besides in {path}; "
            "write the files alike, or name the columns that all have, with features"
        )


def _field(name: str, schemas: Mapping[Any, str]) -> pa.Field:
    """The field that holds a column of all files."""
    import pyarrow as pa

    fields = {schema.field(name): path for schema, path in schemas.items()}
    types = {field.type: path for field, path in fields.items()}
    if len(types) == 1:
        return pa.field(name, next(iter(types)))
    field: pa.Field | None = None
    for kind, path in types.items():
        one = pa.schema([pa.field(name, _plain(kind))])
        try:
            merged = one if field is None else pa.unify_schemas(
                [pa.schema([field]), one], promote_options="permissive"
            )
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise InputError(
                f"expected column {name!r} to hold one kind of values in all files, got {kind} in "
                f"{path} and {field.type if field else kind} elsewhere; write it alike"
            ) from error
        field = merged.field(0)
    return field


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
