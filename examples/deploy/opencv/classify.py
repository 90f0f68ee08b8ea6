"""Classify pictures with OpenCV: python classify.py model.onnx picture.png ….

Beside model.onnx lies model.json: smx-export sidecar model.onnx. Export with --profile robust, as
OpenCV's LogSoftmax is log(softmax), -inf where a class is out of the question: no self-test passes.
"""

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def log_probs(net: Any, x: Any) -> Any:
    """Of features (rows, d), of the file's dtype."""
    net.setInput(x)
    return net.forward("log_probs")


def passes(net: Any, test: dict[str, Any]) -> bool:
    """Whether OpenCV answers, here, what the model answered when it was exported."""
    inputs = np.frombuffer(b64decode(test["inputs"]), test["dtype"]).reshape(test["shape"])
    told = test.get("probs") or test["log_probs"]  # probs where some are 0
    got = np.exp(log_probs(net, inputs)) if "probs" in test else log_probs(net, inputs)
    expected = np.frombuffer(b64decode(told), "<f4").reshape(len(inputs), -1)
    return bool((abs(got - expected).max(1) <= test["tolerance"]).all())


def features(frame: Any, about: dict[str, Any]) -> Any:
    """One row of a frame (height, width, 3), as cameras and files give it, in the model's range."""
    if len(about["input_shape"]) != 2:
        raise ValueError(f"expected a model of grey pictures, got one of {about['input_shape']}")
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    pixels = cv2.resize(grey, about["input_shape"][::-1], interpolation=cv2.INTER_AREA)
    dtype, shape = about["input"]["dtype"], about["input"]["shape"]
    low, high = (dtype != "uint8" and about["input_range"]) or (0, 255)  # profile image scales
    return (low + (high - low) / 255 * pixels.reshape(1, *shape)).astype(dtype)


def main(path: str, *pictures: str) -> None:
    """Print the class and the probability of each picture."""
    beside = Path(path).with_suffix(".json")
    try:
        about = json.loads(beside.read_text("utf-8"))
        test, rows, outputs = about["selftest"], about["input"], about["outputs"]
    except (LookupError, OSError, TypeError, ValueError) as error:
        needed = f"{beside} as smx-export sidecar {path} writes it"
        raise ValueError(f"expected {needed}, got: {error}") from error
    if "log_probs" not in outputs or "dtype" not in rows or "batch" in rows:
        raise ValueError(f"expected inputs of any batch and log_probs in {path}, got others")
    net = cv2.dnn.readNetFromONNX(path)
    if not passes(net, test):
        raise ValueError(f"expected {path} with --profile robust, got one that fails its self-test")
    for picture in pictures:
        frame = cv2.imread(picture)
        if frame is None:
            raise ValueError(f"expected a picture at {picture}, found none")
        (p,) = np.exp(log_probs(net, features(frame, about)))
        label = p.argmax() if about["threshold"] is None else int(p[1] >= about["threshold"])
        print(f"{about['class_names'][label]}\t{p[label]:.6f}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (LookupError, OSError, TypeError, ValueError, cv2.error) as error:
        sys.exit(f"classify: {error}")
