"""Graphs as terms: what a file computes, whatever it calls its values and in whatever order.

A term is an operator applied to terms: ``Softmax(Gemm(input, weight, bias))``. Equal terms are one,
so that two graphs are the same exactly where their outputs are. Attributes are filled in, and which
other ways of writing a term are the same says :mod:`smx_export.artifact.graphs.rewriting`. No
torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from smx_export.artifact.files import parts
from smx_export.artifact.graphs.attributes import (
    FIRST_OPSET,
    LAST_OPSET,
    Attributes,
    UnfitError,
    array_of,
    attributes_of,
)

ALIAS = "ai.onnx"  # another name of ONNX's own domain, which is ""
CONSTANT, GIVEN, ABSENT = "an initialiser", "an input", "nothing"


class Term(NamedTuple):
    """An operator, its inputs as numbers of terms, its attributes, and which output is meant."""

    op: str
    inputs: tuple[int, ...]
    attributes: tuple[tuple[str, Any], ...]
    output: int


class Graph(NamedTuple):
    """A graph in terms.

    Attributes:
        outputs: The terms of the graph's outputs by name.
        unused: Nodes and initialisers that no output needs.
        rules: What was written in another way than the terms say, in words.
    """

    outputs: dict[str, int]
    unused: tuple[str, ...]
    rules: frozenset[str]


Rule = Callable[["Terms", str, Sequence[int], Attributes], int | None]


@dataclass
class Terms:
    """All terms of some graphs, each once.

    Attributes:
        rules: Tried in turn on each term that is made; the first that answers a term has its way.
        known: The number of each term.
        terms: By number.
        arrays: Values of the initialisers among them.
        names: What they were first called.
        used: Words of the rules that had their way.
    """

    rules: tuple[tuple[str, Rule], ...]
    known: dict[Any, int] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    arrays: dict[int, NDArray[Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def make(self, op: str, inputs: Sequence[int], attributes: Attributes) -> int:
        """An operator's first output, as simply as the rules write it."""
        for words, rule in self.rules:
            simpler = rule(self, op, inputs, attributes)
            if simpler is not None:
                self.used.add(words)
                return simpler
        return self.intern(op, inputs, attributes)

    def intern(
        self, op: str, inputs: Sequence[int] = (), attributes: Attributes | None = None, of: int = 0
    ) -> int:
        """The number of a term as it stands."""
        term = Term(op, tuple(inputs), tuple(sorted((attributes or {}).items())), of)
        return self._number(term, term)

    def constant(self, array: NDArray[Any], name: str = "") -> int:
        """The number of an array; its bytes decide, so that NaN is NaN and -0 is not 0."""
        content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
        key = CONSTANT, array.dtype, array.shape, sha256(content).digest()
        number = self._number(key, Term(CONSTANT, (), (), 0))
        self.arrays.setdefault(number, array)
        self.names.setdefault(number, name)
        return number

    def _number(self, key: Any, term: Term) -> int:
        if key not in self.known:
            self.known[key] = len(self.terms)
            self.terms.append(term)
        return self.known[key]

    def read(self, model: onnx.ModelProto, *, given: str | None = None) -> Graph:
        """A model's graph in terms.

        Args:
            model: As :func:`smx_export.artifact.files.parse` read it.
            given: A value in the middle of the graph to be taken for an input.

        Raises:
            UnfitError: Where it has what no graph of the exporter's has.
        """
        opset = opset_of(model)
        self.used = set()
        values = {"": self.intern(ABSENT)}
        for value in model.graph.input:
            values[value.name] = self.intern(GIVEN, (), {"name": value.name})
        for tensor in model.graph.initializer:
            if tensor.name in values:
                raise UnfitError(f"{tensor.name!r} twice")
            values[tensor.name] = self.constant(array_of(tensor), tensor.name)
        for node in model.graph.node:
            made = self._node(node, opset, values)
            for name, number in made.items():
                if name in values:
                    raise UnfitError(f"{name!r} twice")
                named = name == given
                values[name] = self.intern(GIVEN, (), {"name": name}) if named else number
        outputs = {value.name: values[value.name] for value in model.graph.output}
        return Graph(outputs, tuple(_unused(model)), frozenset(self.used))

    def _node(self, node: NodeProto, opset: int, values: dict[str, int]) -> dict[str, int]:
        """The terms of a node's outputs."""
        attributes = attributes_of(node, opset)
        names = [*node.input]
        while names and not names[-1]:
            names.pop()
        inputs = [values[name] for name in [*names, *captured(node)]]
        outputs = [*node.output]
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        if len(outputs) == 1:
            return {outputs[0]: self.make(node.op_type, inputs, attributes)}
        attributes["outputs"] = len(outputs)
        return {
            name: self.intern(node.op_type, inputs, attributes, i)
            for i, name in enumerate(outputs)
            if name
        }


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's operators that a model uses.

    Raises:
        UnfitError: Where it uses others besides, or has what the exporter never writes.
    """
    graph = model.graph
    for what, there in (
        ("local functions", model.functions),
        ("a graph for training", model.training_info),
        ("sparse initialisers", graph.sparse_initializer),
        ("annotations for quantisation", graph.quantization_annotation),
        ("device configurations", getattr(model, "configuration", ())),
    ):
        if there:
            raise UnfitError(what)
    foreign = [node for node in parts(graph, NodeProto) if node.domain]
    if foreign:
        raise UnfitError(f"{foreign[0].op_type!r} of domain {foreign[0].domain!r}")
    if any(getattr(node, "overload", "") for node in parts(graph, NodeProto)):
        raise UnfitError("an overloaded function")
    # Of two versions under both names onnxruntime takes the one that comes last.
    imports = Counter(e.domain if e.domain != ALIAS else "" for e in model.opset_import)
    versions = [entry.version for entry in model.opset_import if entry.domain == ""]
    if max(imports.values()) > 1 or len(versions) != 1:
        raise UnfitError("operators of no version, or of several")
    if not FIRST_OPSET <= versions[0] <= LAST_OPSET:
        raise UnfitError(f"opset {versions[0]}, which is none of {FIRST_OPSET} to {LAST_OPSET}")
    return int(versions[0])


def captured(node: NodeProto) -> list[str]:
    """The values that a node's subgraphs take from around it, in order of their names."""
    read, made = set[str](), {""}
    for attribute in node.attribute:
        for graph in parts(attribute, GraphProto):
            made.update(value.name for value in (*graph.input, *graph.initializer))
            read.update(value.name for value in graph.output)
            for inner in graph.node:
                read.update(inner.input)
                made.update(inner.output)
    return sorted(read - made)


def _unused(model: onnx.ModelProto) -> Iterator[str]:
    """Nodes and initialisers that no output of the graph needs."""
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        if needed.isdisjoint(node.output):
            yield node.op_type
        else:
            needed.update([*node.input, *captured(node)])
    yield from (tensor.name for tensor in model.graph.initializer if tensor.name not in needed)
