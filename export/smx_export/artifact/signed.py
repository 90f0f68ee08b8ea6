"""A file that bears inputs and answers: what it says of itself, and whether it is intact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from smx_export.artifact.files import metadata_of, parse, read_bytes, seal_holds, weights_sha256
from smx_export.artifact.operators import deterministic
from smx_export.artifact.vectors import Vectors
from smx_export.contract import SELFTEST, THRESHOLD
from smx_export.errors import FileError


@dataclass(frozen=True)
class Signed:
    """What a file says of itself.

    Attributes:
        proto: The parsed file.
        metadata: Its metadata, each value JSON.
        vectors: Its inputs and answers.
        weights_sha256: Hash of the weights that were signed off.
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


def read_signed(data: bytes, path: str | Path) -> Signed:
    """Parse a file that bears self-test vectors.

    Raises:
        FileError: Where it is no ONNX model, or bears none.
    """
    proto = parse(data, path)
    metadata = metadata_of(proto)
    if SELFTEST not in metadata:
        raise FileError(
            f"expected a file with self-test vectors at {path}, got one without; export it with "
            "smx-export convert"
        )
    vectors, weights = Vectors.from_json(metadata[SELFTEST])
    return Signed(proto, metadata, vectors, weights)


def read_intact(path: str | Path) -> Signed:
    """:func:`read_signed` of a file that is as it was exported, as far as it can tell, and steady.

    Raises:
        FileError: Where it is not.
    """
    data = read_bytes(path)
    signed = read_signed(data, path) if seal_holds(data) is not False else None
    if signed is None or weights_sha256(signed.proto) != signed.weights_sha256:
        raise FileError(
            f"expected a file as it was exported at {path}, got one that was changed since; "
            "smx-export selftest says what, smx-export convert makes it again"
        )
    operators = deterministic(signed.proto)
    if not operators.passed:
        raise FileError(f"{path}: {operators.detail}")
    return signed
