"""A few inputs and answers that are stored in the file, for a self-test on any device. No torch.

Format, JSON under the metadata key ``selftest``:

    shape      of one input, as the file takes it
    dtype      of ``rows``: ``bfloat16`` (the upper half of float32), ``float32``, ``float64`` of a
               file that takes float64, ``uint8``, or another of a file that takes integers
    rows       (m, *shape) numbers, little-endian, base64
    inputs     [[row, factor], …], n pairs: input i is factor · rows[row]; factors are powers of two
               or 0, and 1 of integers
    log_probs  (n, classes) float32, little-endian, base64
    tolerance  n numbers, nats: how far a correct float32 runtime may be from them
    log_norm   n numbers, log Σ exp of the scores, where the file offers scores
    weights_sha256   see :func:`smx_export.artifact.files.weights_sha256`

Of a sparse activation, whose probabilities may be 0, there is in place of log_probs and log_norm

    probs      (n, classes) float32, little-endian, base64; ``tolerance`` is in probability
    scores     (n, classes) float32, likewise, where the file offers scores
    score_tolerance   n numbers: how far these may be off

Of a file with several inputs shape, dtype and rows are objects with a value for each by name, and
the factors are of its floating-point inputs alone.

bfloat16 halves the size, and is exact: the rows are rounded first, and the answers are those to the
rounded rows. Factors make a zero row and a row far beyond 104 nats out of the same numbers.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison import Expected
from smx_export.artifact.rows import joined, parts_of, scaled
from smx_export.artifact.tolerance import Array
from smx_export.errors import FileError

STORED = {"bfloat16": "<u2", "float32": "<f4", "float64": "<f8", "uint8": "u1", "bool": "u1"}
STORED |= {"int64": "<i8", "int32": "<i4"}
UNDERFLOW = 87.0  # nats: exp of less is no normal float32 number
ROWS = ("shape", "dtype", "rows")  # the keys that tell them
MOST_USES = 8  # of a row, on average: a file of a megabyte could stand for 100 GB of inputs
MOST_PROBABLE = 1 + 2.0**-8  # of a probability that rounding has moved


@dataclass(frozen=True)
class Vectors:
    """Inputs and answers.

    Attributes:
        rows: (m, *shape) of the file's dtype; of several inputs as :mod:`.rows` has them.
        inputs: (row, factor) of each of the n inputs.
        log_probs: (n, classes) float32.
        tolerance: (n,) nats; of a sparse activation probabilities.
        log_norm: (n,), or ``None``.
        scores: (n, classes) float32 of a sparse activation, or ``None``.
        score_tolerance: (n,), or ``None``.
        sparse: Whether probabilities may be 0.
    """

    rows: NDArray[Any]
    inputs: tuple[tuple[int, float], ...]
    log_probs: NDArray[np.float32]
    tolerance: Array
    log_norm: Array | None = None
    scores: NDArray[np.float32] | None = None
    score_tolerance: Array | None = None
    sparse: bool = False

    @property
    def tells_scores(self) -> bool:
        """Whether there is something to hold scores against."""
        return self.log_norm is not None or self.scores is not None

    @property
    def x(self) -> NDArray[Any]:
        """The inputs (n, *shape)."""
        return np.stack([scaled(self.rows[row], factor) for row, factor in self.inputs])

    @property
    def expected(self) -> Expected:
        """The answers, as :func:`smx_export.artifact.comparison.compare` wants them."""
        log_probs = self.log_probs.astype(np.float64)
        tolerance = np.broadcast_to(self.tolerance[:, None], log_probs.shape)
        if self.sparse:
            right = Expected(log_probs, tolerance, tolerance, sparse=True)
            if self.scores is None or self.score_tolerance is None:
                return right
            near = np.broadcast_to(self.score_tolerance[:, None], log_probs.shape)
            return right._replace(scores=self.scores.astype(np.float64), score_tolerance=near)
        scores = None if self.log_norm is None else log_probs + self.log_norm[:, None]
        return Expected(log_probs, tolerance, tolerance, scores)

    def to_json(self, weights_sha256: str) -> str:
        """The format of the module's docstring."""
        stored = {name: _stored(part) for name, part in parts_of(self.rows).items()}
        if self.rows.dtype.names is None:
            (described,) = stored.values()
        else:
            described = {key: {name: of[key] for name, of in stored.items()} for key in ROWS}
        values: dict[str, Any] = {
            **described,
            "inputs": self.inputs,
            "tolerance": _upwards(self.tolerance),
            "weights_sha256": weights_sha256,
        }
        if self.sparse:
            values["probs"] = base64_of(np.exp(self.log_probs))
        else:
            values["log_probs"] = base64_of(self.log_probs)
        if self.scores is not None and self.score_tolerance is not None:
            values["scores"] = base64_of(self.scores)
            values["score_tolerance"] = _upwards(self.score_tolerance)
        if self.log_norm is not None:
            values["log_norm"] = [float(value) for value in self.log_norm]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> tuple[Vectors, str]:
        """The vectors and the hash of the weights.

        Raises:
            FileError: Where the text is not in the format.
        """
        try:
            values = json.loads(text)
            n, rows = len(values["inputs"]), _read(*(values[key] for key in ROWS))
            sparse = "probs" in values
            answers = _numbers(values["probs" if sparse else "log_probs"], "<f4").reshape(n, -1)
            if sparse and not ((answers >= 0) & (answers <= MOST_PROBABLE)).all():
                raise ValueError("its probabilities are none")
            scores = _numbers(values["scores"], "<f4") if sparse and "scores" in values else None
            with np.errstate(divide="ignore"):
                vectors = cls(
                    rows,
                    tuple((int(row), float(factor)) for row, factor in values["inputs"]),
                    np.log(answers) if sparse else answers,
                    _floats(values["tolerance"], n),
                    None if sparse or "log_norm" not in values else _floats(values["log_norm"], n),
                    None if scores is None else scores.reshape(answers.shape),
                    None if scores is None else _floats(values["score_tolerance"], n),
                    sparse,
                )
            if not _is_sound(vectors):
                raise ValueError("its numbers do not fit together")
            return vectors, str(values["weights_sha256"])
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise FileError(
                f"expected self-test vectors in the file's metadata, got damaged ones ({error}); "
                "export it again"
            ) from error


def _is_sound(vectors: Vectors) -> bool:
    """Whether there are inputs and answers, all of them finite, and tolerances above 0."""
    return bool(
        0 < len(vectors.inputs) <= MOST_USES * len(vectors.rows)
        and all(0 <= row < len(vectors.rows) for row, _ in vectors.inputs)
        and _fits(vectors)
        and ((vectors.tolerance > 0) & np.isfinite(vectors.tolerance)).all()
        and vectors.log_probs.size > 0
        and (vectors.sparse or np.isfinite(vectors.log_probs).all())
        and (vectors.scores is None or np.isfinite(vectors.scores).all())
        and (vectors.score_tolerance is None or np.isfinite(vectors.score_tolerance).all())
        and (vectors.log_norm is None or np.isfinite(vectors.log_norm).all())
    )


def _fits(vectors: Vectors) -> bool:
    """Whether the inputs are numbers of their own type."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(np.isfinite(part).all() for part in parts_of(vectors.x).values())


def _stored(rows: NDArray[Any]) -> dict[str, Any]:
    """Rows (m, *shape) of one input as JSON holds them."""
    brief = rows.dtype == np.float32 and np.array_equal(bfloat16(rows), rows)
    stored = (rows.view("<u4") >> 16).astype("<u2") if brief else rows
    kind = "bfloat16" if brief else rows.dtype.name
    return dict(zip(ROWS, (rows.shape[1:], kind, base64_of(stored)), strict=True))


def _read(shape: Any, kind: Any, text: Any) -> NDArray[Any]:
    """The inverse, of one input or of several by name."""
    if isinstance(kind, dict):
        if not kind or not kind.keys() == shape.keys() == text.keys():
            raise ValueError("its inputs do not fit together")
        parts = {name: _read(shape[name], str(kind[name]), text[name]) for name in kind}
        if len({len(part) for part in parts.values()}) > 1:
            raise ValueError("its inputs are not as many of each")
        return joined(parts)
    rows = _numbers(text, STORED[kind])
    if kind == "bfloat16":
        rows = (rows.astype("<u4") << 16).view("<f4")
    return (rows != 0 if kind == "bool" else rows).reshape(-1, *shape)


def _upwards(values: Array) -> list[float]:
    """What is printed in fewer digits must not be stricter."""
    return [float(f"{1.01 * value:.2e}") for value in values]


def _floats(values: Any, n: int) -> Array:
    return np.array(values, np.float64).reshape(n)


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to the nearest number whose lower 16 bits are zero; float32 as before."""
    bits = values.view(np.uint32).astype(np.uint64) + 0x8000
    return np.asarray((bits & 0xFFFF0000).astype(np.uint32).view(np.float32))


def base64_of(values: NDArray[Any]) -> str:
    """Numbers as little-endian base64."""
    return b64encode(
        np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    ).decode()


def _numbers(text: str, dtype: str) -> NDArray[Any]:
    return np.frombuffer(b64decode(text, validate=True), np.dtype(dtype))
