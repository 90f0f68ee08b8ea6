"""With numpy alone: python classify.py model.onnx x.npy prints each row's class and probability.

Of the file, a protocol buffer (see onnx.proto), only weights and metadata are read; one that was
changed, or computes more than a linear layer, fails the self-test that it carries.
"""

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {1: "<f4", 3: "i1", 10: "<f2", "bfloat16": "<u2", "float32": "<f4", "uint8": "u1"}


def fields(data: bytes) -> list[tuple[int, Any]]:
    """The (number, value) pairs of a message."""
    pairs, at = [], 0
    while at < len(data):
        numbers = []  # the key, then a value or a size: base 128, lowest digit first
        while len(numbers) < (2 if not numbers or numbers[0] & 7 in (0, 2) else 1):
            end = next(i for i in range(at, len(data)) if data[i] < 128) + 1
            numbers.append(sum((data[i] & 127) << 7 * (i - at) for i in range(at, end)))
            at = end
        ...
    return pairs
