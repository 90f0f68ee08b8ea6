"""A few inputs and answers that are stored in the file, for a self-test on any device. No torch.

Format, JSON under the metadata key ``selftest``:

    shape      of one input, as the file takes it
    dtype      of ``rows``: ``bfloat16`` (the upper half of float32), ``float32``, ``float64`` of a
               file that takes float64, or ``uint8``
    rows       (m, *shape) numbers, little-endian, base64
    inputs     [[row, factor], …], n pairs: input i is factor · rows[row]; factors are powers of two
    log_probs  (n, classes) float32, little-endian, base64
    tolerance  n numbers, nats: how far a correct float32 runtime may be from them
    log_norm   n numbers, log Σ exp of the scores, where the file offers scores
    weights_sha256   see :func:`smx_export.artifact.files.weights_sha256`

bfloat16 halves the size, and is exact: the rows are rounded first, and the answers are those to the
rounded rows. Factors make a zero row and a row far beyond 104 nats out of the same numbers.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison import Expected
from smx_export.artifact.tolerance import UNIT_ROUNDOFF, Array
from smx_export.errors import FileError

ROWS = 2
STORED = {"bfloat16": "<u2", "float32": "<f4", "float64": "<f8", "uint8": "u1"}
UNDERFLOW = 87.0  # nats: exp of less is no normal float32 number
STRESS = 1000.0  # nats between the classes of a stressed row, at least
MOST_FACTOR = 2.0**40
MOST_USES = 8  # of a row, on average: a file of a megabyte could stand for 100 GB of inputs
COARSE = 1 / 16  # of a feature's spread: a row that bfloat16 moves by more is kept in float32


@dataclass(frozen=True)
class Vectors:
    """Inputs and answers.

    Attributes:
        rows: (m, *shape) float32, float64 or uint8.
        inputs: (row, factor) of each of the n inputs.
        log_probs: (n, classes) float32.
        tolerance: (n,) nats.
        log_norm: (n,), or ``None``.
    """

    rows: NDArray[Any]
    inputs: tuple[tuple[int, float], ...]
    log_probs: NDArray[np.float32]
    tolerance: Array
    log_norm: Array | None

    @property
    def x(self) -> NDArray[Any]:
        """The inputs (n, *shape)."""
        picked = [self.rows[row] * self.rows.dtype.type(factor) for row, factor in self.inputs]
        return np.stack(picked)

    @property
    def expected(self) -> Expected:
        """The answers, as :func:`smx_export.artifact.comparison.compare` wants them."""
        log_probs = self.log_probs.astype(np.float64)
        tolerance = np.broadcast_to(self.tolerance[:, None], log_probs.shape)
        scores = None if self.log_norm is None else log_probs + self.log_norm[:, None]
        return Expected(log_probs, tolerance, tolerance, scores)

    def to_json(self, weights_sha256: str) -> str:
        """The format of the module's docstring."""
        brief = self.rows.dtype == np.float32 and np.array_equal(_bfloat16(self.rows), self.rows)
        rows = self.rows.view("<u4") >> 16 if brief else self.rows
        values: dict[str, Any] = {
            "shape": self.rows.shape[1:],
            "dtype": "bfloat16" if brief else self.rows.dtype.name,
            "rows": base64_of(rows.astype("<u2") if brief else rows),
            "inputs": self.inputs,
            "log_probs": base64_of(self.log_probs),
            # Upwards: what is printed in fewer digits must not be stricter.
            "tolerance": [float(f"{1.01 * t:.2e}") for t in self.tolerance],
            "weights_sha256": weights_sha256,
        }
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
            shape, n = tuple(values["shape"]), len(values["inputs"])
            rows = _numbers(values["rows"], STORED[values["dtype"]])
            if values["dtype"] == "bfloat16":
                rows = (rows.astype("<u4") << 16).view("<f4")
            norms = values.get("log_norm")
            vectors = cls(
                rows.reshape(-1, *shape),
                tuple((int(row), float(factor)) for row, factor in values["inputs"]),
                _numbers(values["log_probs"], "<f4").reshape(n, -1),
                np.array(values["tolerance"], np.float64).reshape(n),
                None if norms is None else np.array(norms, np.float64).reshape(n),
            )
            if not _is_sound(vectors):
                raise ValueError("its numbers do not fit together")
            return vectors, str(values["weights_sha256"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FileError(
                f"expected self-test vectors in the file's metadata, got damaged ones ({error}); "
                "export it again"
            ) from error


def choose(
    rows: NDArray[Any],
    answer: Callable[[NDArray[Any]], Expected],
    spread: NDArray[np.floating] | float,
) -> Vectors:
    """Vectors out of ordinary rows.

    Args:
        rows: (m, *shape) float32, float64 of a file that takes that, or uint8 images.
        answer: The float64 answers to inputs.
        spread: Deviation of the features, unrolled: it says whether bfloat16 is fine enough.

    Raises:
        FileError: Where float32 can tell the answer to none of the rows.
    """
    factors = [1.0]
    if rows.dtype == np.uint8:
        rows = np.concatenate([rows, np.full_like(rows[:1], 255)])
    else:
        if rows.dtype == np.float32:
            brief = _bfloat16(rows)
            moved = np.abs(brief - rows).reshape(len(rows), -1)
            rows = brief if (moved <= COARSE * spread).all() else rows
        factors += [_stress_factor(rows, answer)]
    inputs = [(row, factor) for factor in factors for row in range(len(rows))] + [(0, 0.0)]
    vectors = Vectors(rows, tuple(inputs), np.empty((0, 0), np.float32), np.empty(0), None)
    expected = answer(vectors.x)
    kept = np.flatnonzero(expected.comparable)
    if not len(kept):
        raise FileError(
            "expected a model that answers some ordinary row with numbers that float32 can hold, "
            "got none for the self-test; smaller weights or standardised inputs may help, and a "
            "backbone must take numbers around 0, with x.clamp(min=1e-6) before a logarithm for one"
        )
    truth = expected.log_probs[kept]
    norms = None if expected.scores is None else (expected.scores[kept] - truth).mean(1)
    # float32 rounds the answers, and the norm is one number for all classes of a row.
    stored = 2 * UNIT_ROUNDOFF * np.abs(truth).max(1)
    return Vectors(
        rows,
        tuple(inputs[i] for i in kept),
        truth.astype(np.float32),
        expected.tolerance[kept].max(1) + stored,
        norms,
    )


def _stress_factor(rows: NDArray[Any], answer: Callable[[NDArray[Any]], Expected]) -> float:
    """The least power of two that takes the classes of every row ``STRESS`` nats apart."""
    factor = 1.0
    while factor < MOST_FACTOR:
        factor *= 2
        expected = answer(rows * rows.dtype.type(factor))
        if not expected.comparable.all():  # beyond float32 it would test nothing
            return factor / 2
        if -expected.log_probs.min(1).max() >= STRESS:
            break
    return factor


def _is_sound(vectors: Vectors) -> bool:
    """Whether there are inputs and answers, all of them finite, and tolerances above 0."""
    return bool(
        0 < len(vectors.inputs) <= MOST_USES * len(vectors.rows)
        and all(0 <= row < len(vectors.rows) for row, _ in vectors.inputs)
        and _fits(vectors)
        and ((vectors.tolerance > 0) & np.isfinite(vectors.tolerance)).all()
        and vectors.log_probs.size > 0
        and np.isfinite(vectors.log_probs).all()
        and (vectors.log_norm is None or np.isfinite(vectors.log_norm).all())
    )


def _fits(vectors: Vectors) -> bool:
    """Whether the inputs are numbers of their own type."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(vectors.x).all())


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
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
