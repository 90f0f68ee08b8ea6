"""model.onnx and the model.json beside it → model.c and model.h: python generate.py model.onnx.

model.c is the work of emx-onnx-cgen, without heap or files; model.h holds names and self-test.
"""

import json
import string
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from emx_onnx_cgen.compiler import Compiler, CompilerOptions


def literal(value: Any) -> str:
    """Numbers, texts and lists of them in C; float32 to the last bit."""
    if isinstance(value, str):
        plain = string.ascii_letters + string.digits + " "
        escaped = (chr(b) if chr(b) in plain else f"\\{b:03o}" for b in value.encode())
        return f'"{"".join(escaped)}"'
    if isinstance(value, float):
        return f"{value:.9e}f"
    return "{" + ", ".join(map(literal, value)) + "}"


try:
    path = Path(sys.argv[1])
    proto, about = onnx.load(path), json.loads(path.with_suffix(".json").read_text("utf-8"))
except (IndexError, OSError, ValueError) as error:
    sys.exit(f"expected model.onnx and model.json of smx-export convert --sidecar, got: {error}")
several = isinstance(about["input"], list)
if several or about["input"]["dtype"] != "float32" or about["outputs"] != ["log_probs", "probs"]:
    sys.exit(f"expected float32 inputs, log_probs and probs in {path}, got another profile's file")
del proto.metadata_props[:]  # they would go into a comment, which */ in a class name would end
for tensor in [*proto.graph.input, *proto.graph.output]:
    tensor.type.tensor_type.shape.dim[0].dim_value = 1  # of a named batch it would reduce one row
options = CompilerOptions(large_temp_threshold_bytes=0, large_weight_threshold=0)
Path("model.c").write_text(Compiler(options).compile(proto), encoding="utf-8")

test, names = about["selftest"], about["class_names"]
vectors, classes = len(test["tolerance"]), len(names)
inputs = np.frombuffer(b64decode(test["inputs"]), "<f4").reshape(vectors, -1)
sparse = "probs" in test  # in place of log_probs, as some are 0
answers = np.frombuffer(b64decode(test["probs" if sparse else "log_probs"]), "<f4")
answers = answers.reshape(vectors, -1)
low, high = about["input_range"] or (-3e38, 3e38)  # in training
far = (high - low) * (0.5 if len(about["input_shape"]) > 1 else 4)
least, most = max(low - far, -3e38), min(high + far, 3e38)
dims = "".join(f"[{side}]" for side in about["input"]["shape"])
Path("model.h").write_text(
    f"""/* Of {path.name}, by generate.py. */
enum {{ FEATURES = {inputs.shape[1]}, CLASSES = {classes} }};
enum {{ VECTORS = {vectors}, SPARSE = {int(sparse)} }};
static const float threshold = {literal(float(about["threshold"] or 0))}; /* of class 1; 0: none */
static const float least = {literal(float(least))}, most = {literal(float(most))}; /* of x */
static const char *const class_names[CLASSES] = {literal(names)};
static const float test_inputs[VECTORS][FEATURES] = {literal(inputs.tolist())};
static const float test_answers[VECTORS][CLASSES] = {literal(answers.tolist())};
static const float test_tolerance[VECTORS] = {literal(test["tolerance"])};
void model(const float input[1]{dims}, float log_probs[1][CLASSES], float probs[1][CLASSES]);
""",
    encoding="utf-8",
)
