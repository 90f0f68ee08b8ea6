"""Is the graph of a file the one that the exporter writes of the model?

A graph is compared as terms (:mod:`smx_export.artifact.graphs`): whatever its values are called,
and whichever of the proven rewritings were made. What it holds must be what the exporter makes of
the live model now: operators, attributes, and every entry of every initialiser bit for bit, save
what sums round to (:mod:`smx_export.parity.folded`). A graph that cannot be known to be right is
refused, however it answers.

**Traced backbones.** torch's exporter writes the same graph of the same model (tried with 60 kinds
of layers), so the model is traced again. What it folds beforehand (batch norm, positions, norms of
weights) may be rounded otherwise on another machine: by ``SAFETY`` roundings of the tensor's
largest entry, and then the report says so and nobody relies on it. Another version of the exporter
may write another graph: of a file that says it is from one, and differs, only the head's outputs
are compared, and the rest may consist of :mod:`smx_export.artifact.graphs.allowed` alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import onnx
from onnx import helper

from smx_export.artifact.check import Check
from smx_export.artifact.files import metadata_of
from smx_export.artifact.graphs.allowed import refused, unknown
from smx_export.artifact.graphs.attributes import UnfitError
from smx_export.artifact.graphs.difference import first_difference
from smx_export.artifact.graphs.rewriting import RULES
from smx_export.artifact.graphs.terms import Graph, Terms, opset_of
from smx_export.contract import LINEAR, LOG_PROBS, PROVENANCE, SCORES
from smx_export.graph.inference_copy import InferenceCopy, has_own_head, is_linear, layout_of
from smx_export.graph.layout import float_tensor
from smx_export.graph.outputs import append_outputs
from smx_export.parity.folded import Rounding
from smx_lightning import InputError

NAME = "graph"
TRACERS = ("torch", "onnxscript")
EXPORT_AGAIN = "export it again"


@dataclass(frozen=True)
class Structure:
    """What is known of a file's graph before anything is run.

    Attributes:
        check: Whether the graph is the model's.
        exact: Whether operators and all weights are those that the exporter makes of the model:
            then only the arithmetic of a runtime is left to be judged.
        harmless: Whether it consists of operators that a file may be run with.
    """

    check: Check
    exact: bool
    harmless: bool


def structure(
    inference: InferenceCopy, written: Callable[[], onnx.ModelProto], file: onnx.ModelProto
) -> Structure:
    """Compare a file's graph with the one that the exporter writes.

    Args:
        inference: The model in the shape of the profile that the file names.
        written: Makes the exporter's graph of it; may raise InputError.
        file: As it was read.
    """
    plain = is_linear(inference.model)
    harmless = not unknown(file)
    try:
        found = _compared(inference, written(), file)
    except InputError:  # the model can no longer be traced
        found = _Compared("expected a graph that torch's exporter still writes, got none")
    if not found.difference:
        return Structure(Check(NAME, True, found.words(plain=plain)), found.exact, harmless=True)
    if plain or _traced_by(file) == _tracers():
        named = f" (profile {inference.profile.name})"
        detail = f"{found.difference}{named}; {EXPORT_AGAIN}"
        return Structure(Check(NAME, False, detail), exact=False, harmless=harmless)
    foreign = refused(file)
    wrong = f"expected operators that are allowed, got {foreign}" if foreign else ""
    wrong = wrong or _tail(inference, file)
    one, two = (_in_words(of) for of in (_traced_by(file), _tracers()))
    seen = f"operators that are allowed; {one} traced it, and {two} would write another graph"
    detail = f"{wrong}; {EXPORT_AGAIN}" if wrong else seen
    return Structure(Check(NAME, not wrong, detail), exact=False, harmless=harmless)


@dataclass(frozen=True)
class _Compared:
    """A difference in words, empty where there is none; what is rounded or written otherwise."""

    difference: str
    rewritten: tuple[str, ...] = ()
    rounded: bool = False
    loose: bool = False

    @property
    def exact(self) -> bool:
        return not self.difference and not self.loose

    def words(self, *, plain: bool) -> str:
        form = "as written" if plain else "as torch's exporter writes it"
        if self.rewritten:
            form += f", but for {', '.join(self.rewritten)}"
        weights = "weights bit for bit"
        if self.loose:
            weights = "weights within rounding"
        elif self.rounded:
            weights = "weights bit for bit, what is summed within rounding"
        return f"{form}; {weights}"


def _compared(
    inference: InferenceCopy, expected: onnx.ModelProto, file: onnx.ModelProto
) -> _Compared:
    terms, rounding = Terms(RULES), Rounding(inference)
    try:
        right, got = terms.read(expected), terms.read(file)
    except UnfitError as unfit:
        return _Compared(f"expected a graph of the exporter's, got {unfit}")
    if (file.graph.name == LINEAR) != (expected.graph.name == LINEAR):
        # By this name a runtime knows whether NaN in means NaN out.
        return _Compared(f"expected a graph named {expected.graph.name!r}, got another name")
    difference, tolerated = first_difference(terms, right, got, rounding.allows)
    return _Compared(
        difference, tuple(_rewritten(expected, right, file, got)), tolerated, rounding.loose
    )


def _rewritten(
    expected: onnx.ModelProto, right: Graph, file: onnx.ModelProto, got: Graph
) -> list[str]:
    """What was written in another way, in words."""
    words = sorted(got.rules - right.rules)
    if opset_of(file) != opset_of(expected):
        words.append(f"opset {opset_of(file)}")
    one, two = (
        [(n.op_type, [*n.input], [*n.output]) for n in proto.graph.node]
        for proto in (expected, file)
    )
    return words or (["names and order"] if one != two else [])


def _tail(inference: InferenceCopy, file: onnx.ModelProto) -> str:
    """What follows the scores, where it is not what the exporter writes; the rest is not seen."""
    model, opset = inference.model, opset_of(file)
    start = SCORES if has_own_head(model) else LOG_PROBS
    given = float_tensor(start, [model.num_classes])
    expected = helper.make_model(
        helper.make_graph([], "", [given], []), opset_imports=[helper.make_opsetid("", opset)]
    )
    if start == LOG_PROBS:  # by its maker a head that is not ours is known
        made = helper.make_node("LogSoftmax", [start], [LOG_PROBS])
        expected.graph.node.append(made)
        expected.graph.input[0].name = made.input[0] = "foreign"
    append_outputs(expected, model.num_classes, layout_of(inference))
    terms = Terms(RULES)
    try:
        right, got = (terms.read(graph, given=start) for graph in (expected, file))
    except UnfitError as unfit:
        return f"expected a graph of the exporter's, got {unfit}"
    return first_difference(terms, right, got, Rounding(inference).allows)[0]


def _tracers() -> dict[str, str]:
    return {name: version(name) for name in TRACERS}


def _traced_by(file: onnx.ModelProto) -> dict[str, str]:
    """The versions of the exporter that a file names; ours where it names none."""
    try:
        packages = json.loads(metadata_of(file)[PROVENANCE])["packages"]
        named = {name: str(packages[name]) for name in TRACERS if name in packages}
    except (KeyError, TypeError, ValueError, RecursionError):
        named = {}
    return _tracers() | named


def _in_words(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {value[:20]!a}" for name, value in versions.items())
