"""What a file answers, and what its outputs amount to: probabilities, labels, the best classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.activation import alpha_of, probabilities
from smx_export.contract import ACTIVATION, LOG_PROBS, PROBS, TOP_CLASSES, TOP_PROBS
from smx_export.errors import FileError

Outputs = dict[str, NDArray[Any]]


class Answer(NamedTuple):
    """label (batch,) int64, -1 for missing, and probs (batch, classes)."""

    label: NDArray[np.int64]
    probs: NDArray[np.float32]


class Top(NamedTuple):
    """The k most probable classes of each row, the most probable first.

    Attributes:
        label: (batch,) int64, the chosen class; -1 for missing.
        classes: (batch, k) int64, -1 for missing.
        probs: (batch, k) float32, NaN for missing.
    """

    label: NDArray[np.int64]
    classes: NDArray[np.int64]
    probs: NDArray[np.float32]


def top_k_of(session: Any) -> int | None:
    """How many classes the outputs of the most probable ones name."""
    shapes = {node.name: node.shape for node in session.get_outputs()}
    if not {TOP_CLASSES, TOP_PROBS} <= {*shapes}:
        return None
    count = shapes[TOP_CLASSES][-1]
    return count if isinstance(count, int) else None


def first_of(answers: Outputs, threshold: float | None) -> NDArray[Any]:
    """The chosen class out of the most probable ones; of two classes at the threshold γ."""
    first: NDArray[Any] = answers[TOP_CLASSES][:, 0]
    if threshold is None:
        return first
    probs = answers[TOP_PROBS][:, 0]
    return np.where(first == 1, probs, 1 - probs) >= threshold


def alpha_in(metadata: Mapping[str, str], path: Path) -> float:
    """α of the activation that a file names; softmax's where it names none."""
    try:
        return alpha_of(json.loads(metadata.get(ACTIVATION, '"softmax"')))
    except (ValueError, RecursionError) as error:  # as FileError is one
        raise FileError(
            f"expected an activation in the metadata of {path} that there is, got "
            f"{metadata[ACTIVATION][:40]!r}; export it again"
        ) from error


def probabilities_of(name: str, answer: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Probabilities of what an output of that name answered."""
    if name == PROBS:
        return answer
    if name == LOG_PROBS:
        return np.asarray(np.exp(answer))
    return np.asarray(probabilities(answer, alpha), answer.dtype)
