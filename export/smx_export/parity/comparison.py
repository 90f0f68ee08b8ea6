"""Is the file the model?

The file under onnxruntime is compared with two others: the live model in float32, and an
independent float64 computation. A difference counts against a tolerance derived from rounding error
(:mod:`smx_export.artifact.tolerance`), never against a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from smx_export.artifact.check import Check, first_line
from smx_export.artifact.comparison import SUM, Outputs, log_probs_of, max_or_nan, shape_of
from smx_export.artifact.content import read_bytes
from smx_export.artifact.exported import read_exported
from smx_export.artifact.files import parse, read_onnx, seal_holds
from smx_export.artifact.operators import deterministic, draws
from smx_export.contract import KNOWN_OUTPUTS, LABEL, LOG_PROBS, PROBS, SELFTEST, TOP_CLASSES
from smx_export.graph.arrays import Data
from smx_export.graph.detached import uncompiled
from smx_export.graph.inference_copy import InferenceCopy, alpha_of_model, is_linear, unit_of
from smx_export.graph.written import written_graph
from smx_export.parity.accuracy import Score, cost_of_rounding, decided
from smx_export.parity.batch import AGAINST, LIVE, LIVE_ITSELF, Answering, compare_batch
from smx_export.parity.determinism import ROWS, answering, refuse_nondeterministic, repeated
from smx_export.parity.findings import Found, Worst
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.interface import (
    DEFAULT,
    GIVEN,
    OFFERED,
    Budget,
    declares,
    inference_copy_like,
    interface,
)
from smx_export.parity.probes import Probe
from smx_export.parity.reference import reference_of
from smx_export.parity.report import ParityReport, Task
from smx_export.parity.structure import structure
from smx_export.parity.user_data import UserRows
from smx_export.runtime.session import open_session
from smx_export.targets.apart import open_apart
from smx_export.targets.limited import LIMITS, Limited, Limits
from smx_export.targets.selftest import check_vectors
from smx_lightning import SoftmaxRegression
from smx_lightning.errors.streams import Doing
from smx_lightning.processes.turns import in_turn


@in_turn
def check_parity(
    model: SoftmaxRegression,
    path: str | Path,
    data: Data | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    max_accuracy_loss: float = DEFAULT.max_accuracy_loss,
    max_nll_increase: float = DEFAULT.max_nll_increase,
) -> ParityReport:
    """Compare an ONNX file with a model.

    Args:
        model: The live model; it is compared as it is exported: in eval mode, float32, on the CPU,
            in the shape of the profile that the file names.
        path: The ONNX file.
        data: Inputs, or (inputs, labels), to compare on besides the generated ones; labels are
            class indices. A file of profile ``compact`` needs them.
        input_shape: Shape of one input, where the file was exported with one that differs from
            ``model.input_shape``.
        max_accuracy_loss: What the rounded weights of profile ``compact`` may cost, as a fraction
            of those rows, whatever the file says.
        max_nll_increase: Likewise, in nats a row.

    Returns:
        A report; it does not raise when a check fails, ``report.raise_if_failed()`` does.

    Raises:
        FileError: Where the file is no self-contained ONNX model.
        InputError: Where data does not fit the model, or the model answers the same rows in more
            than one way.
    """
    budget = Budget(max_accuracy_loss, max_nll_increase)
    return comparison(model, path, data, budget, input_shape).report(path)


def comparison(
    model: SoftmaxRegression,
    path: str | Path,
    data: Data | None = None,
    budget: Budget = DEFAULT,
    input_shape: Sequence[int] | None = None,
) -> Comparison:
    """The model in the shape of the profile that a file names; see :func:`check_parity`."""
    model = uncompiled(model)
    return Comparison(inference_copy_like(model, read_onnx(path), budget, input_shape), data)


class Comparison:
    """A model as it is exported, ready to be held against files.

    Args:
        inference: The model in the shape of a profile.
        data: As for :func:`check_parity`.
        doing: Told what is under way.

    Raises:
        InputError: Where data does not fit, or no file can be the model: see
            :mod:`smx_export.parity.determinism`.
    """

    def __init__(
        self, inference: InferenceCopy, data: Data | None = None, doing: Doing | None = None
    ) -> None:
        self.doing = doing or Doing("")
        self.inference = inference
        self.model = inference.model
        self.reference = reference_of(self.model)
        self.inputs = ParityInputs(inference, self.reference)
        self.answering = Answering(self.model, self.reference)
        self.own = UserRows.of(inference, data)
        if not is_linear(self.model):  # the plain model is deterministic by what it consists of
            rows = self.inputs.ordinary(ROWS)
            with answering(rows):
                refuse_nondeterministic(self.model, self.reference, rows)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """What the exporter writes of the model, with nothing in its metadata yet.

        Raises:
            InputError: Where torch cannot export it.
        """
        self.doing.words = "writing the graph"
        return written_graph(self.inference, {})

    def report(self, path: str | Path, limits: Limits | None = None) -> ParityReport:
        """Hold a file against the model; one that nobody vouches for in a process with limits."""
        data = read_bytes(path)
        proto = parse(data, path)
        profile = self.inference.profile
        outputs = [name for name in KNOWN_OUTPUTS if name in profile.outputs]
        kinds = [AGAINST[name] for name in outputs if name in AGAINST]
        kinds += [AGAINST[SUM]] * (PROBS in outputs) + [LIVE] * (LOG_PROBS in outputs)
        found = Found({name: Worst() for name in [*kinds, LIVE_ITSELF]})
        checks = list(interface(self.inference, data, proto))
        task = rounding = None
        known = structure(self.inference, lambda: self.graph, proto)
        # What else a file says wrongly of itself, or was changed in, does not keep it from running.
        fed = all(check.passed for check in checks if check.name in (GIVEN, OFFERED))
        runs = fed and known.harmless and not draws(proto)
        checks.append(known.check)
        # An operator in training mode is run all the same, to tell how far off it is.
        checks.append(deterministic(proto))
        if runs:
            # What the exporter writes is harmless; a damaged file crashes whoever loads it.
            whole = seal_holds(data) is not False
            apart = None if known.exact else limits or (None if whole else LIMITS)
            with ExitStack() as stack:
                session = _opened(data, path, proto, apart, checks, stack)
                if session is not None:
                    probes = self.inputs.probes(proven=known.exact)
                    task = self._run(session, probes, data, path, found, checks, apart)
            if self.inference.weight is not None and self.own is not None:
                rounding = cost_of_rounding(self.inference, self.own)
                checks += rounding.checks(profile)
        checks += declares(self.inputs, proto)
        compared = [found.worst[name].ratio for name in kinds if name != LIVE]
        return ParityReport(
            sha256=sha256(data).hexdigest(),
            checks=tuple(checks),
            rows=found.rows,
            max_error=found.max_error,
            error_over_tolerance=max_or_nan(compared),
            live_error_over_tolerance=found.worst[LIVE_ITSELF].ratio,
            flips=tuple(found.flips),
            task=task,
            rounding=rounding,
            unjudged=found.unjudged,
            exact_graph=known.exact,
            unit=unit_of(self.model),
        )

    def _run(
        self,
        session: Any,
        probes: Iterable[Probe],
        data: bytes,
        path: str | Path,
        found: Found,
        checks: list[Check],
        limits: Limits | None,
    ) -> Task | None:
        """Everything that needs the file to be run."""
        for probe in probes:
            for block in probe.blocks(self.inference.width):
                self._compare(session, block, found)
        task = self._compare_data(session, found)
        checks += found.checks()
        if not found.shape_faults:
            rows = self.inputs.ordinary(ROWS)
            checks += repeated(self.inference, self.reference, session, rows)
        if SELFTEST in session.get_modelmeta().custom_metadata_map:
            target = None if limits is None else Limited(limits=limits)
            checks += check_vectors(read_exported(data, path), path, target)
        return task

    def _compare(
        self, session: Any, probe: Probe, found: Found
    ) -> tuple[NDArray[np.floating], Outputs] | None:
        """One batch through both sides; the live model's log-probabilities and the outputs."""
        batch = probe.batch
        found.rows += len(batch)
        self.doing.words = f"comparing {probe.name}, {found.rows:,} rows so far"
        names = [output.name for output in session.get_outputs()]
        try:
            answered = session.run(names, self.inference.feed(batch))
        except Exception as error:  # as above
            found.shape_faults.append(f"{probe.name}: {first_line(error)}")
            return None
        outputs = dict(zip(names, answered, strict=True))
        answers = self.answering.to(probe)
        live, top_k = answers.live, self.inference.profile.top_k
        for name, output in outputs.items():
            shape = shape_of(name, live.shape, top_k)
            dtype = np.int64 if name in (LABEL, TOP_CLASSES) else np.float32
            if output.shape != shape or output.dtype != dtype:
                found.shape_faults.append(
                    f"{probe.name}: {name} is {output.dtype} {output.shape}, not {shape}"
                )
                return None
        with np.errstate(invalid="ignore", over="ignore"):
            compare_batch(self.answering, probe, answers, outputs, found, top_k)
        return live, outputs

    def _compare_data(self, session: Any, found: Found) -> Task | None:
        """Your rows, and accuracy and NLL of both sides where they have labels."""
        if self.own is None:
            return None
        model, file = Score(), Score()
        for block, targets in self.own.blocks(self.inference.width):
            sides = self._compare(session, block, found)
            if sides is None or targets is None:
                continue
            live, outputs = sides
            answered = log_probs_of(outputs, alpha_of_model(self.model))
            model.add(live, decided(self.model, live), targets)
            if answered is None or LABEL in outputs:
                file.add(answered, _labels(outputs), targets)
            else:
                file.add(answered, decided(self.model, answered), targets)
        if not model.rows or found.shape_faults:
            return None
        return Task(model.rows, model.accuracy, file.accuracy, model.nll, file.nll)


def _labels(outputs: Outputs) -> NDArray[np.int64]:
    """The chosen classes of outputs that tell no probability of each."""
    chosen = outputs[LABEL] if LABEL in outputs else outputs[TOP_CLASSES][:, 0]
    return np.asarray(chosen, np.int64)


def _opened(
    data: bytes,
    path: str | Path,
    proto: onnx.ModelProto,
    limits: Limits | None,
    checks: list[Check],
    stack: ExitStack,
) -> Any:
    """A session, in a process of its own where there are limits; ``None`` where none opens."""
    name = "onnxruntime loads it"
    try:
        if limits is None:
            session: Any = open_session(data)
        else:
            session = stack.enter_context(closing(open_apart(Path(path), proto, limits)))
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        checks.append(Check(name, False, first_line(error)))
        return None
    checks.append(Check(name, True, f"onnxruntime {onnxruntime.__version__}"))
    return session
