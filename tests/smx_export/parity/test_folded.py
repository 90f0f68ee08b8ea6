"""What another machine may store in place of a folded bias: any order of the sum, and no more."""

from fractions import Fraction

import numpy as np
import profiled
import pytest
import torch
from mutations.editing import array, metadata, put
from sampled import sampled

from smx_export import check_parity, export_onnx
from smx_export.artifact.files import read_onnx
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import inference_copy
from smx_export.parity.folded import Rounding
from smx_export.profile import Profile
from smx_lightning import SoftmaxRegression

D, K = 300, 5


def cancelling(seed):
    """A model whose biases are much less than the terms of their sums."""
    rng = np.random.default_rng(seed)
    model = SoftmaxRegression(D, K, preprocessing="standardize")
    statistics = model.preprocessing
    with torch.no_grad():
        statistics.mean.copy_(torch.from_numpy(rng.normal(size=D) * 10 ** rng.uniform(-3, 1)))
        statistics.scale.copy_(torch.from_numpy(10 ** rng.uniform(-1, 1, D)))
        model.linear.weight.copy_(torch.from_numpy(rng.normal(size=(K, D))))
        exact = statistics.fold(model.linear)
        model.linear.bias.sub_(exact.bias.float())
    return model


def summed(model, order):
    """The folded bias in float64, one term after the other."""
    statistics, linear = model.preprocessing, model.linear
    weight = linear.weight.detach().double().numpy() / statistics.scale.double().numpy()
    mean, bias = statistics.centre.numpy(), linear.bias.detach().double().numpy()
    dot = np.zeros(K)
    for i in order:
        dot = dot + weight[:, i] * mean[i]
    return bias - dot


def exactly(model):
    """The same without any rounding but that of the divided weights."""
    statistics, linear = model.preprocessing, model.linear
    weight = linear.weight.detach().double().numpy() / statistics.scale.double().numpy()
    mean = [Fraction(float(m)) for m in statistics.centre]
    return [
        Fraction(float(b)) - sum(Fraction(float(w)) * m for w, m in zip(row, mean, strict=True))
        for b, row in zip(linear.bias.detach(), weight, strict=True)
    ]


def rounding(model):
    return Rounding(inference_copy(detached_copy(model), Profile()))


def bias_of(model):
    return model.preprocessing.fold(model.linear).bias.numpy().astype(np.float32)


@pytest.mark.parametrize("seed", sampled(range(40), every=10))
def test_any_order_of_the_sum_is_allowed_and_the_exact_one_is(seed):
    model, rng = cancelling(seed), np.random.default_rng(seed)
    allows, expected = rounding(model).allows, bias_of(model)
    for order in [np.arange(D), np.arange(D)[::-1], *(rng.permutation(D) for _ in range(20))]:
        assert allows(expected, summed(model, order).astype(np.float32), "Gemm", 2)
    exact = np.array([float(b) for b in exactly(model)], np.float32)
    assert allows(expected, exact, "Gemm", 2)


def ordinary():
    return profiled.model_of()


def unstandardised():
    return profiled.model_of(preprocessing="none")


@pytest.mark.parametrize("make", [ordinary, unstandardised])
def test_two_floats_further_is_another_bias(make):
    model = make()
    allows, expected = rounding(model).allows, bias_of(model)
    other = expected.copy()
    assert allows(expected, other, "Gemm", 2)
    for _ in range(2):
        other[1] = np.nextafter(other[1], np.float32(np.inf))
    assert not allows(expected, other, "Gemm", 2)
    assert not allows(expected, np.full_like(expected, np.nan), "Gemm", 2)


def test_what_is_not_summed_is_the_same_to_the_last_bit():
    model = unstandardised()
    allows, expected = rounding(model).allows, bias_of(model)
    other = expected.copy()
    other[0] = np.nextafter(other[0], np.float32(0))
    assert not allows(expected, other, "Gemm", 2)


def test_no_other_initialiser_of_a_plain_model_may_differ():
    model = ordinary()
    weight = model.linear.weight.detach().numpy()
    other = weight.copy()
    other[0, 0] = np.nextafter(other[0, 0], np.float32(0))
    assert not rounding(model).allows(weight, other, "Gemm", 1)


class Masked(SoftmaxRegression):
    def features(self, x):
        return x.flatten(1).tanh()


@pytest.mark.parametrize("infinite", [np.inf, -np.inf, np.nan])
def test_what_is_infinite_in_a_mask_stays_so_and_nothing_else_becomes_it(infinite):
    allowing, mask = rounding(Masked(12, 3)), np.array([0, infinite, 2], np.float32)
    for other in ([0, -60, 2], [0, infinite, infinite], [infinite, infinite, 2], [0, 0, 0]):
        assert not allowing.allows(mask, np.array(other, np.float32), "Add", 1)
    assert not allowing.loose
    rounded = np.array([0, infinite, np.nextafter(np.float32(2), np.float32(3))], np.float32)
    assert allowing.allows(mask, rounded, "Add", 1)


def test_the_report_says_what_is_within_rounding(tmp_path):
    model = cancelling(0)
    path = export_onnx(model, tmp_path / "model.onnx").path
    proto = read_onnx(path)
    stored, rng = array(proto, "bias"), np.random.default_rng(0)
    orders = (rng.permutation(D) for _ in range(1000))
    other = next(o for o in (summed(model, order).astype(np.float32) for order in orders)
                 if not np.array_equal(o, stored))  # fmt: skip
    put(proto, bias=other)
    for key in ("sha256", "selftest", "profile"):
        metadata(proto, key, None)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    report = check_parity(model, tmp_path / "other.onnx")
    (check,) = [check for check in report.checks if check.name == "graph"]
    assert check.detail == "as written; weights bit for bit, what is summed within rounding"
    assert report.passed
    assert report.exact_graph
