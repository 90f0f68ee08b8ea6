"""Classify rows with numpy alone: python classify.py model.onnx x.npy, or a table, rows.csv.

A file that computes more than a linear layer, or was changed, fails the self-test that it carries.
"""

import json
import sys
from io import BytesIO
from typing import Any

import numpy as np
from activation import inputs, log_probs, passes
from table import rows


def varint(stream: BytesIO) -> int:
    """An integer, seven bits a byte and the lowest first; only its last byte is below 128."""
    (byte,) = stream.read(1)
    return byte if byte < 128 else byte - 128 + (varint(stream) << 7)


def fields(message: bytes) -> Any:
    """The (number, value) pairs of a protocol buffer; the numbers are those of onnx.proto."""
    stream = BytesIO(message)
    while stream.tell() < len(message):
        number, kind = divmod(varint(stream), 8)
        value = varint(stream) if kind in (0, 2) else {1: 8, 5: 4}[kind]
        yield number, stream.read(value) if kind else value


def scores(arrays: dict[bytes, Any], x: Any) -> Any:
    """Of the linear layer, (rows, classes) float32."""
    x = np.float32(x - arrays.get(b"shift", 0))  # of a file of float64 inputs, in float64
    return x @ arrays[b"weight"].reshape(-1, x.shape[1]).T + arrays[b"bias"]


np.seterr(all="ignore")  # what overflows has no answer, and that is said in one sentence
try:
    model = list(fields(np.fromfile(sys.argv[1], "u1").tobytes()))
    tensors = [dict(fields(part)) for number, part in fields(dict(model)[7]) if number == 5]
    arrays = {t[8]: np.frombuffer(t[9], "<f4" if t[2] == 1 else "<f8") for t in tensors}  # 1: float
    texts = {e[1]: e[2] for e in [dict(fields(part)) for number, part in model if number == 14]}
    names, test = json.loads(texts[b"class_names"]), json.loads(texts[b"selftest"])
    threshold = json.loads(texts.get(b"threshold", "null"))  # of two classes
    if not {b"weight", b"bias"} <= arrays.keys():
        raise ValueError("a graph that is more than one linear layer of float32 numbers")
    low, high = json.loads(texts.get(b"input_range", "null")) or (-np.inf, np.inf)  # in training
    low, high = (0, 255) if test["dtype"] == "uint8" else (low, high)
    far = (high - low) * (0.5 if len(json.loads(texts[b"input_shape"])) > 1 else 4)
    width = arrays[b"weight"].size // arrays[b"bias"].size
    vectors = inputs(test, width)
    activation = json.loads(texts.get(b"activation", '"softmax"'))
    if not passes(log_probs(scores(arrays, vectors), activation), test):
        raise ValueError("a file that fails its self-test")
    table = sys.argv[2].endswith(".csv")
    x = rows(sys.argv[2], texts) if table else np.load(sys.argv[2])
    if vectors.dtype == "f8" and x.dtype in ("f4", "f2"):
        raise ValueError(f"{x.dtype} rows, which have lost digits of float64")
    x_scores = scores(arrays, x.reshape(len(x), width).astype(vectors.dtype))
    probs = np.exp(log_probs(x_scores, activation))
    if np.isnan(probs).any():
        raise ValueError(f"NaN or overflow in row {np.isnan(probs).any(1).argmax()}")
except (ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError) as e:
    sys.exit(f"expected a model of smx-export and rows that fit it, got: {e}")
if ((x < low - far) | (x > high + far)).any():
    said = f"trained on {low:g} to {high:g}, got {x.min():g} to {x.max():g}; check the scale"
    print(f"warning: {said}", file=sys.stderr)
for p in probs:
    label = p.argmax() if threshold is None else int(p[1] >= threshold)
    print(f"{names[label]}\t{p[label]:.6f}")
