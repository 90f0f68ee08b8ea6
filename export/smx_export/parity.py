"""Is the file the model?

The file under onnxruntime is compared with two witnesses: the live model in float32, and an
independent float64 computation. A difference counts against a tolerance derived from rounding error
(:mod:`smx_export.reference`), never against a constant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import ArrayLike, NDArray

from smx_export.contract import (
    ALL_OUTPUTS,
    BATCH,
    CLASS_NAMES,
    INPUT,
    INPUT_RANGE,
    LABEL,
    LOG_PROBS,
    PROBS,
    PROFILE,
    SCORES,
    SELFTEST,
    THRESHOLD,
)
from smx_export.errors import FileError
from smx_export.files import parse, read_bytes, seal_holds, signature
from smx_export.judge import SUM, Expected, Outputs, judge, log_probs_of, max_or_nan, worst
from smx_export.probes import RANDOM, RANDOM_ROWS, Probe, image_probes, ordinary, probes
from smx_export.profile import Profile
from smx_export.reference import reference_of
from smx_export.report import Check, Flip, ParityReport, Rounding, Task, first_line
from smx_export.runtime import open_session
from smx_export.selftest import answers, read_signed
from smx_export.shipped import BYTE, DEFAULT_RANGE, Shipped, inference_copy, is_linear, shipped_as
from smx_export.vectors import ROWS, Vectors, choose
from smx_lightning import InputError, SoftmaxRegression

Data = ArrayLike | tuple[ArrayLike, ArrayLike]

MOST_ONE_HOTS_TRACED = 16  # a backbone's rows are dear, and its weights not seen one by one
STEEP = 1e4  # nats between classes on the huge rows: far beyond where exp leaves float32, at 104
MOST_HUGE = 1e20  # leaves room in float32 for the features' own size
MOST_ROWS = 4096  # of your data that other runtimes are asked about
YOUR_DATA = "your data"
ORDINARY = (RANDOM, YOUR_DATA)
LIVE, LIVE_ITSELF = "log_probs against the live model", "live model against float64"
AGAINST = {
    LOG_PROBS: "log_probs against float64",
    PROBS: "probs against float64",
    SUM: "probs sum to 1",
    SCORES: "scores against float64",
}


def check_parity(
    model: SoftmaxRegression, path: str | Path, data: Data | None = None
) -> ParityReport:
    """Compare an ONNX file with a model.

    Args:
        model: The live model; it is compared as it is shipped: in eval mode, float32, on the CPU,
            in the shape of the profile that the file names.
        path: The ONNX file.
        data: Inputs, or (inputs, labels), to compare on besides the generated ones; labels are
            class indices. A file of profile ``compact`` needs them.

    Returns:
        A report; it does not raise when a check fails, ``report.raise_if_failed()`` does.

    Raises:
        FileError: Where the file is no self-contained ONNX model.
        InputError: Where data does not fit the model.
    """
    return comparison(model, path, data).report(path)


def comparison(model: SoftmaxRegression, path: str | Path, data: Data | None = None) -> Comparison:
    """The model in the shape of the profile that a file names; see :func:`check_parity`."""
    metadata = _metadata(parse(read_bytes(path), path))
    profile = Profile.from_json(metadata.get(PROFILE))
    told = None if model.input_range is not None else _range_of(metadata)
    return Comparison(shipped_as(inference_copy(model, input_range=told), profile), data)


@dataclass
class _Worst:
    """The largest error over tolerance that a comparison has met, and where."""

    ratio: float = 0.0
    where: str = "no rows"

    def meet(self, ratio: float, where: str) -> None:
        if math.isnan(ratio) or ratio > self.ratio:  # NaN counts as worst, and stays
            self.ratio, self.where = ratio, where


@dataclass
class _Found:
    """What has been found so far: the worst of each comparison, and everything that differs."""

    worst: dict[str, _Worst]
    rows: int = 0
    max_error: float = 0.0
    flips: list[Flip] = field(default_factory=list)
    shape_faults: list[str] = field(default_factory=list)
    value_faults: list[str] = field(default_factory=list)

    def checks(self) -> Iterator[Check]:
        yield _none("shapes for every batch", self.shape_faults, "(n, classes) float32")
        yield _none("NaN and infinity", self.value_faults, "the same positions")
        for name, met in self.worst.items():
            yield Check(
                name,
                met.ratio <= 1,
                f"largest error {met.ratio:.2g} of the tolerance, in {met.where!r}",
            )
        bad = [flip for flip in self.flips if not flip.margin <= flip.tolerance]
        ties = len(self.flips) - len(bad)
        yield Check(
            "argmax",
            not bad,
            f"{len(bad)} flips beyond rounding, {ties} ties within it, in {self.rows} rows",
        )


class Comparison:
    """A model as it is shipped, ready to be held against files.

    Args:
        shipped: The model in the shape of a profile.
        data: As for :func:`check_parity`.
    """

    def __init__(self, shipped: Shipped, data: Data | None = None) -> None:
        self.shipped = shipped
        self.model = shipped.model
        self.reference = reference_of(self.model)
        self.x, self.y = _own_data(shipped, data)

    def vectors(self) -> Vectors:
        """Self-test vectors for the file."""
        model = self.model
        centre, spread = self._statistics()
        rows = ordinary(ROWS, model.input_shape, centre, spread, pixels=self.shipped.profile.image)
        rows = self._as_fed(rows)

        def answer(x: NDArray[Any]) -> Any:
            with np.errstate(invalid="ignore", over="ignore"):
                return self.reference.expected(self._as_given(x))

        vectors = choose(rows, answer, spread)
        if SCORES in self.shipped.profile.outputs:
            return vectors
        return replace(vectors, log_norm=None)

    def batches(self) -> list[tuple[NDArray[Any], Expected]]:
        """Random rows and the first of yours, as the file takes them, with their answers."""
        random = ordinary(RANDOM_ROWS, self.model.input_shape, *self._statistics(),
                          pixels=self.shipped.profile.image)  # fmt: skip
        yours = [] if self.x is None else [self.x[:MOST_ROWS]]
        return [(self._as_fed(x), self.reference.expected(x)) for x in (random, *yours)]

    def report(self, path: str | Path) -> ParityReport:
        """Hold a file against the model."""
        data = read_bytes(path)
        proto = parse(data, path)
        profile = self.shipped.profile
        outputs = [name for name in ALL_OUTPUTS if name in profile.outputs]
        kinds = [AGAINST[name] for name in outputs if name in AGAINST]
        kinds += [AGAINST[SUM]] * (PROBS in outputs) + [LIVE] * (LOG_PROBS in outputs)
        found = _Found({name: _Worst() for name in [*kinds, LIVE_ITSELF]})
        checks = list(self._interface(data, proto, outputs))
        task = rounding = None
        if all(check.passed for check in checks):
            task = self._run(data, path, proto, found, checks)
            rounding = self._rounding()
            if rounding is not None:
                checks += rounding.checks(profile)
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
        )

    def _interface(
        self, data: bytes, proto: onnx.ModelProto, outputs: list[str]
    ) -> Iterator[Check]:
        """Names, number, dtypes, shapes and metadata, as the file declares them."""
        model, image = self.model, self.shipped.profile.image
        holds = seal_holds(data)
        words = {True: "no byte was changed", False: "changed since export", None: "none"}
        yield Check("seal", holds is not False, words[holds])
        # All inputs: a weight that is listed among them could be overridden by the caller.
        shape = list(self._as_fed(np.zeros((1, *model.input_shape), np.float32)).shape[1:])
        wanted = _declared([(INPUT, "uint8" if image else "float32", shape)])
        yield _same("input", wanted, signature(proto.graph.input))
        wanted = _declared(
            (name, "int64", []) if name == LABEL else (name, "float32", [model.num_classes])
            for name in outputs
        )
        yield _same("outputs", wanted, signature(proto.graph.output))
        metadata = _metadata(proto)
        names = json.dumps(list(model.class_names), ensure_ascii=False)
        yield _same("class names", names, metadata.get(CLASS_NAMES, "none"))
        yield _same("threshold", json.dumps(model.threshold), metadata.get(THRESHOLD, "null"))
        told = json.dumps(model.input_range)
        yield _same("input range", told, metadata.get(INPUT_RANGE, told))

    def _run(
        self,
        data: bytes,
        path: str | Path,
        proto: onnx.ModelProto,
        found: _Found,
        checks: list[Check],
    ) -> Task | None:
        """Everything that needs the file to be run."""
        try:
            session = open_session(data)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            checks.append(Check("onnxruntime loads it", False, first_line(error)))
            return None
        checks.append(Check("onnxruntime loads it", True, f"onnxruntime {onnxruntime.__version__}"))
        for probe in self._probes():
            for block in probe.blocks(self._width):
                self._compare(session, block, found)
        task = self._compare_data(session, found)
        checks += found.checks()
        if SELFTEST in _metadata(proto):
            checks += answers(read_signed(data, path), path)
        return task

    @property
    def _width(self) -> int:
        return max(math.prod(self.model.input_shape), self.model.num_classes)

    def _statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Where the inputs lie: mean and deviation of the features, or 0 and 1."""
        if not is_linear(self.model):
            return np.float32(0), np.float32(1)
        statistics = self.shipped.unrounded.preprocessing
        return statistics.mean.numpy(), statistics.scale.numpy()

    def _probes(self) -> Iterable[Probe]:
        model, (centre, spread) = self.model, self._statistics()
        most = {} if is_linear(model) else {"one_hots": MOST_ONE_HOTS_TRACED}
        if self.shipped.profile.image:
            return image_probes(model.input_shape, **most)
        if not is_linear(model):
            # What max-pooling makes of a NaN differs between correct runtimes.
            return probes(model.input_shape, centre, spread, nan_row=False, **most)
        weight = self.shipped.unrounded.linear.weight.double()
        steepness = float((weight - weight.mean(0)).norm(dim=1).max())
        shift = model.preprocessing.fold(model.linear).shift
        return probes(
            model.input_shape, centre, spread,
            origin=0.0 if shift is None else shift.numpy(),
            huge=STEEP / max(steepness, STEEP / MOST_HUGE),
        )  # fmt: skip

    def _as_fed(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Inputs (n, *input_shape) as the file takes them."""
        if self.shipped.profile.image:
            return x.astype(np.uint8)
        return x.reshape(len(x), -1) if is_linear(self.model) else x

    def _as_given(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """The inverse."""
        return x.astype(np.float32).reshape(len(x), *self.model.input_shape)

    def _compare(
        self, session: onnxruntime.InferenceSession, probe: Probe, found: _Found
    ) -> tuple[NDArray[np.floating], Outputs] | None:
        """One batch through both sides; the live model's log-probabilities and the outputs."""
        found.rows += len(probe.x)
        names = [output.name for output in session.get_outputs()]
        try:
            answered = session.run(names, {INPUT: self._as_fed(probe.x)})
        except Exception as error:  # as above
            found.shape_faults.append(f"{probe.name}: {first_line(error)}")
            return None
        outputs = dict(zip(names, answered, strict=True))
        with torch.no_grad():
            live = self.model(torch.from_numpy(probe.x)).numpy()
        for name, output in outputs.items():
            shape, dtype = (live.shape[:1], np.int64) if name == LABEL else (live.shape, np.float32)
            if output.shape != shape or output.dtype != dtype:
                found.shape_faults.append(
                    f"{probe.name}: {name} is {output.dtype} {output.shape}, not {shape}"
                )
                return None
        with np.errstate(invalid="ignore", over="ignore"):
            self._compare_values(probe, live, outputs, found)
        return live, outputs

    def _compare_values(
        self, probe: Probe, live: NDArray[np.floating], outputs: Outputs, found: _Found
    ) -> None:
        where = probe.name
        expected = self.reference.expected(probe.x)
        truth, tolerance, live_tolerance, _ = expected
        same = np.array_equal(np.isnan(live), np.isnan(truth))
        if not (same and np.array_equal(np.isfinite(live), np.isfinite(truth))):
            found.value_faults.append(f"{where}: the live model is not finite where the answer is")
            return
        judgement = judge(expected, outputs, threshold=self.model.threshold)
        if judgement.faults:
            found.value_faults.append(f"{where}: {judgement.faults[0]}")
            return
        whole = np.isfinite(truth).all(1)
        if not whole.any():
            if where == RANDOM:
                found.value_faults.append(f"{where}: the model itself answers no row with numbers")
            return
        for name, ratio in judgement.ratios.items():
            found.worst[AGAINST[name]].meet(ratio, where)
        truth, tolerance, live_tolerance = truth[whole], tolerance[whole], live_tolerance[whole]
        live = live[whole]
        found.worst[LIVE_ITSELF].meet(worst(live - truth, live_tolerance), where)
        if LOG_PROBS in outputs:
            error = outputs[LOG_PROBS][whole].astype(np.float64) - live
            found.worst[LIVE].meet(worst(error, tolerance + live_tolerance), where)
        told = log_probs_of(outputs)
        if where in ORDINARY and told is not None:
            error = np.abs(told[whole] - truth)
            # A probability that underflowed tells nothing of its logarithm.
            found.max_error = max(found.max_error, float(error[np.isfinite(error)].max(initial=0)))
        names = self.model.class_names
        for change in judgement.changed:
            pair = names[change.right], _name(names, change.chosen)
            row = probe.first + change.row
            found.flips.append(Flip(where, row, *pair, change.margin, change.tolerance))

    def _compare_data(self, session: onnxruntime.InferenceSession, found: _Found) -> Task | None:
        """Your rows, and accuracy and NLL of both sides where they have labels."""
        if self.x is None:
            return None
        tallies = _Score(), _Score()
        for block in Probe(YOUR_DATA, self.x).blocks(self._width):
            sides = self._compare(session, block, found)
            if sides is None or self.y is None:
                continue
            labels = self.y[block.first : block.first + len(block.x)]
            live, outputs = sides
            tallies[0].add(live, self._decided(live), labels)
            told = log_probs_of(outputs)
            chosen = outputs[LABEL] if LABEL in outputs or told is None else self._decided(told)
            tallies[1].add(told, chosen, labels)
        if self.y is None or found.shape_faults:
            return None
        model, file = tallies
        return Task(len(self.y), model.accuracy, file.accuracy, model.nll, file.nll)

    def _decided(self, log_probs: NDArray[np.floating]) -> NDArray[np.int64]:
        decided: NDArray[np.int64] = self.model.decide(torch.from_numpy(log_probs)).numpy()
        return decided

    def _rounding(self) -> Rounding | None:
        """What rounding the weights costs, on your labelled rows."""
        if self.shipped.weight is None or self.x is None or self.y is None:
            return None
        before, after, flips = _Score(), _Score(), []
        names = self.model.class_names
        for block in Probe(YOUR_DATA, self.x).blocks(self._width):
            labels = self.y[block.first : block.first + len(block.x)]
            x = torch.from_numpy(block.x)
            with torch.no_grad():
                exact = self.shipped.unrounded(x).double().numpy()
                coarse = self.model(x).double().numpy()
            chosen, moved = self._decided(exact), self._decided(coarse)
            before.add(exact, chosen, labels)
            after.add(coarse, moved, labels)
            for row in np.flatnonzero(chosen != moved):
                k, j = chosen[row], moved[row]
                margin = float(exact[row, k] - exact[row, j])
                flips.append(Flip(YOUR_DATA, block.first + int(row), names[k], names[j], margin, 0))
        return Rounding(
            len(self.y), before.accuracy, after.accuracy, before.nll, after.nll, tuple(flips)
        )


@dataclass
class _Score:
    """Accuracy and mean negative log-likelihood of rows that arrive in parts."""

    rows: int = 0
    correct: int = 0
    nats: float = 0.0

    def add(
        self,
        log_probs: NDArray[np.floating] | None,
        chosen: NDArray[np.int64],
        labels: NDArray[np.int64],
    ) -> None:
        self.rows += len(labels)
        self.correct += int((chosen == labels).sum())
        if log_probs is None:  # a label alone
            self.nats = math.nan
        else:
            self.nats -= float(log_probs[np.arange(len(labels)), labels].sum(dtype=np.float64))

    @property
    def accuracy(self) -> float:
        return self.correct / self.rows

    @property
    def nll(self) -> float:
        return self.nats / self.rows


def _metadata(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def _range_of(metadata: dict[str, str]) -> tuple[float, float] | None:
    """The input range that a file tells."""
    try:
        told = json.loads(metadata.get(INPUT_RANGE, "null"))
        return None if told is None else (float(told[0]), float(told[1]))
    except (ValueError, TypeError, LookupError) as error:
        raise FileError(
            f"expected an input range of two numbers in the file's metadata, got "
            f"{metadata[INPUT_RANGE]!r}; export it again"
        ) from error


def _name(names: tuple[str, ...], k: int) -> str:
    return names[k] if 0 <= k < len(names) else f"no class ({k})"


def _own_data(
    shipped: Shipped, data: Data | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Inputs as the shipped model takes them, and labels."""
    model, profile = shipped.model, shipped.profile
    given_x, given_y = data if isinstance(data, tuple) else (data, None)
    if profile.weights is not None and given_y is None:
        raise InputError(
            f"expected labelled data to judge what {profile.weights} weights cost, got none; give "
            "it with --data FILE.npz (in Python: data=(x, y)), or choose another profile"
        )
    if given_x is None:
        return None, None
    x = np.asarray(given_x, dtype=np.float32)
    wanted = math.prod(model.input_shape)
    if x.ndim < 2 or len(x) == 0 or x[0].size != wanted:
        raise InputError(
            f"expected data of shape (rows, {wanted}), got {x.shape}; it must be what the model "
            "was trained on"
        )
    x = x.reshape(len(x), *model.input_shape)
    if profile.image:  # the nearest pixels
        low, high = model.input_range or DEFAULT_RANGE
        x = np.rint(((x - low) * (BYTE / (high - low))).clip(0, BYTE)).astype(np.float32)
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


def _declared(values: Iterable[tuple[str, str, list[int]]]) -> str:
    return ", ".join(f"{name}: {dtype} {[BATCH, *shape]}" for name, dtype, shape in values)


def _same(name: str, expected: str, got: str) -> Check:
    if expected == got:
        return Check(name, True, got)
    return Check(name, False, f"expected {expected}, got {got or 'none'}")


def _none(name: str, faults: list[str], otherwise: str) -> Check:
    return Check(name, not faults, faults[0] if faults else otherwise)
