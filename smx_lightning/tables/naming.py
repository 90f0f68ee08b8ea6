"""Names of a model's features, and the schema that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable
from smx_lightning.tables.schema import Schema

Told = tuple[dict[str, Any] | None, list[str] | None]


def named_features(
    schema: Mapping[str, Any] | Schema | None,
    feature_names: Sequence[str] | None,
    num_features: int,
) -> Told:
    """Schema and names as plain values, for hyper-parameters; names alone where there is no schema.

    Raises:
        InputError: For another number of names than of features, for equal ones, and for names that
            are not the schema's.
    """
    if schema is not None:
        schema = schema if isinstance(schema, Schema) else Schema.from_dict(schema)
        if feature_names is not None and list(feature_names) != list(schema.feature_names):
            raise InputError(
                "expected feature_names as the schema has them, got others; leave one of them out"
            )
        feature_names = schema.feature_names
    if feature_names is None:
        return None, None
    names = [str(name) for name in feature_names]
    check_encodable(names)
    if len(names) != num_features or len({*names}) != num_features:
        raise InputError(
            f"feature_names must hold {num_features} different names, one a feature, got "
            f"{len(names)}, {len({*names})} of them different; name each feature once"
        )
    return (None, names) if schema is None else (schema.to_dict(), None)


def in_use(told: Told) -> tuple[Schema | None, tuple[str, ...] | None]:
    """The schema and the names that plain values stand for."""
    schema, names = told
    if schema is None:
        return None, None if names is None else tuple(names)
    made = Schema.from_dict(schema)
    return made, made.feature_names
