"""The parity gate under every profile: whatever is done to a correct file, it must not pass."""

import json

import numpy as np
import onnx
import profiled
import pytest
from onnx import TensorProto, helper, numpy_helper

from smx_export import check_parity, export_onnx
from smx_export.contract import ALL_OUTPUTS

VALUES, PROBS, SCORES = (f"{output} against float64" for output in ("log_probs", "probs", "scores"))
NOT_FINITE, ARGMAX, SHAPES = "NaN and infinity", "argmax", "shapes for every batch"
INPUT, OUTPUTS, LOADS = "input", "outputs", "onnxruntime loads it"
EVERY = tuple(profiled.PROFILES)
FLOAT32 = ("portable", "robust", "image", "robust image")
ROBUST = ("robust", "robust image", "int8 image robust")
INT8 = ("int8", "int8 image robust")
IMAGE = ("image", "robust image", "int8 image robust")
THRESHOLD = "threshold"  # a model of two classes

CASES = []


def seen_by(check, *names):
    """Put a corruption into the table: the check that must fail, and whose files it spoils."""

    def register(corrupt):
        CASES.extend(
            pytest.param(corrupt, name, check, id=f"{corrupt.__name__.replace('_', ' ')} ({name})")
            for name in names
        )
        return corrupt

    return register


# What the corruptions are made of ------------------------------------------------------------


def node(proto, key):
    """The node that computes a tensor, or the first of that operator."""
    return next(n for n in proto.graph.node if key in n.output or key == n.op_type)


def change(proto, name, by):
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(by(values.copy()), values.dtype), name))


def weights(proto):
    return "stored" if any(t.name == "stored" for t in proto.graph.initializer) else "weight"


def entry(where, by):
    def changed(values):
        values[where] = by(values[where])
        return values

    return changed


def attribute(proto, key, **values):
    kept = [a for a in node(proto, key).attribute if a.name not in values]
    del node(proto, key).attribute[:]
    node(proto, key).attribute.extend([*kept, *map(helper.make_attribute, values, values.values())])


def skip(proto, key):
    """Leave a node out: what read its output reads its first input."""
    gone = node(proto, key)
    proto.graph.node.remove(gone)
    for reader in proto.graph.node:
        reader.input[:] = [gone.input[0] if of == gone.output[0] else of for of in reader.input]


def replace(proto, key, *new):
    """Other nodes in the place of one: (op_type, inputs, outputs, attributes)."""
    at = list(proto.graph.node).index(node(proto, key))
    nodes = [helper.make_node(*made, **attributes) for *made, attributes in new]
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*old[:at], *nodes, *old[at + 1 :]])


def after(proto, tensor, op_type, *others, **attributes):
    """One more operator between a tensor and its readers, the file's outputs included."""
    made = node(proto, tensor)
    at = list(proto.graph.node).index(made)
    made.output[0] = f"{tensor}_0"
    new = helper.make_node(op_type, [f"{tensor}_0", *others], [tensor], **attributes)
    proto.graph.node.insert(at + 1, new)


def constant(proto, values, dtype=np.float32):
    name = f"constant_{len(proto.graph.initializer)}"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


# The corruptions -----------------------------------------------------------------------------


@seen_by(VALUES, *EVERY)
def two_weight_rows_swapped(proto):
    change(proto, weights(proto), lambda w: w[[1, 0, 2]])


@seen_by(VALUES, *EVERY)
def two_features_swapped(proto):
    change(proto, weights(proto), lambda w: w[:, [1, 0, *range(2, 12)]])


@seen_by(VALUES, *FLOAT32)
def one_weight_a_thousandth_larger(proto):
    change(proto, "weight", entry((2, 3), lambda w: 1.001 * w))


@seen_by(VALUES, *INT8)
def one_weight_one_step_larger(proto):
    change(proto, "stored", entry((2, 3), lambda q: q - np.sign(q)))


@seen_by(VALUES, "float16")
def one_weight_the_next_float16(proto):
    change(proto, "stored", entry((2, 3), lambda w: np.nextafter(w, np.float16(0))))


@seen_by(VALUES, *INT8)
def one_scale_a_hundredth_larger(proto):
    change(proto, "scale", entry(5, lambda s: 1.01 * s))


@seen_by(VALUES, *INT8)
def scales_left_out(proto):
    skip(proto, "Mul")


@seen_by(VALUES, *INT8)
def scales_of_the_first_feature_alone(proto):
    change(proto, "scale", lambda s: np.full_like(s, s[0]))


@seen_by(VALUES, *INT8)
def int8_weights_read_as_bytes(proto):
    after(proto, "weight", "Abs")


@seen_by(SCORES, *EVERY)
def a_bias_for_all_classes(proto):
    """log-softmax does not see it."""
    change(proto, "bias", lambda b: b + 0.01)


@seen_by(SCORES, *EVERY)
def scores_that_are_log_probabilities(proto):
    node(proto, "Gemm").output[0] = "scores_0"
    for reader in proto.graph.node:
        reader.input[:] = ["scores_0" if of == "scores" else of for of in reader.input]
    proto.graph.node.append(helper.make_node("Identity", ["log_probs"], ["scores"]))


@seen_by(PROBS, *EVERY)
def probabilities_over_the_batch(proto):
    attribute(proto, "Softmax", axis=0)


@seen_by(VALUES, "portable", "image", *INT8[:1])
def log_probabilities_over_the_batch(proto):
    attribute(proto, "LogSoftmax", axis=0)


@seen_by(NOT_FINITE, "portable", "int8", "float16")
def log_of_the_softmax(proto):
    proto.graph.node.remove(node(proto, "LogSoftmax"))
    proto.graph.node.append(helper.make_node("Log", ["probs"], ["log_probs"]))


@seen_by(NOT_FINITE, "robust")
def robust_tail_replaced_by_the_log_of_the_softmax(proto):
    replace(proto, "log_probs", ("Log", ["probs"], ["log_probs"], {}))


@seen_by(VALUES, *ROBUST)
def robust_tail_without_the_logarithm(proto):
    replace(proto, "log_probs", ("Identity", ["below_max"], ["log_probs"], {}))


@seen_by(VALUES, *ROBUST)
def robust_tail_without_the_maximum(proto):
    replace(proto, "below_max", ("Identity", ["scores"], ["below_max"], {}))


@seen_by(VALUES, *ROBUST)
def robust_tail_with_the_signs_swapped(proto):
    node(proto, "below_max").input[:] = ["max_score", "scores"]


@seen_by(VALUES, *ROBUST)
def the_least_for_the_largest(proto):
    node(proto, "max_score").op_type = "ReduceMin"


@seen_by(VALUES, *ROBUST)
def the_largest_of_the_batch(proto):
    attribute(proto, "max_prob", axes=[0])


@seen_by(ARGMAX, *EVERY)
def the_worst_class(proto):
    node(proto, "winner").op_type = "ArgMin"


@seen_by(SHAPES, *EVERY)
def the_best_row_of_each_class(proto):
    attribute(proto, "ArgMax", axis=0)
    change(proto, "classes_axis", np.zeros_like)


@seen_by(ARGMAX, *EVERY)
def the_next_label(proto):
    after(proto, "label", "Add", constant(proto, 1, np.int64))


@seen_by(SHAPES, *EVERY)
def a_label_in_brackets(proto):
    replace(proto, "label", ("Identity", ["winner"], ["label"], {}))


@seen_by(OUTPUTS, *EVERY)
def a_label_of_another_dtype(proto):
    after(proto, "label", "Cast", to=TensorProto.INT32)
    proto.graph.output[-1].type.tensor_type.elem_type = TensorProto.INT32


@seen_by(OUTPUTS, *EVERY)
def an_output_too_few(proto):
    del proto.graph.output[2]


@seen_by(OUTPUTS, *EVERY)
def outputs_in_another_order(proto):
    first, second, *others = proto.graph.output
    new = [helper.make_empty_tensor_value_info("") for _ in range(2)]
    for copy, output in zip(new, (second, first), strict=True):
        copy.CopyFrom(output)
    del proto.graph.output[:]
    proto.graph.output.extend([*new, *others])


@seen_by(VALUES, *IMAGE)
def pixels_as_signed_bytes(proto):
    node(proto, "pixels").input[0] = "signed"
    proto.graph.node.insert(0, helper.make_node("Cast", ["input"], ["signed"], to=TensorProto.INT8))


@seen_by(VALUES, *IMAGE)
def rows_and_columns_swapped(proto):
    after(proto, "pixels", "Transpose", perm=[0, 2, 1])


@seen_by(VALUES, *IMAGE)
def pixels_from_0_to_1(proto):
    after(proto, "pixels", "Div", constant(proto, 255))


@seen_by(VALUES, *IMAGE)
def white_that_is_clipped(proto):
    after(proto, "pixels", "Min", constant(proto, 254))


@seen_by(INPUT, *IMAGE)
def an_image_of_another_shape(proto):
    height, width = proto.graph.input[0].type.tensor_type.shape.dim[1:]
    height.dim_value, width.dim_value = 4, 3


@seen_by(INPUT, *IMAGE)
def floats_for_bytes(proto):
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


@seen_by(ARGMAX, THRESHOLD)
def the_threshold_left_out(proto):
    skip(proto, "Add")


@seen_by(ARGMAX, THRESHOLD)
def another_threshold(proto):
    change(proto, "handicap", lambda h: 1.2 * h)


@seen_by(ARGMAX, THRESHOLD)
def the_threshold_for_the_other_class(proto):
    change(proto, "handicap", lambda h: h[::-1])


@seen_by(SCORES, THRESHOLD)
def scores_with_the_threshold_in_them(proto):
    after(proto, "scores", "Add", "handicap")


def told(key, value, words):
    def corrupt(proto):
        profiled.metadata(proto, key, json.dumps(value))

    corrupt.__name__ = f"{key} told to be {words}"
    return corrupt


def profile_of(name, **values):
    return json.loads(profiled.profile(name, ALL_OUTPUTS).to_json()) | values


for words, check, name in (
    ("portable", INPUT, "image"),
    ("image", INPUT, "portable"),
    ("portable", VALUES, "int8"),
    ("int8", VALUES, "float16"),
    ("float16", VALUES, "int8"),
):
    seen_by(check, name)(told("profile", profile_of(words), words))
seen_by(OUTPUTS, *EVERY)(told("profile", profile_of("portable", outputs=["label"]), "a label's"))
seen_by("input range", *EVERY)(told("input_range", [0, 2], "another"))
seen_by("threshold", THRESHOLD)(told("threshold", 0.5, "another"))


# Every corruption is seen --------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models, their files with every output and the data they were judged on, each made once."""
    folder, found = tmp_path_factory.mktemp("mutations"), {}

    def get(name):
        if name not in found:
            binary = {"classes": 2, "threshold": 0.7} if name == THRESHOLD else {}
            model = profiled.model_of(**binary)
            data = profiled.labelled(model)
            profile = profiled.profile("portable" if binary else name, ALL_OUTPUTS)
            path = folder / f"{name}.onnx"
            found[name] = model, export_onnx(model, path, profile=profile, data=data).path, data
        return found[name]

    return get


def without_seal(path, folder, corrupt):
    """A spoilt copy that neither the seal nor the answers that the file carries would show."""
    proto = onnx.load(path)
    corrupt(proto)
    for key in ("sha256", "selftest"):
        profiled.metadata(proto, key, None)
    onnx.save(proto, folder / "copy.onnx")
    return folder / "copy.onnx"


@pytest.mark.parametrize(("corrupt", "name", "check"), CASES)
def test_a_corrupted_file_does_not_pass(corrupt, name, check, exported, tmp_path):
    model, path, data = exported(name)
    report = check_parity(model, without_seal(path, tmp_path, corrupt), data)
    assert check in [found.name for found in report.failed], str(report)


@pytest.mark.parametrize("name", [*EVERY, THRESHOLD])
def test_without_a_corruption_it_passes(name, exported, tmp_path):
    model, path, data = exported(name)
    assert check_parity(model, without_seal(path, tmp_path, lambda proto: None), data).passed


@pytest.mark.parametrize("name", [*EVERY, THRESHOLD])
def test_a_single_changed_byte_breaks_the_seal(name, exported, tmp_path):
    model, path, data = exported(name)
    proto = onnx.load(path)
    proto.producer_version += "1"
    onnx.save(proto, tmp_path / "changed.onnx")
    report = check_parity(model, tmp_path / "changed.onnx", data)
    assert [check.name for check in report.failed] == ["seal"]
