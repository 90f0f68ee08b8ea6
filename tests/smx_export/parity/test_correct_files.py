"""No correct file is refused, whatever the model."""

import numpy as np
import pytest
import torch
from mutations.editing import corrupted, metadata, node, put
from mutations.models import BACKBONE, Convolution, fitted
from sampled import sampled

from smx_export import Profile, check_parity, export_onnx
from smx_export.artifact.files import weights_sha256
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import inference_copy
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.reference import reference_of
from smx_lightning import SoftmaxRegression

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("seed", sampled(range(240), every=8))
def test_a_correct_file_passes_whatever_the_model(seed, tmp_path):
    report = export_onnx(random_model(seed), tmp_path / "model.onnx").report
    assert report.error_over_tolerance < 1


# Seeds on which the live model rounds luckily: its rounding alone says little about the file's.
LUCKY = (337, 1098, 1736)


@pytest.mark.parametrize("seed", [*sampled(range(30), every=6), *LUCKY])
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
    """Put another model's weights and answers into a file."""
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
    inference = inference_copy(detached_copy(model.float()), Profile())
    vectors = ParityInputs(inference, reference_of(inference.model)).vectors
    metadata(proto, "selftest", vectors.to_json(weights_sha256(proto)))


class Overflowing(SoftmaxRegression):
    """Leaves float32 on large inputs, long before float64."""

    def features(self, x):
        return x.flatten(1) ** 10


class Undefined(SoftmaxRegression):
    """NaN for every negative feature."""

    def features(self, x):
        return x.flatten(1).log()


@pytest.mark.whole
@pytest.mark.parametrize("kind", [Overflowing, Undefined])
def test_a_backbone_may_overflow_where_the_live_model_does(kind, tmp_path):
    torch.manual_seed(0)
    assert export_onnx(kind(1, 3), tmp_path / "model.onnx").report.passed
