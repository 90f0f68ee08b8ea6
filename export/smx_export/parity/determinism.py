"""Does a model, or a file, answer a row the same whenever it is asked, and whatever lies beside it?

A backbone may draw random numbers in eval mode (``F.dropout(x)`` does), keep state from one call to
the next, or take statistics over the batch. No file can be that model, and what is measured between
two of its answers is no rounding. Same batch, same answer, bit for bit; a row alone and in a batch
may differ by rounding.
"""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from smx_export.artifact.check import Check, first_line
from smx_export.artifact.comparison import Expected, Outputs, log_probs_of
from smx_export.artifact.rows import parts_of
from smx_export.artifact.tolerance import Array
from smx_export.artifact.vectors import UNDERFLOW
from smx_export.errors import FileError
from smx_export.graph.arrays import tensors_of
from smx_export.graph.inference_copy import InferenceCopy, alpha_of_model
from smx_export.parity.findings import Lost
from smx_export.parity.probes import RANDOM
from smx_export.parity.reference import Reference
from smx_lightning import InputError, SoftmaxRegression

ROWS = 8  # one half is run again and again, the other in between
RUNS = 2  # more of one batch
MANY = 64  # rows of a file's batch, in which each occurs several times
MANY_RUNS = 100  # where random numbers are drawn: a layer that is rarely left out shows late
TWICE, BESIDE = "the same batch again", "a row alone and in a batch"
CHANGES = (
    "random numbers or state kept between calls cause it: use dropout and noise only where "
    "self.training is true, as in F.dropout(x, p, self.training), and keep nothing between calls"
)
MIXES = (
    "batch norm in train mode or a statistic over the batch causes it: leave such modules in eval "
    "mode, and subtract a stored mean rather than x.mean(0)"
)

_quiet = np.errstate(invalid="ignore", over="ignore")  # of answers that are no numbers
Answer = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@contextmanager
def answering(x: NDArray[np.floating]) -> Iterator[None]:
    """One sentence, where a model raises whatever it is made of raises.

    Raises:
        InputError: Then.
    """
    try:
        yield
    except (InputError, FileError):
        raise
    except Exception as error:
        raise _unanswered(error, x) from error


def _unanswered(error: Exception, x: NDArray[np.floating]) -> InputError:
    if x.dtype.kind != "f":
        taken = ", ".join(
            f"{name} {part.dtype} {('batch', *part.shape[1:])}"
            for name, part in parts_of(x).items()
        )
        return InputError(
            f"expected a model that answers any inputs within their ranges ({taken}), got "
            f"{type(error).__name__} for some: {first_line(error)}; state the ranges that "
            "features() takes with input_range, of token ids (0, vocabulary - 1)"
        )
    return InputError(
        f"expected a model that answers any finite numbers of shape {('batch', *x.shape[1:])}, got "
        f"{type(error).__name__} for some: {first_line(error)}; let features() take them, "
        "with x.clamp(low, high) for example, in float32 as all weights of a file are "
        "(x.to(self.body.weight.dtype)), or give the right input_shape=(…), of several inputs by "
        "name"
    )


@_quiet
def refuse_nondeterministic(
    model: SoftmaxRegression,
    reference: Reference,
    x: NDArray[np.float32],
    *,
    trained: bool = True,
) -> None:
    """Complain about a model that no file can be, before one is made.

    Args:
        model: In eval mode, float32, on the CPU; it is not changed.
        reference: Of the model.
        x: Ordinary rows (n, *input_shape), at least two.
        trained: Whether its weights are final: they decide how many digits float32 keeps.

    Raises:
        InputError: Where a batch is answered in two ways, or a row by what lies beside it, or where
            float32 keeps too few digits of most answers.
    """
    batch, other = np.array_split(x, 2)
    live, later = _answers_of(_fresh(model)), _answers_of(_fresh(model))
    with torch.random.fork_rng(devices=[]):
        first = _refuse_changing(live, later, batch, other)
        expected = reference.expected(batch)
        if trained:
            _refuse_lost(Lost.of(reference, batch, first, expected))
        fault = _beside(_in_units(live, expected), batch, expected.live_tolerance)
    if fault:
        raise InputError(
            f"expected an answer to each row that does not depend on the rows beside it, got "
            f"{fault}; {MIXES}"
        )


def _refuse_changing(
    live: Answer, later: Answer, batch: NDArray[np.float32], other: NDArray[np.float32]
) -> NDArray[np.floating]:
    """The answers to a batch, where further runs agree, and a copy that ran another one before."""
    before = _generators()
    first = live(batch)
    for _ in range(RUNS if _generators() == before else MANY_RUNS):
        torch.rand(1)  # a model that restores the generator's state draws other numbers now
        _refuse_apart(first, live(batch), "in two runs")
    later(other)
    _refuse_apart(first, later(batch), "whatever was asked before")
    return first


def _refuse_lost(lost: Lost) -> None:
    most = 2 * lost.poor > lost.rows  # of fewer, more rows will tell
    if lost.unexplained or most:
        raise InputError(
            f"expected answers in float32 that keep half of its digits, got {lost.fault(RANDOM)}"
        )


@_quiet
def repeated(
    inference: InferenceCopy,
    reference: Reference,
    session: onnxruntime.InferenceSession,
    x: NDArray[np.float32],
) -> list[Check]:
    """The same rows again, to a file that has run others before, and to its model.

    Args:
        inference: The model.
        reference: Of the model.
        session: The file's.
        x: Rows (n, *input_shape).
    """
    names = [output.name for output in session.get_outputs()]
    expected = reference.expected(x)

    def file(rows: NDArray[np.float32]) -> Outputs:
        return dict(zip(names, session.run(names, inference.feed(rows)), strict=True))

    def log_probs_in(rows: NDArray[np.float32]) -> NDArray[np.floating]:
        log_probs = log_probs_of(file(rows), alpha_of_model(inference.model))
        if log_probs is None:  # labels alone, of which ties may differ
            return np.full((len(rows), 1), np.nan)
        if expected.sparse:
            return expected.in_units(log_probs)
        return np.where(log_probs > -UNDERFLOW, log_probs, np.nan)  # beyond it exp keeps no digits

    many = np.resize(x, (MANY, *x.shape[1:]))
    once, again = file(many), file(many)
    apart = [f"{name} of the file" for name in names if not _same(once[name], again[name])]
    fault = _beside(log_probs_in, x, expected.tolerance)
    live = _answers_of(inference.model)
    apart += [] if _same(live(x), live(x)) else ["the live model's answer"]
    fault = fault or _beside(_in_units(live, expected), x, expected.live_tolerance)
    detail = f"{apart[0]} differs from run to run; {CHANGES}" if apart else "the same, bit for bit"
    beside = f"{fault}; {MIXES}" if fault else "the same within rounding"
    return [Check(TWICE, not apart, detail), Check(BESIDE, not fault, beside)]


def _fresh(model: SoftmaxRegression) -> SoftmaxRegression:
    """A copy with a state of its own; its parameters, which nothing may change, are the same."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _generators() -> bytes:
    """The states of all that may draw random numbers without a generator of its own."""
    numpys, torchs = np.random.get_state(legacy=False), torch.get_rng_state().numpy()
    return pickle.dumps((random.getstate(), numpys, torchs))


def _answers_of(model: SoftmaxRegression) -> Answer:
    @torch.no_grad()
    def answer(x: NDArray[np.float32]) -> NDArray[np.floating]:
        answered = model(tensors_of(x)).numpy()
        return np.array(answered)  # a copy: a model that keeps its answer may write over it

    return answer


def _in_units(answer: Answer, expected: Expected) -> Answer:
    return lambda x: expected.in_units(answer(x))


def _same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _refuse_apart(one: NDArray[np.floating], other: NDArray[np.floating], when: str) -> None:
    if _same(one, other):
        return
    apart = np.nan_to_num(np.abs(one - other.astype(np.float64)), nan=0, posinf=np.inf).max()
    raise InputError(
        f"expected a model that answers a batch alike {when}, got answers up to {apart:.2g} nats "
        f"apart in eval mode; {CHANGES}"
    )


def _beside(answer: Answer, x: NDArray[np.float32], tolerance: Array) -> str:
    """How a row's answer alone differs from that in a batch, in words; empty where it does not."""
    together = answer(x)
    for i in sorted({0, len(x) // 2, len(x) - 1}):
        try:
            alone = answer(x[i : i + 1])
        except Exception as error:  # of whatever the model is made of
            return f"none to a row alone ({first_line(error)})"
        apart = np.abs(alone[0].astype(np.float64) - together[i])
        apart = float(apart[np.isfinite(apart)].max(initial=0))
        if apart > 2 * tolerance[i].max():  # each of the two may be that far from the truth
            return f"answers {apart:.2g} nats apart to a row alone and in a batch of {len(x)}"
    return ""
