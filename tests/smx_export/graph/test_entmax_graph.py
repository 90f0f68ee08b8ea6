"""The graph of α-entmax, run by onnxruntime, against a threshold that is bisected in float64."""

import numpy as np
import onnx
import onnxruntime
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations.models import linear
from onnx import TensorProto, helper
from sampled import examples, whole

from smx_export import Profile, export_onnx
from smx_export.artifact.tolerance import entmax_tolerance
from smx_export.contract import ALL_OUTPUTS
from smx_export.convert import refuse_untrained
from smx_export.graph.entmax import MOST_PAIRED, append_entmax, steps
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import activation_of

ULP = 2.0**-24
ALPHAS = (2.0, 1.5, 1.3, 1.05)
BASIC = {
    "ReduceMax", "ReduceMean", "Sub", "Mul", "Max", "Relu", "Sign", "Div", "Add", "Sqrt", "Pow",
    "Log", "Unsqueeze",
}  # fmt: skip


def tail(classes, alpha, *, robust=False, opset=17):
    """Scores in, probabilities out."""
    outputs = ("probs", "log_probs")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["scores"])],
        "tail",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", classes])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", classes]) for n in outputs],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    append_entmax(model, classes, alpha, log_probs=True, robust=robust)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, scores):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["probs", "log_probs"], {"input": scores.astype(np.float32)})


def rows_of(classes):
    """Random rows of several sizes; ties; all alike; far apart; each class half as far behind."""
    rng = np.random.default_rng(classes)
    k = np.arange(classes)
    return np.concatenate([
        rng.normal(size=(60, classes)) * rng.choice([0.1, 1, 5], size=(60, 1)),
        rng.integers(0, 3, (60, classes)) * rng.choice([0.01, 0.1, 0.5, 1], size=(60, 1)),
        np.full((2, classes), -7.0),
        1e4 * rng.normal(size=(20, classes)),
        1e30 * rng.normal(size=(5, classes)),
        -2 * (1 - rng.uniform(0.3, 1, (60, 1)) ** k),
        -np.cumsum(2.0**-k) * rng.uniform(0.2, 2, (30, 1)),
    ]).astype(np.float32)  # fmt: skip


CASES = [
    (classes, alpha, robust, opset)
    for classes in (2, 10, 32, 33, 100, 1000)
    for alpha in ALPHAS
    for robust in (False, True)
    for opset in (17, 18)
]


@pytest.mark.parametrize(
    ("classes", "alpha", "robust", "opset"),
    [case if case[2] == (case[3] == 18) else whole(case) for case in CASES],
)
def test_onnxruntime_answers_what_the_bisected_threshold_says(classes, alpha, robust, opset):
    rows = rows_of(classes)
    probs, log_probs = run(tail(classes, alpha, robust=robust, opset=opset), rows)
    right = references.entmax(rows, alpha)
    steep = 1 / (alpha - 1)
    assert np.abs(probs - right).max() <= 4 * (1 + steep / 2) * ULP
    assert np.abs(probs.sum(1, dtype=np.float64) - 1).max() <= (classes + 4 * steep) * ULP
    allowed = entmax_tolerance(np.zeros_like(right), right ** (alpha - 1), alpha)
    assert (np.abs(probs - right) <= allowed).all()
    assert (np.abs(np.exp(log_probs, dtype=np.float64) - right) <= allowed).all()
    # Where a class is ruled out by more than rounding, it is, and its logarithm says so.
    z = (alpha - 1) * (rows.astype(np.float64) - rows.max(1, keepdims=True))
    tau = ((z - right ** (alpha - 1)) * (right > 0)).min(1, keepdims=True)
    out = z < tau - 8 * ULP
    assert (probs[out] == 0).all()
    assert (log_probs[out] == -np.inf).all()
    assert (np.isneginf(log_probs) == (probs == 0)).all()


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("classes", [3, MOST_PAIRED + 1])
def test_rows_without_an_answer_are_nan_and_masks_are_zero(classes, alpha, robust):
    rows = np.zeros((6, classes), np.float32)
    rows[0, 1], rows[1, 1], rows[2], rows[3, :2] = np.nan, np.inf, -np.inf, np.inf
    rows[4, 1] = -np.inf
    probs, log_probs = run(tail(classes, alpha, robust=robust), rows)
    assert np.isnan(probs[:4]).all()
    assert np.isnan(log_probs[:4]).all()
    right = np.where(np.isinf(rows[4:]), 0, 1 / np.isfinite(rows[4:]).sum(1, keepdims=True))
    np.testing.assert_allclose(probs[4:], right, atol=1e-6)
    assert log_probs[4, 1] == -np.inf


@settings(max_examples=examples(100))
@given(st.integers(0, 2**32 - 1), st.sampled_from(ALPHAS), st.sampled_from([2, 5, 10, 100]))
def test_so_many_steps_are_enough_whatever_the_scores(seed, alpha, classes):
    """In float64, where nothing else is off: classes that leave the support one after another."""
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0, 1, (50, classes)) ** rng.choice([1, 3, 9, 30], size=(50, 1))
    z = -np.cumsum(gaps, axis=1)
    z *= rng.uniform(0, 1.5, (50, 1)) / np.abs(z).max(1, keepdims=True)
    z -= z.max(1, keepdims=True)
    power, tau = 1 / (alpha - 1), np.full((50, 1), -1.0)
    for _ in range(steps(classes, alpha)):
        left = np.maximum(z - tau, 0)
        sums, slopes = (left**power).sum(1), np.where(left > 0, left ** (power - 1), 0).sum(1)
        tau += ((sums - sums ** (2 - alpha)) / slopes)[:, None]
    left = np.maximum(z - tau, 0)
    assert (left**power).sum(1).min() >= 1 - 1e-9  # never beyond the root
    right = references.entmax(z / (alpha - 1), alpha) ** (alpha - 1)
    assert np.abs(left - right).max() <= 1.01 * ULP


def test_fewer_steps_would_not_be_enough():
    """Of some rows of few classes each of sparsemax's steps rules out a single one."""
    rng = np.random.default_rng(0)
    for classes in (3, 4, 5):
        behind = rng.uniform(0, 1, (20000, classes)) ** rng.choice([1, 0.3, 0.1], (20000, 1))
        z = -np.sort(behind * (np.arange(classes) > 0), axis=1)
        tau, taken = np.full((len(z), 1), -1.0), np.zeros(len(z))
        for _ in range(classes + 1):
            left = np.maximum(z - tau, 0)
            wrong = left.sum(1) > 1 + 1e-9
            taken += wrong
            tau += (left.sum(1, keepdims=True) - 1) / (left > 0).sum(1, keepdims=True)
        assert taken.max() == steps(classes, 2.0) == classes - 1


def test_the_number_of_steps():
    assert [steps(k, 2.0) for k in (2, 3, 10)] == [1, 2, 9]
    assert [steps(k, 2.0) for k in (100, 1000)] == [16, 20]
    assert [steps(k, 1.5) for k in (10, 100)] == [9, 12]
    assert all(steps(k, a) <= np.log2(k) * (a - 1) + 13 for k in (2, 99, 10**6) for a in ALPHAS)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_consists_of_basic_operators(alpha, classes, robust, opset):
    model = tail(classes, alpha, robust=robust, opset=opset)
    operators = {node.op_type for node in model.graph.node} - {"Identity"}
    assert operators <= BASIC
    assert ("Pow" in operators) == (alpha not in (1.5, 2))
    assert ("Unsqueeze" in operators) == (alpha in (1.5, 2) and classes == 2 and not robust)
    assert all(not node.attribute or node.op_type.startswith("Reduce") for node in model.graph.node)


def test_a_file_of_ten_classes_is_no_more_than_a_kilobyte_over_that_of_softmax(tmp_path):
    size = {}
    for spec in ("softmax", "sparsemax", "entmax15"):
        model = linear(64, 10, 0.3, activation=spec)
        size[spec] = export_onnx(model, tmp_path / f"{spec}.onnx").path.stat().st_size
    assert 0 < size["sparsemax"] - size["softmax"] <= 1000
    assert 0 < size["entmax15"] - size["softmax"] <= 1000


def test_names_of_a_backbone_are_not_taken_again():
    model = tail(3, 2.0)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    del other.graph.node[:], other.graph.initializer[:]
    made = [helper.make_node("Identity", ["input"], ["e1"]),
            helper.make_node("Identity", ["e1"], ["scores"])]  # fmt: skip
    other.graph.node.extend(made)
    append_entmax(other, 3, 2.0, log_probs=True, robust=False)
    onnx.checker.check_model(other, full_check=True)
    rows = rows_of(3)
    for one, two in zip(run(model, rows), run(other, rows), strict=True):
        np.testing.assert_array_equal(one, two)


# What becomes of a model ------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [{"alpha": 2.5}, {"alpha": 1.001}])
def test_an_alpha_that_no_graph_is_known_for_is_refused_in_one_sentence(spec, tmp_path):
    model = linear(4, 3, activation=spec)
    with pytest.raises(
        InputError, match="expected an activation that a file can end in"
    ) as refused:
        export_onnx(model, tmp_path / "model.onnx")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "model.onnx").exists()
    with pytest.raises(InputError, match="expected an activation that a file can end in"):
        refuse_untrained(model, Profile())  # at the start of a fit that ends in an export
    export_onnx(linear(4, 3, activation={"alpha": 1.01}), tmp_path / "remedy.onnx")


class OtherHead(SoftmaxRegression):
    def head(self, x):
        return 2 * super().head(x)

    def scores(self, x):
        return super().scores(x)


def test_a_head_of_ones_own_is_refused_in_one_sentence(tmp_path):
    model = OtherHead(4, 3, activation="sparsemax")
    with pytest.raises(InputError, match="override features instead"):
        export_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("spec", ["sparsemax", "entmax15", {"alpha": 1.3}])
@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.5, 0.97])
def test_the_label_is_1_where_its_probability_reaches_the_threshold(spec, threshold, tmp_path):
    model = linear(2, 2, activation=spec, threshold=threshold)
    path = export_onnx(model, tmp_path / "model.onnx", profile=Profile.of(outputs=ALL_OUTPUTS)).path
    border = activation_of(spec).difference(threshold)
    weight, bias = (t.detach().double().numpy() for t in (model.linear.weight, model.linear.bias))
    along, start = weight[1] - weight[0], bias[1] - bias[0]
    apart = np.concatenate([border + np.array([-1, -0.01, -1e-4, 1e-4, 0.01, 1]), [-9, 9]])
    x = ((apart - start) / (along @ along))[:, None] * along
    session = onnxruntime.InferenceSession(path)
    label, probs = session.run(["label", "probs"], {"input": x.astype(np.float32)})
    np.testing.assert_array_equal(label, apart > border)
    np.testing.assert_allclose(probs[:, 1], references.entmax(
        np.stack([np.zeros(8), apart], 1), activation_of(spec).alpha)[:, 1], atol=1e-5)  # fmt: skip
