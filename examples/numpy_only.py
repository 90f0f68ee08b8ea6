"""Inference from the ONNX file with numpy and nothing else: python numpy_only.py FILE.onnx X.npy.

An ONNX file is a protocol buffer, and an exported softmax regression holds two or three arrays, so
even the parser fits here. Field numbers are those of onnx.proto.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 integer, and where it ends."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The (number, value) pairs of one protocol buffer message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, value
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind)
            if size is None:
                size, at = varint(data, at)
            yield number, data[at : at + size]
            at += size


def read(path: str) -> tuple[dict[str, Any], list[str]]:
    """The arrays of a model by name, and its class names."""
    model = list(fields(Path(path).read_bytes()))
    (graph,) = (value for number, value in model if number == 7)
    arrays = {}
    for tensor in (dict(fields(value)) for number, value in fields(graph) if number == 5):
        arrays[tensor[8].decode()] = np.frombuffer(tensor[9], "<f4")
    metadata = [dict(fields(value)) for number, value in model if number == 14]
    (names,) = (entry[2] for entry in metadata if entry[1] == b"class_names")
    return arrays, json.loads(names)


def main(path: str, inputs: str) -> None:
    """Print the class name and probability of each row."""
    arrays, names = read(path)
    x = np.load(inputs).astype(np.float32)
    x = x.reshape(len(x), -1) - arrays.get("shift", np.float32(0))
    logits = x @ arrays["weight"].reshape(len(names), -1).T + arrays["bias"]
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    for p in probs:
        print(f"{names[p.argmax()]} {p.max():.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
