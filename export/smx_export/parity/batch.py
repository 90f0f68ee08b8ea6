"""One batch of the parity check: the file's outputs and the live model's, against float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from smx_export.artifact.comparison import SUM, Expected, Outputs, compare, log_probs_of, worst
from smx_export.contract import LOG_PROBS, PROBS, SCORES, TOP_CLASSES, TOP_PROBS
from smx_export.graph.arrays import tensors_of
from smx_export.graph.inference_copy import alpha_of_model, unit_of
from smx_export.parity.findings import ORDINARY, Found, Lost
from smx_export.parity.probes import RANDOM, Probe
from smx_export.parity.reference import Reference
from smx_export.parity.report import Flip
from smx_lightning import SoftmaxRegression

LIVE, LIVE_ITSELF = "log_probs against the live model", "live model against float64"
AGAINST = {
    LOG_PROBS: "log_probs against float64",
    PROBS: "probs against float64",
    SUM: "probs sum to 1",
    SCORES: "scores against float64",
    TOP_CLASSES: "top_classes against float64",
    TOP_PROBS: "top_probs against float64",
}


class Answers(NamedTuple):
    """What a batch should be answered with: by the live model, (n, K), and in float64."""

    live: NDArray[np.floating]
    expected: Expected


class Answering:
    """The model and its reference; what one answers to the latest rows is kept for their batches.

    Args:
        model: The live model.
        reference: It computes in float64.
    """

    def __init__(self, model: SoftmaxRegression, reference: Reference) -> None:
        self.model, self.reference = model, reference
        self._latest: tuple[NDArray[np.floating], Answers] | None = None

    def to(self, probe: Probe) -> Answers:
        """The answers to a batch."""
        if self._latest is None or self._latest[0] is not probe.x:
            with torch.no_grad():
                live = self.model(tensors_of(probe.x)).numpy()
            with np.errstate(invalid="ignore", over="ignore"):
                expected = self.reference.expected(probe.x)
                if probe.regular:
                    expected = self.reference.widened(probe.x, expected)
            self._latest = probe.x, Answers(live, expected)
        live, expected = self._latest[1]
        return (
            Answers(live, expected)
            if probe.at is None
            else Answers(live[probe.at], expected.rows(probe.at))
        )


def compare_batch(
    answering: Answering,
    probe: Probe,
    answers: Answers,
    outputs: Outputs,
    found: Found,
    top_k: int | None = None,
) -> None:
    """Compare the outputs of one batch and the live model's, each with float64, and keep the worst.

    Args:
        answering: The model, which names the classes, and its reference.
        probe: The batch.
        answers: To it.
        outputs: The file's, of the right shapes.
        found: What is found is added to it.
        top_k: How many of the most probable classes the file names.
    """
    model, reference = answering.model, answering.reference
    live, expected = answers
    truth, where = expected.log_probs, probe.name
    same = np.array_equal(np.isnan(live), np.isnan(truth))
    answers_of, right = (np.isfinite(expected.in_units(of)) for of in (live, truth))
    if not (same and np.array_equal(answers_of, right)):
        found.value_faults.append(f"{where}: the live model is not finite where the answer is")
        return
    compared = compare(expected, outputs, threshold=model.threshold, top_k=top_k)
    if compared.faults:
        found.value_faults.append(f"{where}: {compared.faults[0]}")
        return
    lost = Lost.of(reference, probe.batch, live, expected)
    found.lost.setdefault(where, Lost()).meet(lost)
    whole = expected.comparable
    if not whole.any():
        if where == RANDOM and not expected.answered.any():
            found.value_faults.append(f"{where}: the model itself answers no row with numbers")
        return
    for name, ratio in compared.ratios.items():
        found.worst[AGAINST[name]].meet(ratio, where)
    names = model.class_names
    for change in compared.changed:
        pair = names[change.right], _name(names, change.chosen)
        row = probe.first + change.row
        sizes = change.margin, change.tolerance
        found.flips.append(Flip(where, row, *pair, *sizes, unit_of(model)))
    parts = {name: output[whole] for name, output in outputs.items()}
    alpha = alpha_of_model(model)
    _compare_live(where, live[whole], parts, expected.rows(whole), found, alpha)


def _compare_live(
    where: str,
    live: NDArray[np.floating],
    outputs: Outputs,
    expected: Expected,
    found: Found,
    alpha: float,
) -> None:
    """The live model against float64, and the outputs against it, of rows that are comparable."""
    units = expected.in_units
    truth, tolerance, live_tolerance = units(expected.log_probs), *expected[1:3]
    found.worst[LIVE_ITSELF].meet(worst(units(live) - truth, live_tolerance), where)
    if LOG_PROBS in outputs:
        error = units(outputs[LOG_PROBS].astype(np.float64)) - units(live)
        found.worst[LIVE].meet(worst(error, tolerance + live_tolerance), where)
    answered = log_probs_of(outputs, alpha)
    if where in ORDINARY and answered is not None:
        error = np.abs(units(answered) - truth)
        # A probability that underflowed tells nothing of its logarithm.
        found.max_error = max(found.max_error, float(error[np.isfinite(error)].max(initial=0)))


def _name(names: tuple[str, ...], k: int) -> str:
    return names[k] if 0 <= k < len(names) else f"no class ({k})"
