"""Test inputs, and their answers: of the parity check, of other runtimes, of the self-test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.activation import SOFTMAX
from smx_export.artifact.comparison import Expected
from smx_export.artifact.vectors import Vectors
from smx_export.contract import INPUT, LABEL, SCORES
from smx_export.graph.inference_copy import InferenceCopy, alpha_of_model, is_linear
from smx_export.graph.metadata import schema_of
from smx_export.parity.accuracy import decided
from smx_export.parity.probes import RANDOM, Probe
from smx_export.parity.probes.batches import FEW_SIZES, SIZES, batches
from smx_export.parity.probes.chosen import ROWS, answered, choose, choose_mixed
from smx_export.parity.probes.images import images, pixels_alone
from smx_export.parity.probes.kinds import kinds
from smx_export.parity.probes.margins import CROSSINGS, NAME, SUPPORT, champions, near_the_border
from smx_export.parity.probes.missing import alone, scattered
from smx_export.parity.probes.mixed import Mixed, borders, mixed
from smx_export.parity.probes.one_hots import MOST_ONE_HOTS, of_all_sizes, one_hots
from smx_export.parity.probes.ordinary import RANDOM_ROWS, extremes, ordinary
from smx_export.parity.probes.probe import Space
from smx_export.parity.probes.tables import table_rows
from smx_export.parity.reference import Reference
from smx_export.parity.user_data import UserRows

STEEP = 1e4  # nats between classes on the huge rows: far beyond where exp leaves float32, at 104
MOST_HUGE = 1e20  # multiplied by the features' own size, still float32
ROOM = 1e30  # of logits and inputs: far from where float32 ends, also where many are added
MOST_OF_TABLE = 96  # rows that its schema can make
MOST_ROWS = 4096  # of your data that other runtimes are tried on
MOST_CLASSES = 64  # that have a row of their own near the border
# A backbone's rows are expensive, and its weights not seen one by one.
SHRUNK = (1.0, 0.25, 0.06)  # rows nearer to the mean leave more classes possible
FEW, FEW_ONE_HOTS, FEW_CROSSINGS, FEW_BISECTIONS = 8, 16, 8, 20
# Where graph and weights are known to be the model's, only the runtime's arithmetic is judged.
PROVEN_ROWS, PROVEN_SIZES = 64, (1, 33)


class ParityInputs:
    """Test inputs for an inference copy, and the answers where they are kept.

    Args:
        inference: The model in the shape of a profile.
        reference: It computes the answers.
    """

    def __init__(self, inference: InferenceCopy, reference: Reference) -> None:
        self.inference = inference
        self.reference = reference

    def probes(self, *, proven: bool = False) -> Iterator[Probe]:
        """The test inputs of the parity check.

        Args:
            proven: Whether graph, initialisers and folded weights are known to be exactly those of
                the model, so that only the runtime's arithmetic is left to judge.
        """
        if self.inference.mixed:
            return self._of_several(self._mixed())
        if proven and is_linear(self.inference.model):
            return self._of_arithmetic()
        if not is_linear(self.inference.model):
            return self._of_a_backbone()
        return self._of_the_plain_model()

    def _of_the_plain_model(self) -> Iterator[Probe]:
        """Questions that look at every weight, every kind of row, and every border."""
        space, image = self._space(), self.inference.profile.image
        random = ordinary(space, RANDOM_ROWS, pixels=image, seed=0)
        yield Probe(RANDOM, random)
        yield from batches(random, SIZES, classes=self.inference.model.num_classes)
        yield from extremes(space, random[: RANDOM_ROWS // 4], self._huge())
        if image:
            yield from pixels_alone(space, MOST_ONE_HOTS)
        else:
            yield from one_hots(space, self._origin())
            yield from of_all_sizes(space, self._origin())
            yield from scattered(space, random)
            yield from alone(space, random, finite=self._nearly_zero())
        yield from kinds(space)
        yield from self._of_the_table(space)
        yield from images(space)
        if LABEL in self.inference.profile.outputs:
            winners = champions(space, *self._towards(), self._decide)
            yield from near_the_border(space, np.concatenate([winners, random]), self._decide)
        yield from self._where_support_changes(space, random, CROSSINGS)

    def _of_a_backbone(self) -> Iterator[Probe]:
        """Fewer of them; what max-pooling makes of a NaN differs between correct runtimes."""
        space, image = self._space(), self.inference.profile.image
        random = ordinary(space, RANDOM_ROWS, pixels=image, seed=0)
        yield Probe(RANDOM, random)
        yield from batches(random, FEW_SIZES, classes=self.inference.model.num_classes)
        if image:
            yield from pixels_alone(space, FEW_ONE_HOTS)
        else:
            yield from extremes(space, random[: RANDOM_ROWS // 4], 0)
            yield from one_hots(space, self._origin(), most=FEW_ONE_HOTS)
            yield from of_all_sizes(space, self._origin(), most=FEW, turns=2)
        yield from kinds(space, rows=FEW)
        yield from self._of_the_table(space, 4 * FEW)
        yield from images(space, rows=4 * FEW)
        if LABEL in self.inference.profile.outputs:
            some = random[: RANDOM_ROWS // 4]
            yield from near_the_border(
                space, some, self._decide, crossings=FEW_CROSSINGS, bisections=FEW_BISECTIONS
            )
        yield from self._where_support_changes(space, random[: RANDOM_ROWS // 4], FEW_CROSSINGS)

    def _of_the_table(self, space: Space, rows: int = MOST_OF_TABLE) -> Iterator[Probe]:
        """Rows that its schema can make, where the model has one."""
        schema = self.inference.model.schema
        if schema is not None and schema_of(self.inference.model) is not None:
            yield from table_rows(space, schema, rows=rows)

    def _of_several(self, space: Mixed) -> Iterator[Probe]:
        """Of several inputs, and of integers: borders are sought along floating-point numbers."""
        yield from mixed(space, self.inference.model.num_classes)
        if LABEL in self.inference.profile.outputs:
            yield from borders(space, self._decide, NAME)
        if alpha_of_model(self.inference.model) != SOFTMAX:
            yield from borders(space, self._support, SUPPORT)

    def _of_arithmetic(self) -> Iterator[Probe]:
        """What rounds, overflows or is missing, in a few batches."""
        space, image = self._space(), self.inference.profile.image
        random = ordinary(space, PROVEN_ROWS, pixels=image, seed=0)
        yield Probe(RANDOM, random)
        yield from batches(random, PROVEN_SIZES, classes=self.inference.model.num_classes)
        if image:
            yield from pixels_alone(space, FEW)
            yield from images(space, rows=FEW)
        else:
            yield from extremes(space, random[:FEW], self._huge())
            yield from one_hots(space, self._origin(), most=FEW_ONE_HOTS)
            yield from scattered(space, random, FEW)
        yield from self._where_support_changes(space, random, FEW_CROSSINGS)

    @cached_property
    def vectors(self) -> Vectors:
        """Self-test vectors for the file."""
        inference = self.inference

        def answer(x: NDArray[Any]) -> Any:
            with np.errstate(invalid="ignore", over="ignore"):
                return self.reference.expected(inference.given(x))

        if inference.mixed:
            space = self._mixed()
            rows = np.concatenate([self.ordinary(ROWS), space.corners()[:2]])
            vectors = choose_mixed(rows, answer, stressed=space.free)
        else:
            vectors = choose(inference.fed(self.ordinary(ROWS)), answer, self._statistics()[1])
        if SCORES in inference.profile.outputs:
            return vectors
        return replace(vectors, log_norm=None, scores=None, score_tolerance=None)

    def answered(self, vectors: Vectors) -> Vectors:
        """The same inputs with the model's answers."""
        with np.errstate(invalid="ignore", over="ignore"):
            expected = self.reference.expected(self.inference.given(vectors.x))
        if SCORES not in self.inference.profile.outputs:
            expected = expected._replace(scores=None, score_tolerance=None)
        return answered(vectors.rows, vectors.inputs, expected)

    def batches(self, own: UserRows | None) -> list[tuple[NDArray[Any], Expected]]:
        """Random rows and the first of yours, as the file takes them, with their answers."""
        given = [self.ordinary(RANDOM_ROWS)]
        given += [] if own is None else [own.x[:MOST_ROWS]]
        return [(self.inference.fed(x), self.reference.expected(x)) for x in given]

    def ordinary(self, rows: int) -> NDArray[np.floating]:
        """Random rows (n, *input_shape), as the inference copy takes them."""
        if self.inference.mixed:
            return self._mixed().ordinary(rows)
        return ordinary(self._space(), rows, pixels=self.inference.profile.image)

    def _space(self) -> Space:
        """Where the inputs lie."""
        inference = self.inference
        shape, image = inference.model.input_shape, inference.profile.image
        d = int(np.prod(shape))
        centre, spread = (np.broadcast_to(v, (d,)).astype(float) for v in self._statistics())
        largest = np.inf
        if is_linear(inference.model):
            steepest = float(inference.model.linear.weight.abs().max())
            largest = ROOM / max(steepest, float(spread.max()), 1.0)
        bounds = (0.0, 255.0) if image else inference.model.input_range
        return Space(shape, centre, spread, bounds, inference.dtype, image, largest)

    def _mixed(self) -> Mixed:
        """Where several inputs lie, or integers."""
        model = self.inference.model
        several = isinstance(model.input_shape, dict)
        ranges = (model.input_range or {}) if several else {INPUT: model.input_range}
        return Mixed.of(self.inference.inputs, ranges, several=several)

    def _origin(self) -> NDArray[np.floating]:
        """Where the features are zero to the file."""
        shift = None
        if is_linear(self.inference.model):
            shift = self.inference.model.preprocessing.fold(self.inference.model.linear).shift
        zero = np.zeros(int(np.prod(self.inference.model.input_shape)))
        return zero if shift is None else shift.numpy()

    def _huge(self) -> float:
        """By how much random rows are multiplied to take the classes ``STEEP`` apart."""
        weight = self.inference.unrounded.linear.weight.double()
        steepness = float((weight - weight.mean(0)).norm(dim=1).max())
        return STEEP / max(steepness, STEEP / MOST_HUGE)

    def _nearly_zero(self) -> NDArray[np.bool_]:
        """Features with a weight that may be rounded to zero: infinity times it is not known."""
        model = self.inference.model
        weight = model.preprocessing.fold(model.linear).weight.double().abs().numpy()
        return np.asarray(((weight > 0) & (weight < 1 / ROOM)).any(0))

    def _towards(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Some classes (n,), and directions (n, d), in deviations, in which they gain on others."""
        weight = self.inference.unrounded.linear.weight.double().numpy()
        classes = np.random.default_rng(0).permutation(len(weight))[:MOST_CLASSES]
        return classes, (weight - weight.mean(0))[classes]

    def _decide(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """The right classes (n,) of inputs (n, …)."""
        with np.errstate(invalid="ignore", over="ignore"):
            answers = [
                decided(self.inference.model, self.reference.expected(part.x).log_probs)
                for part in Probe("", x).blocks(self.inference.width)
            ]
        return np.concatenate(answers)

    def _where_support_changes(
        self, space: Space, random: NDArray[np.floating], crossings: int
    ) -> Iterator[Probe]:
        """Of a sparse activation, rows where a class is just ruled out, or just not."""
        if alpha_of_model(self.inference.model) == SOFTMAX:
            return
        away = random.reshape(len(random), -1).astype(np.float64) - space.centre
        starts = [space.shaped(space.centre + factor * away) for factor in SHRUNK]
        yield from near_the_border(
            space,
            np.concatenate(starts),
            self._support,
            name=SUPPORT,
            crossings=crossings,
            bisections=FEW_BISECTIONS,
        )

    def _support(self, x: NDArray[np.floating]) -> NDArray[np.int64]:
        """Of inputs (n, …), a number for each set of classes that are not ruled out."""
        numbers = np.random.default_rng(0).integers(0, 2**40, self.inference.model.num_classes)
        with np.errstate(invalid="ignore", over="ignore"):
            parts = Probe("", x).blocks(self.inference.width)
            possible = [self.reference.expected(part.x).log_probs > -np.inf for part in parts]
        return np.asarray(np.concatenate(possible) @ numbers, np.int64)

    def _statistics(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Where the inputs lie: mean and deviation of the features, or 0 and 1."""
        if not (is_linear(self.inference.model) or self.inference.wide):
            return np.float32(0), np.float32(1)
        statistics = self.inference.unrounded.preprocessing
        return statistics.centre.numpy(), statistics.scale.numpy()
