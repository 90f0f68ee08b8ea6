"""The parity gate under attack: whatever is done to a correct file, it must not pass.

A corruption is a function that spoils a ``ModelProto`` in place, or answers bytes. ``seen_by`` puts
it into the table with the check that must fail and the models whose files it spoils.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from smx_export import FileError, check_parity, export_onnx
from smx_lightning import SoftmaxRegression

# Names of checks; "values" is the one that compares with the independent float64 computation.
INPUT, OUTPUTS, NAMES, LOADS = "input", "outputs", "class names", "onnxruntime loads it"
SHAPES, NOT_FINITE = "shapes for every batch", "NaN and infinity"
VALUES, PROBS, SUM = "log_probs against float64", "probs against float64", "probs sum to 1"

SQUARE, DIGITS, BACKBONE = "square standardised", "like digits", "traced backbone"
BOTH = (SQUARE, DIGITS)
MEAN = np.array([3, -50, 0.1, 700, 0, -2], np.float32)  # of the square model's features
SCALE = np.array([0.5, 20, 0.01, 30, 1, 8], np.float32)


@dataclass(frozen=True)
class Case:
    """A corruption of one model's file, and what must see it."""

    corrupt: callable
    model: str
    seen_by: str | type[Exception]

    def __str__(self):
        return f"{self.corrupt.__name__.replace('_', ' ')} ({self.model})"


CASES = []


def seen_by(check, *models):
    def register(corrupt):
        CASES.extend(Case(corrupt, model, check) for model in models or BOTH)
        return corrupt

    return register


# What the corruptions are made of ------------------------------------------------------------


def array(proto, name):
    """A copy of an initializer; its full name may be longer, as in ``model.smx.0.weight``."""
    return numpy_helper.to_array(_initializer(proto, name)).copy()


def put(proto, **arrays):
    for name, values in arrays.items():
        tensor = _initializer(proto, name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))


def change(proto, name, where, by):
    values = array(proto, name)
    values[where] = by(values[where])
    put(proto, **{name: values})


def permute(proto, name, order, axis=0):
    put(proto, **{name: array(proto, name).take(order, axis)})


def _initializer(proto, name):
    # Gemm's, where the end of a name is not enough: a backbone has weights of its own.
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    full = {"weight": gemm.input[1], "bias": gemm.input[2]}.get(name, name)
    return next(tensor for tensor in proto.graph.initializer if tensor.name == full)


def node(proto, key):
    """The node that computes a tensor, or the one of that operator."""
    return next(n for n in proto.graph.node if key in n.output or key == n.op_type)


def rebuild(proto, position, new):
    nodes = [helper.make_node(*arguments, **attributes) for *arguments, attributes in new]
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*old[:position], *nodes, *old[position:]])


def constant(proto, values, dtype=np.float32):
    name = f"constant_{len(proto.graph.initializer)}"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


def after(proto, tensor, *steps):
    """Let ``tensor`` pass through operators: steps (op_type, other inputs, attributes)."""
    producer = node(proto, tensor)
    producer.output[list(producer.output).index(tensor)] = f"{tensor}_0"
    _chain(proto, list(proto.graph.node).index(producer) + 1, f"{tensor}_0", tensor, steps)


def before(proto, tensor, *steps):
    """The same for a graph input: its readers read what comes out of the steps."""
    for reader in proto.graph.node:
        for i, name in enumerate(reader.input):
            if name == tensor:
                reader.input[i] = f"{tensor}_seen"
    _chain(proto, 0, tensor, f"{tensor}_seen", steps)


def _chain(proto, position, start, end, steps):
    names = [start, *(f"{end}_step_{i}" for i in range(1, len(steps))), end]
    rebuild(
        proto,
        position,
        [
            (op, [names[i], *others], [names[i + 1]], attributes)
            for i, (op, others, attributes) in enumerate(steps)
        ],
    )


def times(proto, tensor, factor):
    after(proto, tensor, ("Mul", [constant(proto, factor)], {}))


def clip(proto, low, high):
    return "Clip", [constant(proto, low), constant(proto, high)], {}


def cast(to):
    return "Cast", [], {"to": to}


def axis(proto, op_type, value):
    next(a for a in node(proto, op_type).attribute if a.name == "axis").i = value


def declared(proto, name):
    return next(v for v in (*proto.graph.input, *proto.graph.output) if v.name == name)


def metadata(proto, key, value):
    kept = [(e.key, e.value) for e in proto.metadata_props if e.key != key]
    del proto.metadata_props[:]
    helper.set_model_props(proto, dict(kept) | ({} if value is None else {key: value}))


def without_standardisation(weight, bias, mean, scale):
    """The layer that was folded: W = (W / scale) · scale, b = (b - (W / scale) mean) + …"""
    return weight * scale, bias + weight @ mean


# Weights and biases --------------------------------------------------------------------------


@seen_by(VALUES, *BOTH, BACKBONE)
def two_class_rows_swapped(proto):
    permute(proto, "weight", [1, 0, *range(2, len(array(proto, "bias")))])


@seen_by(VALUES, *BOTH, BACKBONE)
def two_biases_swapped(proto):
    permute(proto, "bias", [1, 0, *range(2, len(array(proto, "bias")))])


@seen_by(VALUES, *BOTH, BACKBONE)
def bias_dropped(proto):
    put(proto, bias=0 * array(proto, "bias"))


@seen_by(VALUES)
def two_feature_columns_swapped(proto):
    permute(proto, "weight", [1, 0, *range(2, array(proto, "weight").shape[1])], axis=1)


@seen_by(VALUES)
def classes_one_further(proto):
    for name in ("weight", "bias"):
        put(proto, **{name: np.roll(array(proto, name), 1, axis=0)})


@seen_by(VALUES, SQUARE)
def weights_transposed(proto):
    put(proto, weight=array(proto, "weight").T)


@seen_by(VALUES)
def one_weight_off_by_a_thousandth(proto):
    change(proto, "weight", (2, 3), lambda w: w + 1e-3)


@seen_by(VALUES)
def one_weight_with_the_other_sign(proto):
    change(proto, "weight", (1, 4), np.negative)


@seen_by(VALUES, *BOTH, BACKBONE)
def one_weight_pruned(proto):
    change(proto, "weight", (0, 0), np.zeros_like)


@seen_by(VALUES)
def one_bias_off_by_a_ten_thousandth(proto):
    change(proto, "bias", 3, lambda b: b + 1e-4)


@seen_by(VALUES)
def weights_a_ten_thousandth_too_large(proto):
    put(proto, weight=array(proto, "weight") * (1 + 1e-4))


@seen_by(NOT_FINITE, *BOTH, BACKBONE)
def a_nan_weight(proto):
    change(proto, "weight", (1, 2), lambda w: w * np.nan)


@seen_by(NOT_FINITE)
def an_infinite_weight(proto):
    change(proto, "weight", (1, 2), lambda w: np.inf)


@seen_by(VALUES, *BOTH, BACKBONE)
def weights_through_float16(proto):
    put(proto, weight=array(proto, "weight").astype(np.float16))


@seen_by(VALUES)
def weights_through_bfloat16(proto):
    put(proto, weight=torch.from_numpy(array(proto, "weight")).bfloat16().float().numpy())


@seen_by(VALUES, *BOTH, BACKBONE)
def weights_in_int8(proto):
    weight = array(proto, "weight")
    step = np.abs(weight).max() / 127
    put(proto, weight=np.round(weight / step) * step)


@seen_by(VALUES)
def a_class_masked(proto):
    change(proto, "bias", 1, lambda b: -1e9)


@seen_by(VALUES)
def a_class_that_is_another(proto):
    for name in ("weight", "bias"):
        values = array(proto, name)
        change(proto, name, 1, lambda row, values=values: values[0])


# Standardisation -----------------------------------------------------------------------------


@seen_by(VALUES, SQUARE)
def standardisation_left_out(proto):
    weight, bias = array(proto, "weight"), array(proto, "bias")
    weight, bias = without_standardisation(weight, bias, MEAN, SCALE)
    put(proto, weight=weight, bias=bias)


@seen_by(VALUES, SQUARE)
def standardised_twice(proto):
    before(
        proto,
        "input",
        ("Sub", [constant(proto, MEAN)], {}),
        ("Div", [constant(proto, SCALE)], {}),
    )


@seen_by(VALUES, SQUARE)
def mean_not_subtracted(proto):
    put(proto, bias=array(proto, "bias") + array(proto, "weight") @ MEAN)


@seen_by(VALUES, SQUARE)
def divided_by_the_variance(proto):
    put(proto, weight=array(proto, "weight") / SCALE)


# Softmax and its logarithm -------------------------------------------------------------------


@seen_by(VALUES, *BOTH, BACKBONE)
def log_softmax_over_the_batch(proto):
    axis(proto, "LogSoftmax", 0)


@seen_by(PROBS)
def softmax_over_the_batch(proto):
    axis(proto, "Softmax", 0)


@seen_by(VALUES)
def log_missing(proto):
    node(proto, "log_probs").op_type = "Softmax"


@seen_by(PROBS)
def probs_that_are_logarithms(proto):
    node(proto, "probs").op_type = "LogSoftmax"


@seen_by(VALUES)
def log_probs_that_are_logits(proto):
    logits = node(proto, "log_probs").input[0]
    node(proto, "log_probs").CopyFrom(helper.make_node("Identity", [logits], ["log_probs"]))


@seen_by(NOT_FINITE)
def log_of_the_softmax(proto):
    """Right until a probability is less than float32 can hold: -inf beyond 104 nats."""
    log_missing(proto)
    after(proto, "log_probs", ("Log", [], {}))


@seen_by(NOT_FINITE)
def log_sum_exp_without_the_maximum(proto):
    producer = node(proto, "log_probs")
    position = list(proto.graph.node).index(producer)
    proto.graph.node.remove(producer)
    steps = [
        ("ReduceLogSum", ["exp"], ["norm"], {"axes": [1], "keepdims": 1}),
        ("Sub", ["scores", "norm"], ["log_probs"], {}),
    ]
    rebuild(proto, position, [("Exp", ["scores"], ["exp"], {}), *steps])


@seen_by(VALUES)
def log_of_probs_and_an_epsilon(proto):
    log_missing(proto)
    after(proto, "log_probs", ("Add", [constant(proto, 1e-7)], {}), ("Log", [], {}))


@seen_by(VALUES)
def logarithm_to_base_2(proto):
    times(proto, "log_probs", 1 / np.log(2))


@seen_by(VALUES)
def temperature(proto):
    times(proto, "scores", 1 / 1.01)


@seen_by(SUM)
def probs_that_do_not_sum_to_1(proto):
    times(proto, "probs", 1.0001)


@seen_by(PROBS)
def sigmoid_for_softmax(proto):
    node(proto, "probs").CopyFrom(helper.make_node("Sigmoid", ["scores"], ["probs"]))


@seen_by(PROBS)
def hard_decisions_for_probs(proto):
    node(proto, "probs").op_type = "Hardmax"


@seen_by(PROBS)
def probs_through_float16(proto):
    after(proto, "probs", cast(TensorProto.FLOAT16), cast(TensorProto.FLOAT))


@seen_by(VALUES)
def log_probs_clipped(proto):
    after(proto, "log_probs", clip(proto, -100, 0))


@seen_by(VALUES)
def the_two_outputs_exchanged(proto):
    node(proto, "log_probs").output[0] = "other"
    node(proto, "probs").output[0] = "log_probs"
    node(proto, "other").output[0] = "probs"


# What happens to the inputs ------------------------------------------------------------------


@seen_by(VALUES, *BOTH, BACKBONE)
def input_clipped_to_0_and_1(proto):
    before(proto, "input", clip(proto, 0, 1))


@seen_by(NOT_FINITE)
def large_inputs_clipped(proto):
    before(proto, "input", clip(proto, -1e8, 1e8))


@seen_by(NOT_FINITE)
def infinity_made_finite(proto):
    limit = float(np.finfo(np.float32).max)
    before(proto, "input", clip(proto, -limit, limit))


@seen_by(NOT_FINITE)
def nan_taken_for_zero(proto):
    rebuild(proto, 0, [("IsNaN", ["input"], ["nan"], {})])
    zero = constant(proto, 0)
    node(proto, "scores").input[0] = "clean"
    rebuild(proto, 1, [("Where", ["nan", zero, "input"], ["clean"], {})])


@seen_by(NOT_FINITE)
def nan_answered_with_infinity(proto):
    after(proto, "probs", ("Identity", [], {}))
    last = len(proto.graph.node) - 1
    rebuild(proto, last, [("IsNaN", ["probs_0"], ["nan"], {})])
    infinity = constant(proto, np.inf)
    node(proto, "probs").CopyFrom(
        helper.make_node("Where", ["nan", infinity, "probs_0"], ["probs"])
    )


@seen_by(VALUES)
def input_divided_by_255(proto):
    before(proto, "input", ("Div", [constant(proto, 255)], {}))


@seen_by(VALUES)
def input_through_float16(proto):
    limit = 60_000  # float16 ends at 65504; only its digits are meant here
    steps = clip(proto, -limit, limit), cast(TensorProto.FLOAT16), cast(TensorProto.FLOAT)
    before(proto, "input", *steps)


@seen_by(VALUES)
def dropout_left_on(proto):
    ratio = constant(proto, 0.1)
    before(proto, "input", ("Dropout", [ratio, constant(proto, True, bool)], {"seed": 1}))


@seen_by(VALUES)
def dropout_that_scales_in_eval_mode(proto):
    before(proto, "input", ("Mul", [constant(proto, 0.9)], {}))


@seen_by(VALUES)
def rows_that_depend_on_their_batch(proto):
    """As with dynamic quantisation: the batch's largest logit changes every row a little."""
    after(proto, "scores", ("Identity", [], {}))
    steps = [
        ("ReduceMax", ["scores_0"], ["top"], {"axes": [0], "keepdims": 1}),
        ("Mul", ["top", constant(proto, 1e-4)], ["little"], {}),
    ]
    rebuild(proto, 1, steps)
    node(proto, "scores").CopyFrom(helper.make_node("Add", ["scores_0", "little"], ["scores"]))


# The interface -------------------------------------------------------------------------------


@seen_by(INPUT, *BOTH, BACKBONE)
def batch_declared_constant(proto):
    declared(proto, "input").type.tensor_type.shape.dim[0].dim_value = 1


@seen_by(INPUT)
def batch_declared_without_a_name(proto):
    declared(proto, "input").type.tensor_type.shape.dim[0].Clear()


@seen_by(OUTPUTS)
def output_batch_declared_without_a_name(proto):
    declared(proto, "probs").type.tensor_type.shape.dim[0].Clear()


@seen_by(INPUT)
def input_renamed(proto):
    declared(proto, "input").name = node(proto, "scores").input[0] = "pixels"


@seen_by(OUTPUTS, *BOTH, BACKBONE)
def output_renamed(proto):
    declared(proto, "probs").name = node(proto, "probs").output[0] = "output"


@seen_by(OUTPUTS)
def outputs_in_another_order(proto):
    outputs = list(proto.graph.output)[::-1]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)


@seen_by(OUTPUTS)
def an_output_removed(proto):
    del proto.graph.output[1]
    proto.graph.node.remove(node(proto, "probs"))


@seen_by(OUTPUTS)
def an_output_added(proto):
    proto.graph.output.append(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 6])
    )


@seen_by(INPUT)
def an_input_added(proto):
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    after(proto, "scores", ("Add", ["mask"], {}))


@seen_by(INPUT)
def weights_that_the_caller_may_override(proto):
    weight = _initializer(proto, "weight")
    proto.graph.input.append(
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight.dims)
    )


@seen_by(OUTPUTS)
def output_in_float64(proto):
    after(proto, "probs", cast(TensorProto.DOUBLE))
    declared(proto, "probs").type.tensor_type.elem_type = TensorProto.DOUBLE


@seen_by(OUTPUTS)
def output_in_float16(proto):
    after(proto, "log_probs", cast(TensorProto.FLOAT16))
    declared(proto, "log_probs").type.tensor_type.elem_type = TensorProto.FLOAT16


@seen_by(LOADS)
def output_in_float16_but_declared_float32(proto):
    after(proto, "log_probs", cast(TensorProto.FLOAT16))


@seen_by(OUTPUTS)
def output_of_an_unknown_dtype(proto):
    declared(proto, "probs").type.tensor_type.elem_type = 99


@seen_by(OUTPUTS)
def output_with_another_dimension(proto):
    after(proto, "probs", ("Unsqueeze", [constant(proto, [2], np.int64)], {}))
    declared(proto, "probs").type.tensor_type.shape.dim.add().dim_value = 1


@seen_by(SHAPES)
def one_row_that_broadcasts(proto):
    """Against (1, K) numpy would find the difference of (n, K) wherever it likes."""
    after(proto, "probs", ("ReduceMean", [], {"axes": [0], "keepdims": 1}))


@seen_by(SHAPES, *BOTH, BACKBONE)
def batch_frozen_inside(proto):
    classes = len(array(proto, "bias"))
    after(proto, "log_probs", ("Reshape", [constant(proto, [2, classes], np.int64)], {}))


@seen_by(INPUT)
def another_number_of_features(proto):
    weight = array(proto, "weight")
    put(proto, weight=np.hstack([weight, weight[:, :1]]))
    declared(proto, "input").type.tensor_type.shape.dim[1].dim_value += 1


@seen_by(LOADS)
def more_weights_than_features(proto):
    weight = array(proto, "weight")
    put(proto, weight=np.hstack([weight, weight[:, :1]]))


@seen_by(OUTPUTS)
def a_class_less(proto):
    for name in ("weight", "bias"):
        put(proto, **{name: array(proto, name)[:-1]})
    for name in ("log_probs", "probs"):
        declared(proto, name).type.tensor_type.shape.dim[1].dim_value -= 1


# Metadata ------------------------------------------------------------------------------------


@seen_by(NAMES, *BOTH, BACKBONE)
def class_names_in_another_order(proto):
    names = next(e for e in proto.metadata_props if e.key == "class_names")
    assert '"0", "1"' in names.value
    names.value = names.value.replace('"0", "1"', '"1", "0"')


@seen_by(NAMES)
def class_names_missing(proto):
    metadata(proto, "class_names", None)


@seen_by("threshold")
def a_threshold_that_the_model_lacks(proto):
    metadata(proto, "threshold", "0.9")


# Not even a file -----------------------------------------------------------------------------


@seen_by(FileError)
def truncated(proto):
    return proto.SerializeToString()[:-40]


@seen_by(FileError)
def half_a_file(proto):
    content = proto.SerializeToString()
    return content[: len(content) // 2]


@seen_by(FileError)
def empty_file(proto):
    return b""


@seen_by(FileError)
def a_file_of_another_kind(proto):
    return b"\x89PNG\r\n\x1a\n" + bytes(100)


@seen_by(FileError)
def an_operator_nobody_knows(proto):
    node(proto, "probs").op_type = "Softmaxx"


@seen_by(FileError)
def a_node_that_nobody_feeds(proto):
    proto.graph.node.remove(node(proto, "scores"))


@seen_by(FileError)
def weights_in_another_file(proto):
    _send_away(_initializer(proto, "weight"))


@seen_by(FileError)
def weights_of_a_constant_node_in_another_file(proto):
    weight = _initializer(proto, "weight")
    rebuild(proto, 0, [("Constant", [], ["weight"], {"value": weight})])
    proto.graph.initializer.remove(weight)
    _send_away(node(proto, "weight").attribute[0].t)


@seen_by(FileError)
def weights_of_a_function_in_another_file(proto):
    weights_of_a_constant_node_in_another_file(proto)
    inside = onnx.FunctionProto(domain="local", name="Weight", output=["weight"])
    inside.opset_import.extend(proto.opset_import)
    inside.node.append(node(proto, "weight"))
    proto.functions.append(inside)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    node(proto, "weight").CopyFrom(helper.make_node("Weight", [], ["weight"], domain="local"))


def _send_away(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


# A backbone in front -------------------------------------------------------------------------


@seen_by(VALUES, BACKBONE)
def relu_removed(proto):
    node(proto, "Relu").op_type = "Identity"


@seen_by(VALUES, BACKBONE)
def batch_norm_left_out(proto):
    """The exporter folded it into the convolution: here are the convolution's own weights."""
    convolution, batch_norm, *_ = Convolution.make().backbone
    assert not batch_norm.training
    _, weight, bias = node(proto, "Conv").input
    put(proto, **{weight: convolution.weight.detach(), bias: convolution.bias.detach()})


@seen_by(VALUES, BACKBONE)
def a_kernel_turned_around(proto):
    kernel = node(proto, "Conv").input[1]
    change(proto, kernel, 0, lambda w: w[:, ::-1, ::-1])


@seen_by(VALUES, BACKBONE)
def a_kernel_a_thousandth_too_large(proto):
    change(proto, node(proto, "Conv").input[1], 0, lambda w: 1.001 * w)


@seen_by(VALUES, BACKBONE)
def largest_for_average_pooling(proto):
    pooling = node(proto, "AveragePool")
    kept = [a for a in pooling.attribute if a.name != "count_include_pad"]
    replacement = helper.make_node("MaxPool", pooling.input, pooling.output)
    replacement.attribute.extend(kept)
    pooling.CopyFrom(replacement)


@seen_by(VALUES, BACKBONE)
def channels_in_another_order(proto):
    permute(proto, "weight", np.arange(16).reshape(4, 4).T.ravel(), axis=1)


@seen_by(VALUES, BACKBONE)
def features_not_standardised(proto):
    statistics = Convolution.make().preprocessing
    weight, bias = without_standardisation(
        array(proto, "weight"),
        array(proto, "bias"),
        statistics.mean.numpy(),
        statistics.scale.numpy(),
    )
    put(proto, weight=weight, bias=bias)


@seen_by(VALUES, BACKBONE)
def images_transposed(proto):
    before(proto, "input", ("Transpose", [], {"perm": [0, 1, 3, 2]}))


@seen_by(SHAPES, BACKBONE)
def padding_removed(proto):
    pads = next(a for a in node(proto, "Conv").attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 0, 0]


# The models ----------------------------------------------------------------------------------


class Convolution(SoftmaxRegression):
    """A frozen convolution with batch norm, and four averages of each of its four channels."""

    def __init__(self):
        super().__init__(16, 3, input_shape=(1, 8, 8), preprocessing="standardize")
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(4)
        ).requires_grad_(False)

    def features(self, x):
        return self.backbone(x).flatten(1)

    @classmethod
    @torch.no_grad()
    def make(cls):
        torch.manual_seed(1)
        model = cls().eval()
        batch_norm = model.backbone[1]
        for values in (batch_norm.running_var, batch_norm.weight, model.preprocessing.scale):
            values.uniform_(0.5, 2)
        for values in (batch_norm.running_mean, batch_norm.bias, model.preprocessing.mean):
            values.normal_()
        return model


def square():
    model = linear(6, 6, preprocessing="standardize")
    return fitted(model, MEAN, SCALE)


def linear(d, k, size=1.0, **kwargs):
    """Weights and biases are normal with deviation ``size``."""
    torch.manual_seed(0)
    model = SoftmaxRegression(d, k, **kwargs)
    with torch.no_grad():
        for parameter in (model.linear.weight, model.linear.bias):
            parameter.normal_().mul_(size)
    return model


def fitted(model, mean, scale):
    model.preprocessing.mean.copy_(torch.as_tensor(mean))
    model.preprocessing.scale.copy_(torch.as_tensor(scale))
    return model


MODELS = {SQUARE: square, DIGITS: lambda: linear(64, 10, size=0.1), BACKBONE: Convolution.make}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The models are tiny: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Model and file by name, each exported once; exporting a backbone takes seconds."""
    folder = tmp_path_factory.mktemp("exported")
    found = {}

    def get(name):
        if name not in found:
            model = MODELS[name]()
            found[name] = model, export_onnx(model, folder / f"{name}.onnx").path
        return found[name]

    return get


def corrupted(path, corrupt, tmp_path):
    """The path of a spoilt copy, without the seal, which would show every one of them."""
    content = path.read_bytes()
    proto = onnx.load_model_from_string(content)
    spoilt = corrupt(proto)
    metadata(proto, "sha256", None)
    spoilt = proto.SerializeToString() if spoilt is None else spoilt
    assert spoilt != content, "nothing was corrupted"
    copy = tmp_path / "corrupted.onnx"
    copy.write_bytes(spoilt)
    return copy


# Every corruption is seen --------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_corrupted_file_does_not_pass(case, exported, tmp_path):
    model, path = exported(case.model)
    path = corrupted(path, case.corrupt, tmp_path)
    if case.seen_by is FileError:
        with pytest.raises(FileError):
            check_parity(model, path)
        return
    report = check_parity(model, path)
    assert not report.passed
    assert case.seen_by in [check.name for check in report.failed]


def test_there_are_corruptions_enough():
    corruptions = {case.corrupt for case in CASES if case.model != BACKBONE}
    of_a_backbone = {case.corrupt for case in CASES if case.model == BACKBONE}
    assert len(corruptions) >= 30
    assert len(of_a_backbone) >= 6


@pytest.mark.parametrize("name", MODELS)
def test_the_file_itself_passes(name, exported):
    model, path = exported(name)
    report = check_parity(model, path)
    assert report.passed
    assert report.flips == ()


WIDE = 9000  # features: more than twice as many as there are one-hot rows


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 1])
@pytest.mark.parametrize("corrupt", [log_of_the_softmax, log_sum_exp_without_the_maximum])
def test_overflow_is_provoked_however_small_the_weights(corrupt, size, tmp_path):
    model = linear(20, 4, size)
    path = export_onnx(model, tmp_path / "model.onnx").path
    failed = check_parity(model, corrupted(path, corrupt, tmp_path)).failed
    assert failed[0].name == NOT_FINITE


@pytest.mark.parametrize("feature", [0, 4097, WIDE - 1])
def test_every_weight_counts_where_features_outnumber_the_one_hot_rows(feature, wide, tmp_path):
    model, path = wide
    pruned = corrupted(
        path, lambda proto: change(proto, "weight", (1, feature), np.zeros_like), tmp_path
    )
    assert VALUES in [check.name for check in check_parity(model, pruned).failed]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    model = linear(WIDE, 2, size=0.1)
    return model, export_onnx(model, tmp_path_factory.mktemp("wide") / "model.onnx").path


@pytest.mark.parametrize(
    "corrupt",
    [
        weights_in_another_file,
        weights_of_a_constant_node_in_another_file,
        weights_of_a_function_in_another_file,
    ],
)
def test_no_other_file_is_followed_even_where_it_exists(corrupt, exported, tmp_path, monkeypatch):
    model, path = exported(SQUARE)
    monkeypatch.chdir(tmp_path)
    array(onnx.load(path), "weight").tofile("weights.bin")
    with pytest.raises(FileError, match="self-contained"):
        check_parity(model, corrupted(path, corrupt, tmp_path))


@pytest.mark.parametrize("value", [None, "0.9", "0.30001"])
def test_another_threshold_does_not_pass(value, tmp_path):
    model = linear(3, 2, threshold=0.3)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(
        model, corrupted(path, lambda proto: metadata(proto, "threshold", value), tmp_path)
    )
    assert [check.name for check in report.failed] == ["threshold"]


def test_a_model_that_answers_nan_has_not_been_compared(tmp_path):
    model = linear(3, 4, preprocessing="standardize")
    path = export_onnx(model, tmp_path / "model.onnx").path
    model.preprocessing.mean[0] = torch.nan
    report = check_parity(model, corrupted(path, a_nan_weight, tmp_path))
    assert NOT_FINITE in [check.name for check in report.failed]


# No correct file is refused ------------------------------------------------------------------

NAMES_OF_ANY_KIND = ["α", "日本", "a b", '"quoted"', "back\\slash", "\n", "🦉", "", "\u0000", "é"]


def random_model(seed):
    """Any size, any magnitude, any preprocessing, any names."""
    rng = np.random.default_rng(seed)
    d, k = (round(np.exp(rng.uniform(np.log(low), np.log(high)))) for low, high in LIMITS)
    rows = rng.choice([1, *(n for n in range(2, d) if d % n == 0)])
    method = str(rng.choice(["none", "standardize", "scale"]))
    model = SoftmaxRegression(
        d,
        k,
        input_shape=(d,) if rng.random() < 0.5 else (int(rows), int(d // rows)),
        class_names=[*NAMES_OF_ANY_KIND, *map(str, range(k))][:k] if rng.random() < 0.5 else None,
        threshold=float(rng.uniform(0.01, 0.99)) if k == 2 else None,
        preprocessing=method,
    )
    with torch.no_grad():
        model.linear.weight.copy_(torch.from_numpy(10 ** rng.uniform(-4, 3) * normal(rng, k, d)))
        model.linear.bias.copy_(torch.from_numpy(10 ** rng.uniform(-4, 3) * normal(rng, k)))
    if method == "standardize":
        scale = 10 ** rng.uniform(-4, 4) * np.exp(rng.uniform(0, 3) * normal(rng, d))
        return fitted(model, 10 ** rng.uniform(-3, 7) * scale * normal(rng, d), scale)
    return fitted(model, 0.0, 10 ** rng.uniform(-3, 5) if method == "scale" else 1.0)


LIMITS = (1, 300), (2, 60)  # of features and of classes


def normal(rng, *shape):
    return rng.standard_normal(shape)


@pytest.mark.parametrize("seed", range(240))
def test_a_correct_file_passes_whatever_the_model(seed, tmp_path):
    report = export_onnx(random_model(seed), tmp_path / "model.onnx").report
    assert report.error_over_tolerance < 1


# Seeds on which the live model rounds luckily: its rounding alone says little about the file's.
LUCKY = (337, 1098, 1736)


@pytest.mark.parametrize("seed", [*range(30), *LUCKY])
def test_a_correct_file_of_a_backbone_passes_whatever_its_weights(seed, exported, tmp_path):
    """The graph is traced once; what the exporter would fold into it is put in by hand."""
    _, path = exported(BACKBONE)
    rng = np.random.default_rng(seed)
    model = Convolution.make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 ** rng.uniform(-2, 2))
        model.linear.bias.add_(10 ** rng.uniform(-4, 3))
        scale = model.preprocessing.scale  # beyond 1024 of it the exporter would not fold
        model.preprocessing.mean.mul_(10 ** rng.uniform(-3, 3)).clamp_(-1000 * scale, 1000 * scale)
    report = check_parity(model, corrupted(path, lambda proto: fill(proto, model), tmp_path))
    assert report.passed, str(report)


@torch.no_grad()
def fill(proto, model):
    """Put another model's weights into a file, whose self-test then is another's."""
    metadata(proto, "selftest", None)
    convolution, batch_norm, *_ = model.double().backbone
    factor = batch_norm.weight / (batch_norm.running_var + batch_norm.eps).sqrt()
    _, weight, bias = node(proto, "Conv").input
    head = model.preprocessing.fold(model.linear)
    put(
        proto,
        **{
            weight: convolution.weight * factor[:, None, None, None],
            bias: (convolution.bias - batch_norm.running_mean) * factor + batch_norm.bias,
            "weight": head.weight,
            "bias": head.bias,
        },
    )
    model.float()


class Overflowing(SoftmaxRegression):
    """Leaves float32 on large inputs, long before float64."""

    def features(self, x):
        return x.flatten(1) ** 10


class Undefined(SoftmaxRegression):
    """NaN for every negative feature."""

    def features(self, x):
        return x.flatten(1).log()


@pytest.mark.parametrize("kind", [Overflowing, Undefined])
def test_a_backbone_may_overflow_where_the_live_model_does(kind, tmp_path):
    torch.manual_seed(0)
    assert export_onnx(kind(1, 3), tmp_path / "model.onnx").report.passed


# What the report tells -----------------------------------------------------------------------


def twins(*biases):
    """Classes 0 and 1 have the same weights: only the biases decide between them."""
    model = linear(5, 3, class_names=["left", "right", "other"])
    with torch.no_grad():
        model.linear.weight[1] = model.linear.weight[0]
        model.linear.bias.copy_(torch.tensor([*biases, -1.0]))
    return model


def test_identical_classes_are_a_tie_and_no_failure(tmp_path):
    report = export_onnx(twins(0.5, 0.5), tmp_path / "model.onnx").report
    assert report.passed
    assert all(flip.margin <= flip.tolerance for flip in report.flips)


def test_a_flip_within_rounding_is_listed_and_passes(tmp_path):
    lower, upper = 0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))
    model = twins(lower, upper)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(model, corrupted(path, two_biases_swapped, tmp_path))
    assert report.passed
    assert report.flips
    assert all(0 < flip.margin <= flip.tolerance for flip in report.flips)


def test_a_flip_beyond_rounding_is_listed_with_its_margin(tmp_path):
    model = twins(0.5, 0.501)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(model, corrupted(path, two_biases_swapped, tmp_path))
    assert "argmax" in [check.name for check in report.failed]
    flip = next(flip for flip in report.flips if flip.probe == "random rows")
    assert (flip.model_class, flip.file_class) == ("right", "left")
    assert flip.margin == pytest.approx(0.001, rel=1e-3)
    assert flip.tolerance < flip.margin


def test_labelled_data_gives_the_accuracy_and_nll_of_both_sides(exported):
    model, path = exported(SQUARE)
    x = torch.randn(100, 6) * torch.from_numpy(SCALE) + torch.from_numpy(MEAN)
    y = torch.randint(6, (100,))
    report = check_parity(model, path, (x, y))
    log_probs = model(x).detach()
    assert report.passed
    assert report.task.rows == 100
    assert report.task.model_accuracy == (log_probs.argmax(1) == y).double().mean()
    assert report.task.file_accuracy == report.task.model_accuracy
    nll = -log_probs[torch.arange(100), y].double().mean()
    assert report.task.model_nll == pytest.approx(float(nll))
    assert report.task.file_nll == pytest.approx(report.task.model_nll, rel=1e-4)


def test_the_accuracy_of_a_corrupted_file_is_its_own(exported, tmp_path):
    model, path = exported(DIGITS)
    x = torch.randn(100, 64)
    y = model(x).argmax(1)
    report = check_parity(model, corrupted(path, two_class_rows_swapped, tmp_path), (x, y))
    assert report.task.model_accuracy == 1
    assert report.task.file_accuracy < 1


def test_accuracy_is_counted_at_the_threshold(tmp_path):
    model = linear(3, 2, threshold=0.9)
    x = torch.randn(50, 3)
    y = (model(x).exp()[:, 1] >= 0.9).long()
    task = export_onnx(model, tmp_path / "model.onnx", data=(x, y)).report.task
    assert task.model_accuracy == task.file_accuracy == 1


def test_your_data_shows_what_the_generated_inputs_do_not_reach(exported, tmp_path):
    model, path = exported(DIGITS)
    path = corrupted(path, large_inputs_clipped, tmp_path)
    failed = check_parity(model, path, torch.full((1, 64), 1e9)).failed
    assert next(c for c in failed if c.name == VALUES).detail.endswith("in 'your data'")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_data_may_hold_nan_and_infinity(value, exported):
    model, path = exported(SQUARE)
    x = torch.randn(4, 6)
    x[2, 1] = value
    assert check_parity(model, path, x).passed
