"""A file as the exporter wrote it: graph, metadata, self-test vectors; and whether it is intact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from smx_export.artifact.content import read_bytes
from smx_export.artifact.files import metadata_of, parse, seal_holds, weights_sha256
from smx_export.artifact.graphs.operators import deterministic
from smx_export.artifact.vectors import Vectors
from smx_export.contract import SELFTEST, THRESHOLD
from smx_export.errors import FileError


@dataclass(frozen=True)
class ExportedFile:
    """A parsed file with self-test vectors.

    Attributes:
        proto: The graph.
        metadata: Its metadata, each value JSON.
        vectors: Inputs and answers of its self-test.
        weights_sha256: Hash of the weights at export, as the file declares it.
    """

    proto: onnx.ModelProto
    metadata: dict[str, str]
    vectors: Vectors
    weights_sha256: str

    @property
    def threshold(self) -> float | None:
        """γ of a binary problem."""
        value = self.value(THRESHOLD)
        return float(value) if isinstance(value, (int, float)) and 0 < value < 1 else None

    def value(self, key: str) -> Any:
        """One entry of the metadata, ``None`` where it is missing or no JSON."""
        try:
            return json.loads(self.metadata.get(key, "null"))
        except (ValueError, RecursionError):
            return None


def read_exported(data: bytes, path: str | Path) -> ExportedFile:
    """Parse a file that holds self-test vectors.

    Raises:
        FileError: Where it is no ONNX model, or holds none.
    """
    proto = parse(data, path)
    metadata = metadata_of(proto)
    if SELFTEST not in metadata:
        raise FileError(
            f"expected a file with self-test vectors at {path}, got one without; export it with "
            "smx-export convert"
        )
    vectors, weights = Vectors.from_json(metadata[SELFTEST])
    return ExportedFile(proto, metadata, vectors, weights)


def read_intact(path: str | Path) -> ExportedFile:
    """:func:`read_exported` of a file that is as it was exported and answers the same each time.

    The seal, the weights' hash and the operators are looked at; it is not run.

    Raises:
        FileError: Where it is not.
    """
    data = read_bytes(path)
    exported = read_exported(data, path) if seal_holds(data) is not False else None
    if exported is None or weights_sha256(exported.proto) != exported.weights_sha256:
        raise FileError(
            f"expected a file as it was exported at {path}, got one that was changed since; "
            "smx-export selftest says what, smx-export convert makes it again"
        )
    operators = deterministic(exported.proto)
    if not operators.passed:
        raise FileError(f"{path}: {operators.detail}")
    return exported
