"""What is in an ONNX file, in words. No torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smx_export.artifact.check import as_html
from smx_export.artifact.columns import UNREADABLE, in_words, schema_of
from smx_export.artifact.content import read_bytes
from smx_export.artifact.files import metadata_of, parse, seal_holds, signature
from smx_export.artifact.vectors import Vectors
from smx_export.contract import (
    ACTIVATION,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT_RANGE,
    INPUT_SHAPE,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    SELFTEST,
    THRESHOLD,
)
from smx_export.errors import FileError
from smx_lightning.errors.text import lines, printable

SHOWN_NAMES = 12
DEEPEST = 8  # levels of JSON in JSON: what is deeper is not ours, and may exhaust the stack


@dataclass(frozen=True)
class Description:
    """A file's interface and metadata; fields that the metadata lacks are ``None``."""

    path: str
    size_bytes: int
    ir_version: int
    opset: int
    producer: str
    inputs: str
    outputs: str
    operators: list[str]
    parameters: int
    class_names: list[str] | None
    input_shape: list[int] | dict[str, list[int]] | None
    input_range: list[float] | dict[str, list[float]] | None
    feature_names: list[str] | None
    schema: dict[str, Any] | None
    threshold: float | None
    activation: str | dict[str, float] | None
    profile: dict[str, Any] | None
    self_test: str
    provenance: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        told = map(printable, (self.path, self.inputs, self.outputs))
        return "{}({}: {} → {})".format(type(self).__name__, *told)

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        spec = self.activation
        rows = {
            "file": f"{self.path} ({self.size_bytes:,} bytes)",
            "format": f"opset {self.opset}, IR {self.ir_version}, by {self.producer}",
            "inputs": self.inputs,
            "outputs": self.outputs,
            "operators": " → ".join(self.operators[:SHOWN_NAMES]),
            "parameters": f"{self.parameters:,}",
            "class names": "none" if self.class_names is None else _first(self.class_names),
            "input shape": _named(self.input_shape),
            "input range": _named(self.input_range),
            "features": self.feature_names and _first(self.feature_names),
            "threshold": self.threshold,
            "activation": _words(spec) if isinstance(spec, dict) else spec,
            "profile": self.profile and _words(self.profile),
            "self-test": self.self_test,
        }
        for key, value in (self.provenance or {}).items():
            rows[key] = _words(value) if isinstance(value, dict) else value
        told = [f"{key:12} {value}" for key, value in rows.items() if value is not None]
        return lines([*told, *_columns(self.schema)])


def describe(path: str | Path) -> Description:
    """Read a file's description.

    Raises:
        FileError: Where it is no self-contained ONNX model.
    """
    data = read_bytes(path)
    model = parse(data, path)
    metadata = metadata_of(model)

    def value(key: str, kind: type) -> Any:
        try:
            found = json.loads(metadata[key])
            known = isinstance(found, kind) and _depth(found) <= DEEPEST
        except (KeyError, ValueError, RecursionError):
            return None
        return found if known else None

    initial = {tensor.name for tensor in model.graph.initializer}
    return Description(
        path=str(path),
        size_bytes=len(data),
        ir_version=model.ir_version,
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        producer=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        inputs=signature(v for v in model.graph.input if v.name not in initial),
        outputs=signature(model.graph.output),
        operators=[node.op_type for node in model.graph.node],
        parameters=sum(math.prod(tensor.dims) for tensor in model.graph.initializer),
        class_names=value(CLASS_NAMES, list),
        input_shape=value(INPUT_SHAPE, list) or value(INPUT_SHAPE, dict),
        input_range=value(INPUT_RANGE, list) or value(INPUT_RANGE, dict),
        feature_names=value(FEATURE_NAMES, list),
        schema=value(SCHEMA, dict),
        threshold=value(THRESHOLD, float),
        activation=value(ACTIVATION, str) or value(ACTIVATION, dict),
        profile=value(PROFILE, dict),
        self_test=_self_test(metadata.get(SELFTEST), seal_holds(data)),
        provenance=value(PROVENANCE, dict),
    )


def _first(names: list[Any]) -> str:
    """The first of some names, and how many there are."""
    more = f", … ({len(names)} in all)" if len(names) > SHOWN_NAMES else ""
    return ", ".join(map(str, names[:SHOWN_NAMES])) + more


def _columns(schema: dict[str, Any] | None) -> list[str]:
    """A line a column of the table that the features come from."""
    if schema is None:
        return []
    try:
        found = schema_of(schema)
    except UNREADABLE:
        return [f"{'columns':12} damaged"]
    return [f"{'' if row else 'columns':12} {line}" for row, line in enumerate(in_words(found))]


def _self_test(text: str | None, seal: bool | None) -> str:
    """What a file carries to be tested with."""
    sealed = {True: "sealed", False: "CHANGED since it was sealed", None: "not sealed"}[seal]
    if text is None:
        return f"no vectors, {sealed}"
    try:
        vectors, weights = Vectors.from_json(text)
    except FileError:
        return f"damaged vectors, {sealed}"
    return f"{len(vectors.inputs)} vectors, {sealed}, weights sha256 {weights[:16]}…"


def _depth(value: Any) -> int:
    """How many lists and objects lie in one another."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, parts), default=0)


def _named(value: Any) -> Any:
    """What is told of each input by name, in words; of one input as it is."""
    return _words(value) if isinstance(value, dict) else value


def _words(values: dict[str, Any]) -> str:
    """``name value, name value``; a dict in it is opened up."""
    parts = [
        _words(value) if isinstance(value, dict) else f"{name} {value}"
        for name, value in values.items()
    ]
    return ", ".join(part for part in parts if part)
