"""Other ways of writing the same term: what optimisers, converters and earlier exporters make.

Each rule is an equality. Those that hold in exact arithmetic alone change roundings, never a
weight: they are marked, and a file that needs one still has to answer within the tolerance.

=============================== ==================================================================
what a file may have             what it is taken for
=============================== ==================================================================
``Identity(x)``                  x; so is Dropout in eval mode, and a batch norm of ones and zeros
``Constant()``                   an initialiser
``Cast(constant)``               the constant in that type, where it loses nothing
``Gemm(x, W, b)``                ``Gemm(x, Wᵀ, b, transB=1)``, of a constant W
``Add(MatMul(x, W), b)``         ``Gemm(x, Wᵀ, b, transB=1)``, of constants W, b (rounding)
``Exp(LogSoftmax(x))``           ``Softmax(x)`` (rounding; traced files of 0.1 had it)
``Add(c, x)``, ``Mul(c, x)``     ``Add(x, c)``, ``Mul(x, c)``, of a constant c
``ReduceMax(x, axes=a)``         ``ReduceMax(x, a)``, as from opset 18 on; so does Squeeze (13)
=============================== ==================================================================

What onnxruntime's optimiser makes of the exporter's own graphs at every level, and onnx's version
converter at every opset, is written so (tests/smx_export/artifact/graphs/test_rewriting.py). No
torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper

from smx_export.artifact.graphs.attributes import Attributes
from smx_export.artifact.graphs.terms import Rule, Terms

Inputs = Sequence[int]
INT, INTS, FLOAT = AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT
ONE, ZERO = (np.float32(value).tobytes() for value in (1, 0))
AXES_AS_INPUT = {"ReduceMax", "ReduceMean", "ReduceSum", "ReduceMin", "Squeeze", "Unsqueeze"}


def identity(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """What hands its input on."""
    if op == "Identity":
        return inputs[0]
    if op == "Dropout":
        off = len(inputs) < 3 or _all(terms, inputs[2], False)
        return inputs[0] if off else None
    if op == "BatchNormalization":
        neutral = zip(inputs[1:], (1, 0, 0, 1), strict=False)
        exact = attributes["epsilon"] == (FLOAT, ZERO)
        eval_mode = attributes.get("training_mode", (INT, 0)) == (INT, 0)
        if exact and eval_mode and all(_all(terms, of, value) for of, value in neutral):
            return inputs[0]
    return None


def constant(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """A constant that a node makes."""
    if op == "Constant" and len(attributes) == 1:
        ((name, (_, content)),) = attributes.items()
        if name == "value":
            dtype, shape, data = content
            if dtype != "object":
                return terms.constant(np.frombuffer(data, np.dtype(dtype)).reshape(shape))
        if name in ("value_int", "value_ints"):
            return terms.constant(np.array(content, np.int64))
        if name in ("value_float", "value_floats"):
            values = np.frombuffer(content, np.float32)
            return terms.constant(values if name.endswith("s") else values.reshape(()))
    return None


def cast(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """A constant in a wider type."""
    if op != "Cast" or (array := terms.arrays.get(inputs[0])) is None:
        return None
    _, to = attributes["to"]
    if to not in TensorProto.DataType.values():
        return None
    dtype = helper.tensor_dtype_to_np_dtype(to)
    if array.dtype.kind not in "iuf" or dtype.kind not in "iuf":
        return None
    return terms.constant(array.astype(dtype)) if np.can_cast(array.dtype, dtype) else None


def transposed(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """Weights that are stored the other way around."""
    if op != "Gemm" or attributes["transB"] != (INT, 0):
        return None
    weight = _matrix(terms, inputs[1])
    if weight is None:
        return None
    turned = terms.constant(np.ascontiguousarray(weight.T), terms.names.get(inputs[1], ""))
    return terms.make(op, [inputs[0], turned, *inputs[2:]], attributes | {"transB": (INT, 1)})


def gemm(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """A matrix product and a bias in two steps."""
    if op != "Add":
        return None
    for product, bias in (inputs, inputs[::-1]):
        made, array = terms.terms[product], terms.arrays.get(bias)
        if made.op != "MatMul" or array is None or array.ndim != 1:
            continue
        weight = _matrix(terms, made.inputs[1])
        if weight is not None and len(array) == weight.shape[1]:
            plain = {"alpha": (FLOAT, ONE), "beta": (FLOAT, ONE), "transA": (INT, 0)}
            return terms.make("Gemm", [*made.inputs, bias], {**plain, "transB": (INT, 0)})
    return None


def softmax(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """Probabilities out of their logarithms."""
    if op == "Exp" and (inner := terms.terms[inputs[0]]).op == "LogSoftmax":
        return terms.make("Softmax", inner.inputs, dict(inner.attributes))
    return None


def operands(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """A constant in front of what it is added to or multiplied with."""
    if op in ("Add", "Mul") and inputs[0] in terms.arrays and inputs[1] not in terms.arrays:
        return terms.make(op, inputs[::-1], attributes)
    return None


def axes(terms: Terms, op: str, inputs: Inputs, attributes: Attributes) -> int | None:
    """Axes as an attribute: where they became an input, they mean the same."""
    if op not in AXES_AS_INPUT or "axes" not in attributes or len(inputs) > 1:
        return None
    rest = {name: value for name, value in attributes.items() if name != "axes"}
    given = terms.constant(np.array(attributes["axes"][1], np.int64), "axes")
    return terms.make(op, [*inputs, given], rest)


RULES: tuple[tuple[str, Rule], ...] = (
    ("identities left out", identity),
    ("constants folded", constant),
    ("constants folded", cast),
    ("weights transposed", transposed),
    ("Gemm as MatMul and Add", gemm),
    ("Softmax as Exp of LogSoftmax", softmax),
    ("operands swapped", operands),
    ("axes of another opset", axes),
)


def _all(terms: Terms, number: int, value: float) -> bool:
    """Whether a term is a constant of nothing but a value."""
    array: NDArray[np.generic] | None = terms.arrays.get(number)
    return array is not None and array.dtype.kind in "bf" and bool((array == value).all())


def _matrix(terms: Terms, number: int) -> NDArray[np.generic] | None:
    array = terms.arrays.get(number)
    return array if array is not None and array.ndim == 2 else None
