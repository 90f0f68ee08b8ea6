"""Is the file the model?

The file under onnxruntime is compared with two witnesses: the live model in float32, and an
independent float64 computation. A difference counts against a tolerance derived from rounding error
(:mod:`smx_export.reference`), never against a constant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import ArrayLike, NDArray

from smx_export.contract import BATCH, CLASS_NAMES, INPUT, OUTPUTS, THRESHOLD
from smx_export.files import read_onnx, signature
from smx_export.probes import RANDOM, Probe, probes
from smx_export.reference import Expected, Reference, gamma, reference_of
from smx_export.report import Check, Flip, ParityReport, Task
from smx_export.runtime import open_session
from smx_export.shipped import inference_copy, is_linear
from smx_lightning import InputError, SoftmaxRegression

Data = ArrayLike | tuple[ArrayLike, ArrayLike]

MOST_ONE_HOTS_TRACED = 16  # a backbone's rows are dear, and its weights not seen one by one
STEEP = 1e4  # nats between classes on the huge rows: far beyond where exp leaves float32, at 104
MOST_HUGE = 1e20  # leaves room in float32 for the features' own size
YOUR_DATA = "your data"
ORDINARY = (RANDOM, YOUR_DATA)
FLOAT32_TINY = float(np.finfo(np.float32).tiny)  # smaller probabilities may be flushed to zero


def check_parity(
    model: SoftmaxRegression, path: str | Path, data: Data | None = None
) -> ParityReport:
    """Compare an ONNX file with a model.

    Args:
        model: The live model; it is compared as it is shipped: in eval mode, float32, on the CPU.
        path: The ONNX file.
        data: Inputs, or (inputs, labels), to compare on besides the generated ones; labels are
            class indices.

    Returns:
        A report; it does not raise when a check fails, ``report.raise_if_failed()`` does.

    Raises:
        FileError: Where the file is no self-contained ONNX model.
        InputError: Where data does not fit the model.
    """
    return check_copy(inference_copy(model), path, data)


def check_copy(model: SoftmaxRegression, path: str | Path, data: Data | None) -> ParityReport:
    """:func:`check_parity` of what :func:`inference_copy` made: a backbone is not copied twice."""
    proto = read_onnx(path)
    x, y = _own_data(model, data)
    comparison = _Comparison(model)
    checks = list(_interface(model, proto))
    if all(check.passed for check in checks):
        checks += comparison.run(proto, x, y)
    return ParityReport(
        sha256=sha256(Path(path).read_bytes()).hexdigest(),
        checks=tuple(checks),
        rows=comparison.rows,
        max_error=comparison.max_error,
        error_over_tolerance=comparison.worst["log_probs against float64"].ratio,
        live_error_over_tolerance=comparison.worst["live model against float64"].ratio,
        flips=tuple(comparison.flips),
        task=comparison.task,
    )


def _interface(model: SoftmaxRegression, proto: onnx.ModelProto) -> Iterator[Check]:
    """Names, number, dtypes, shapes and metadata, as the file declares them."""
    features = [math.prod(model.input_shape)] if is_linear(model) else list(model.input_shape)
    # All inputs: a weight that is listed among them could be overridden by the caller.
    yield _same("input", _declared([(INPUT, features)]), signature(proto.graph.input))
    wanted = _declared((name, [model.num_classes]) for name in OUTPUTS)
    yield _same("outputs", wanted, signature(proto.graph.output))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    names = json.dumps(list(model.class_names), ensure_ascii=False)
    yield _same("class names", names, metadata.get(CLASS_NAMES, "none"))
    yield _same("threshold", json.dumps(model.threshold), metadata.get(THRESHOLD, "null"))


@dataclass
class _Worst:
    """The largest error over tolerance that a comparison has met, and where."""

    ratio: float = 0.0
    where: str = "no rows"

    def meet(self, ratio: float, where: str) -> None:
        if math.isnan(ratio) or ratio > self.ratio:  # NaN counts as worst, and stays
            self.ratio, self.where = ratio, where


@dataclass
class _Comparison:
    """Runs the file on every probe and keeps the worst of each comparison."""

    model: SoftmaxRegression
    rows: int = 0
    max_error: float = 0.0
    flips: list[Flip] = field(default_factory=list)
    task: Task | None = None
    worst: dict[str, _Worst] = field(
        default_factory=lambda: {
            "log_probs against float64": _Worst(),
            "log_probs against the live model": _Worst(),
            "live model against float64": _Worst(),
            "probs against float64": _Worst(),
            "probs sum to 1": _Worst(),
        }
    )
    shape_faults: list[str] = field(default_factory=list)
    value_faults: list[str] = field(default_factory=list)

    def run(
        self, proto: onnx.ModelProto, x: NDArray[np.float32] | None, y: NDArray[np.int64] | None
    ) -> Iterator[Check]:
        """Compare everything; yield the checks."""
        reference = reference_of(self.model)
        try:
            session = open_session(proto.SerializeToString())
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            yield Check("onnxruntime loads it", False, _first_line(error))
            return
        yield Check("onnxruntime loads it", True, f"onnxruntime {onnxruntime.__version__}")
        for probe in self._probes():
            for block in probe.blocks(self._width):
                self._compare(session, reference, block)
        if x is not None:
            self._compare_data(session, reference, x, y)

        yield _none("shapes for every batch", self.shape_faults, "(n, classes) float32")
        yield _none("NaN and infinity", self.value_faults, "the same positions")
        for name, worst in self.worst.items():
            yield Check(
                name,
                worst.ratio <= 1,
                f"largest error {worst.ratio:.2g} of the tolerance, in {worst.where!r}",
            )
        bad = [flip for flip in self.flips if not flip.margin <= flip.tolerance]
        ties = len(self.flips) - len(bad)
        yield Check(
            "argmax",
            not bad,
            f"{len(bad)} flips beyond rounding, {ties} ties within it, in {self.rows} rows",
        )

    @property
    def _width(self) -> int:
        return max(math.prod(self.model.input_shape), self.model.num_classes)

    def _probes(self) -> Iterable[Probe]:
        model, statistics = self.model, self.model.preprocessing
        if is_linear(model):
            weight = model.linear.weight.double()
            steepness = float((weight - weight.mean(0)).norm(dim=1).max())
            shift = statistics.fold(model.linear).shift
            return probes(
                model.input_shape, statistics.mean.numpy(), statistics.scale.numpy(),
                origin=0.0 if shift is None else shift.numpy(),
                huge=STEEP / max(steepness, STEEP / MOST_HUGE),
            )  # fmt: skip
        return probes(
            model.input_shape, np.float32(0), np.float32(1), one_hots=MOST_ONE_HOTS_TRACED,
            nan_row=False,  # what max-pooling makes of a NaN differs between correct runtimes
        )  # fmt: skip

    def _compare(
        self, session: onnxruntime.InferenceSession, reference: Reference, probe: Probe
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
        """One batch through both sides; the log-probabilities of model and file."""
        self.rows += len(probe.x)
        batch = probe.x.reshape(len(probe.x), -1) if is_linear(self.model) else probe.x
        try:
            log_probs, probs = session.run(list(OUTPUTS), {INPUT: batch})
        except Exception as error:  # as above
            self.shape_faults.append(f"{probe.name}: {_first_line(error)}")
            return None
        with torch.no_grad():
            live = self.model(torch.from_numpy(probe.x)).numpy()
        # Exact shapes first: numpy would broadcast (4, 3) against (1, 3) to a difference of zero.
        for name, output in zip(OUTPUTS, (log_probs, probs), strict=True):
            if output.shape != live.shape or output.dtype != np.float32:
                self.shape_faults.append(
                    f"{probe.name}: {name} is {output.dtype} {output.shape}, not {live.shape}"
                )
                return None
        with np.errstate(invalid="ignore", over="ignore"):
            expected = reference.expected(probe.x)
            self._compare_values(probe, expected, live, log_probs, probs)
        return live, log_probs

    def _compare_values(
        self,
        probe: Probe,
        expected: Expected,
        live: NDArray[np.floating],
        log_probs: NDArray[np.floating],
        probs: NDArray[np.floating],
    ) -> None:
        where = probe.name
        truth, tolerance, live_tolerance = expected
        finite = np.isfinite(truth)
        for name, output in (("log_probs", log_probs), ("the live model", live), ("probs", probs)):
            # A class ruled out, log p = -inf, has a finite probability: 0.
            numbers = ~np.isnan(truth) if name == "probs" else finite
            same = np.array_equal(np.isnan(output), np.isnan(truth))
            if not (same and np.array_equal(np.isfinite(output), numbers)):
                self.value_faults.append(f"{where}: {name} is not finite where the answer is")
                return
        if not finite.all(1).any():
            if where == RANDOM:
                self.value_faults.append(f"{where}: the model itself answers no row with numbers")
            return
        # Rows with a NaN in them hold nothing else: what remains are whole rows.
        whole = finite.all(1)
        truth, tolerance, live_tolerance = truth[whole], tolerance[whole], live_tolerance[whole]
        live, log_probs, probs = live[whole], log_probs[whole], probs[whole]

        error = np.abs(log_probs - truth)
        if where in ORDINARY:
            self.max_error = max(self.max_error, float(error.max()))
        self._meet("log_probs against float64", error, tolerance, where)
        self._meet(
            "log_probs against the live model",
            np.abs(log_probs.astype(np.float64) - live),
            tolerance + live_tolerance,
            where,
        )
        self._meet("live model against float64", np.abs(live - truth), live_tolerance, where)
        # p = exp(log p): an error of t nats is a relative one of exp(t) - 1, and never above 1.
        probs_tolerance = np.exp(np.minimum(truth + tolerance, 0)) * -np.expm1(-tolerance)
        self._meet(
            "probs against float64",
            np.abs(probs - np.exp(truth)),
            probs_tolerance + FLOAT32_TINY,
            where,
        )
        total = np.abs(probs.astype(np.float64).sum(1) - 1)
        self._meet("probs sum to 1", total, gamma(2.0 * truth.shape[1] + 16), where)

        rows = np.arange(len(truth))
        right, chosen = truth.argmax(1), log_probs.argmax(1)
        margins = truth[rows, right] - truth[rows, chosen]
        allowed = tolerance[rows, right] + tolerance[rows, chosen]
        names = self.model.class_names
        for row in np.flatnonzero(margins > 0):
            pair = names[right[row]], names[chosen[row]]
            original = probe.first + int(np.flatnonzero(whole)[row])
            self.flips.append(
                Flip(where, original, *pair, float(margins[row]), float(allowed[row]))
            )

    def _compare_data(
        self,
        session: onnxruntime.InferenceSession,
        reference: Reference,
        x: NDArray[np.float32],
        y: NDArray[np.int64] | None,
    ) -> None:
        correct, nll = np.zeros(2), np.zeros(2)
        for block in Probe(YOUR_DATA, x).blocks(self._width):
            sides = self._compare(session, reference, block)
            if sides is None or y is None:
                continue
            labels = y[block.first : block.first + len(block.x)]
            for side, log_probs in enumerate(sides):
                decided = self.model.decide(torch.from_numpy(log_probs)).numpy()
                correct[side] += (decided == labels).sum()
                nll[side] -= log_probs[np.arange(len(labels)), labels].sum(dtype=np.float64)
        if y is not None and not self.shape_faults:
            accuracy, mean_nll = correct / len(x), nll / len(x)
            self.task = Task(
                len(x),
                float(accuracy[0]),
                float(accuracy[1]),
                float(mean_nll[0]),
                float(mean_nll[1]),
            )

    def _meet(self, name: str, error: NDArray[np.floating], tolerance: Any, where: str) -> None:
        self.worst[name].meet(float(np.max(error / tolerance)), where)


def _own_data(
    model: SoftmaxRegression, data: Data | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    if data is None:
        return None, None
    given_x, given_y = data if isinstance(data, tuple) else (data, None)
    x = np.asarray(given_x, dtype=np.float32)
    wanted = math.prod(model.input_shape)
    if x.ndim < 2 or len(x) == 0 or x[0].size != wanted:
        raise InputError(
            f"expected data of shape (rows, {wanted}), got {x.shape}; it must be what the model "
            "was trained on"
        )
    x = x.reshape(len(x), *model.input_shape)
    if given_y is None:
        return x, None
    y = np.asarray(given_y)
    if y.dtype.kind not in "iu":
        raise InputError(
            f"expected labels as class indices, got {y.dtype}; look names up in model.class_names"
        )
    if y.shape != (len(x),) or y.min() < 0 or y.max() >= model.num_classes:
        raise InputError(
            f"expected one label in 0..{model.num_classes - 1} for each of {len(x)} rows, got "
            f"{y.tolist() if y.size < 5 else f'{y.shape}, {y.min()} to {y.max()}'}"
        )
    return x, y.astype(np.int64)


def _declared(values: Iterable[tuple[str, list[int]]]) -> str:
    return ", ".join(f"{name}: float32 {[BATCH, *shape]}" for name, shape in values)


def _same(name: str, expected: str, got: str) -> Check:
    if expected == got:
        return Check(name, True, got)
    return Check(name, False, f"expected {expected}, got {got or 'none'}")


def _none(name: str, faults: list[str], otherwise: str) -> Check:
    return Check(name, not faults, faults[0] if faults else otherwise)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
