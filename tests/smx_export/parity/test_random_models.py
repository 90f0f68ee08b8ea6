"""Models that answer at random, keep state or mix rows; and correct ones that do not.

No file can be the first, whatever was measured; none of the second may be refused.
"""

import random

import numpy as np
import onnx
import pytest
import torch
from backbones import SHAPE, Backboned, Everything, Sine, random_backbone
from sampled import sampled, whole
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its customary name)
from torch.utils.data import DataLoader, TensorDataset

from smx_export import OnnxExport, ParityError, check_parity, export_onnx
from smx_export.artifact.files import metadata_of
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import inference_copy
from smx_export.parity.comparison import Comparison
from smx_export.parity.findings import Lost
from smx_export.parity.reference import LARGEST_ROUNDING, SAFETY, MeasuredReference, reference_of
from smx_export.profile import Profile
from smx_lightning import InputError, SoftmaxRegression

D, K = 8, 3
CHANGES, MIXES, DIGITS = "answers a batch alike", "rows beside it", "half of its digits"
OPERATORS, AGAIN, BESIDE = "operators", "the same batch again", "a row alone and in a batch"


def made(features, *, where="features", module=None, **kwargs):
    """A model whose ``features``, ``head`` or ``forward`` is a function (model, input)."""
    kind = type("Attack", (SoftmaxRegression,), {where: features})
    torch.manual_seed(0)
    model = kind(D, K, **{"input_range": (0, 1), **kwargs})
    if module is not None:
        model.part = module
    return model


# Models that answer one batch in more than one way -------------------------------------------

CHANGING, MIXING = {}, {}


def attack(table, **kwargs):
    def register(features):
        table[features.__name__] = features, kwargs
        return features

    return register


@attack(CHANGING)
def functional_dropout(model, x):
    return F.dropout(x.flatten(1), 0.5)


@attack(CHANGING)
def feature_dropout(model, x):
    return F.feature_alpha_dropout(x.flatten(1), 0.5, training=True)


@attack(CHANGING, module=lambda: nn.Dropout(0.5))
def monte_carlo_dropout(model, x):
    model.part.train()
    return model.part(x.flatten(1))


@attack(CHANGING, module=lambda: nn.RReLU())
def random_slopes(model, x):
    return model.part.train()(x.flatten(1))


@attack(CHANGING)
def noise(model, x):
    return x.flatten(1) + 0.1 * torch.randn_like(x.flatten(1))


@attack(CHANGING)
def faint_noise(model, x):
    return x.flatten(1) + 1e-6 * torch.randn_like(x.flatten(1))


@attack(CHANGING)
def bernoulli(model, x):
    return x.flatten(1) * torch.bernoulli(torch.full_like(x.flatten(1), 0.5))


@attack(CHANGING)
def random_mask(model, x):
    return x.flatten(1) * (torch.rand_like(x.flatten(1)) > 0.5)


@attack(CHANGING)
def shuffled_features(model, x):
    return x.flatten(1)[:, torch.randperm(D)]


@attack(CHANGING)
def random_of_numpy(model, x):
    return x.flatten(1) + float(np.random.rand())


@attack(CHANGING)
def rarely_left_out_layer(model, x):
    return x.flatten(1) * (random.random() > 0.1)


@attack(CHANGING)
def a_generator_that_is_put_back(model, x):
    with torch.random.fork_rng(devices=[]):
        return x.flatten(1) + 0.1 * torch.randn_like(x.flatten(1))


@attack(CHANGING)
def counted_calls(model, x):
    model.calls = getattr(model, "calls", 0) + 1
    return x.flatten(1) * (1 + 0.1 * model.calls)


@attack(CHANGING)
def calls_counted_in_a_parameter(model, x):
    model.linear.bias.data[0] += 1e-3
    return x.flatten(1)


@attack(CHANGING, module=lambda: nn.BatchNorm1d(D, affine=False))
def running_mean_by_hand(model, x):
    model.part.running_mean.lerp_(x.flatten(1).mean(0), 0.1)
    return x.flatten(1) - model.part.running_mean


@attack(CHANGING)
def previous_batch(model, x):
    before = getattr(model, "before", 0.0)
    model.before = float(x.mean())
    return x.flatten(1) - before


@attack(CHANGING)
def the_first_batch_is_remembered(model, x):
    if not hasattr(model, "kept"):
        model.kept = x.flatten(1).mean(0)
    return x.flatten(1) - model.kept


@attack(MIXING, module=lambda: nn.BatchNorm1d(D))
def batch_norm_in_train_mode(model, x):
    return model.part.train()(x.flatten(1))


@attack(MIXING, module=lambda: nn.BatchNorm2d(D))
def batch_norm_of_images_in_train_mode(model, x):
    return model.part.train()(x.flatten(1)[:, :, None, None].expand(-1, -1, 2, 2)).mean((2, 3))


@attack(MIXING)
def functional_batch_norm(model, x):
    return F.batch_norm(x.flatten(1), None, None, training=True)


@attack(MIXING)
def centred_in_the_batch(model, x):
    return x.flatten(1) - x.flatten(1).mean(0)


@attack(MIXING)
def largest_of_the_batch(model, x):
    return x.flatten(1) / x.abs().max()


@attack(MIXING)
def attention_over_the_batch(model, x):
    return (x.flatten(1) @ x.flatten(1).T).softmax(1) @ x.flatten(1)


@attack(MIXING)
def sums_so_far(model, x):
    return x.flatten(1).cumsum(0)


@attack(MIXING)
def size_of_the_batch(model, x):
    return x.flatten(1) * (1 + 0.01 * len(x))


ATTACKS = [
    *((CHANGES, *case) for case in CHANGING.values()),
    *((MIXES, *case) for case in MIXING.values()),
]


@pytest.fixture
def no_exporter(monkeypatch):
    """Fails a test that comes as far as torch's exporter."""
    monkeypatch.setattr("smx_export.graph.trace.traced_graph", lambda *a: pytest.fail("was traced"))


def in_forward(features):
    return lambda model, x: model.smx(features(model, x))


def in_head(features):
    return lambda model, x: model.smx(model.preprocessing(features(model, x)))


@pytest.mark.parametrize(("sentence", "features", "kwargs"), ATTACKS)
@pytest.mark.parametrize("where", ["features", "head", "forward"])
def test_a_model_that_no_file_can_be_is_refused_before_it_is_traced(
    where, sentence, features, kwargs, tmp_path, no_exporter
):
    wrapped = {"features": features, "head": in_head(features), "forward": in_forward(features)}
    module = kwargs["module"]() if kwargs else None
    model = made(wrapped[where], where=where, module=module)
    with pytest.raises(InputError, match=f"expected .*{sentence}.*, got .*; .* causes? it: "):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("profile", ["robust", "image", "robust,image"])
@pytest.mark.parametrize(("sentence", "features"), [(CHANGES, noise), (MIXES, size_of_the_batch)])
def test_it_is_refused_in_every_profile(profile, sentence, features, tmp_path, no_exporter):
    with pytest.raises(InputError, match=sentence):
        export_onnx(made(features), tmp_path / "model.onnx", profile=profile)


def test_refusing_leaves_model_and_random_numbers_as_they_were(tmp_path):
    model = made(counted_calls)
    with pytest.raises(InputError):
        export_onnx(model, tmp_path / "model.onnx")
    assert not hasattr(model, "calls")
    correct = random_backbone(1)
    state = torch.get_rng_state()
    Comparison(inference_copy(detached_copy(correct), Profile()))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("features", [functional_dropout, centred_in_the_batch, counted_calls])
def test_the_callback_refuses_it_before_the_first_step(features, tmp_path, quiet_trainer):
    trainer = quiet_trainer(callbacks=[OnnxExport(str(tmp_path / "model.onnx"))])
    rows = DataLoader(TensorDataset(torch.randn(8, D), torch.arange(8) % K), batch_size=4)
    with pytest.raises(InputError, match=f"{CHANGES}|{MIXES}"):
        trainer.fit(made(features), rows)
    assert trainer.global_step == 0


def test_the_callback_leaves_the_training_s_random_numbers_alone(tmp_path, quiet_trainer):
    weights = []
    rows = DataLoader(TensorDataset(torch.randn(8, D), torch.arange(8) % K), batch_size=4)
    for callbacks in ([], [OnnxExport(str(tmp_path / "model.onnx"))]):
        model = made(dropout_in_training)
        torch.manual_seed(1)
        quiet_trainer(callbacks=callbacks).fit(model, rows)
        weights.append(model.linear.weight.detach())
    assert torch.equal(*weights)


def parts_that_come_later(model, x):
    return model.part(x.flatten(1))


def test_a_model_that_cannot_answer_yet_is_trained(tmp_path, quiet_trainer):
    class Later(SoftmaxRegression):
        features = parts_that_come_later

        def on_train_start(self):
            super().on_train_start()
            self.part = nn.ReLU()

    rows = DataLoader(TensorDataset(torch.randn(8, D), torch.arange(8) % K), batch_size=4)
    onnx_export = OnnxExport(str(tmp_path / "model.onnx"))
    quiet_trainer(callbacks=[onnx_export]).fit(Later(D, K), rows)
    assert onnx_export.export.report.passed


# The remedies, and what only looks like an attack --------------------------------------------


def dropout_in_training(model, x):
    return F.dropout(x.flatten(1), 0.5, model.training)


def unused_noise(model, x):
    torch.randn_like(x)
    return x.flatten(1).relu()


def kept_for_a_look(model, x):
    model.last = x.flatten(1).relu()
    return model.last


def constant_that_is_kept(model, x):
    if not hasattr(model, "positions"):
        model.positions = torch.linspace(0, 1, D)
    return x.flatten(1) + model.positions.to(x.dtype)


@pytest.mark.parametrize(
    "features", [dropout_in_training, unused_noise, kept_for_a_look, constant_that_is_kept]
)
def test_what_answers_alike_is_not_refused(features):
    Comparison(inference_copy(detached_copy(made(features)), Profile()))


def test_what_a_training_step_kept_for_a_look_is_no_hindrance():
    model = made(lambda model, x: kept_for_a_look(model, model.part(x)), module=nn.Linear(D, D))
    model(torch.randn(4, D)).sum().backward()
    assert not model.last.is_leaf
    Comparison(inference_copy(detached_copy(model), Profile()))


def test_a_model_that_follows_the_remedies_is_exported(tmp_path):
    export = export_onnx(made(dropout_in_training).train(), tmp_path / "model.onnx")
    assert {OPERATORS, AGAIN, BESIDE} <= {check.name for check in export.report.checks}
    assert "Dropout" not in [node.op_type for node in onnx.load(export.path).graph.node]


# A live model held against a file that exists ------------------------------------------------


def as_they_are(model, x):
    return x.flatten(1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The file of a model whose features are its inputs, with the weights of those here."""
    return export_onnx(made(as_they_are), tmp_path_factory.mktemp("good") / "model.onnx").path


@pytest.mark.parametrize("features", [functional_dropout, counted_calls, centred_in_the_batch])
def test_check_parity_refuses_such_a_model(features, path):
    assert check_parity(made(as_they_are), path).passed
    with pytest.raises(InputError, match=f"{CHANGES}|{MIXES}"):
        check_parity(made(features), path)


def test_a_hook_that_makes_the_plain_model_random_is_seen(tmp_path):
    model = SoftmaxRegression(D, K)
    model.linear.register_forward_hook(lambda layer, x, z: z + 0.1 * torch.randn_like(z))
    with pytest.raises(ParityError) as caught:
        export_onnx(model, tmp_path / "model.onnx")
    failed = {check.name: check.detail for check in caught.value.report.failed}
    assert "live model's answer differs from run to run" in failed[AGAIN]
    assert "digits of float32" not in failed  # it is no rounding, and not called so


def state_that_only_large_inputs_change(model, x):
    model.seen = getattr(model, "seen", 0) + int(x.abs().max() > 1e3)
    return x.flatten(1) * (1 + 0.1 * model.seen)


def noise_on_large_inputs(model, x):
    large = x.flatten(1).abs() > 1e3
    return x.flatten(1) + torch.from_numpy(np.random.rand(1).astype(np.float32)) * large


@pytest.mark.parametrize("features", [state_that_only_large_inputs_change, noise_on_large_inputs])
def test_what_ordinary_rows_do_not_show_the_report_does(features, path):
    np.random.seed(1)  # of the noise: what it draws decides which checks see it
    report = check_parity(made(features), path)
    assert "digits of float32" in [check.name for check in report.failed]


# What float32 explains -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CHANGING.values(), ids=CHANGING)
def test_no_tolerance_explains_what_float32_cannot(case):
    """Were it not refused before, randomness would still not be taken for rounding."""
    features, kwargs = case
    model = detached_copy(made(features, module=kwargs["module"]() if kwargs else None))
    x = np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    expected = MeasuredReference(model).expected(x)
    size = 1 + np.abs(expected.log_probs).max(1, keepdims=True)
    comparable = expected.comparable
    # √u, sixteenfold; the head's own bound is some 30 u of numbers as small as these.
    assert (expected.tolerance[comparable] <= (SAFETY * 2.0**-12 + 1e-4) * size[comparable]).all()


def test_randomness_that_got_as_far_as_the_report_fails_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "smx_export.parity.comparison.refuse_nondeterministic", lambda *arguments: None
    )
    with pytest.raises(ParityError) as caught:
        export_onnx(made(functional_dropout), tmp_path / "model.onnx")
    report = caught.value.report
    failed = {check.name: check.detail for check in report.failed}
    assert {OPERATORS, AGAIN, "digits of float32"} <= set(failed)
    assert "which rounding does not explain" in failed["digits of float32"]
    assert report.verdict.startswith("parity FAILED")
    assert all(flip.margin > flip.tolerance or flip.margin < 0.1 for flip in report.flips)


def chaotic(gain):
    """Sines of large sines: each layer multiplies the rounding error some fifty times."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 32)]
    for _ in range(5):
        layers += [Sine(gain), nn.Linear(32, 32)]
    return Backboned(nn.Sequential(*layers), 32, K, input_shape=SHAPE)


def test_a_model_that_float32_cannot_tell_is_refused_and_the_remedy_works(tmp_path):
    with pytest.raises(InputError, match=f"{DIGITS}.* lower frequencies"):
        export_onnx(chaotic(300.0), tmp_path / "model.onnx")
    assert export_onnx(chaotic(3.0), tmp_path / "model.onnx").report.passed


@pytest.mark.parametrize("features", [lambda model, x: x.flatten(1).relu(), None])
def test_a_bias_that_swallows_the_answer_is_no_parity_although_a_bound_allows_it(
    features, tmp_path
):
    """At 1e8 float32 numbers lie 8 apart: the answers are off by nats, and file and model agree."""
    model = SoftmaxRegression(D, K) if features is None else made(features)
    with torch.no_grad():
        model.linear.bias += 1e8
    with pytest.raises((InputError, ParityError), match=r"more than half of its digits.* biases"):
        export_onnx(model, tmp_path / "model.onnx")
    with torch.no_grad():
        model.linear.bias -= 1e8 - 1e3
    assert export_onnx(model, tmp_path / "model.onnx").report.passed


def test_your_rows_on_which_float32_keeps_no_digits_fail(tmp_path):
    model = made(lambda model, x: torch.sin(x.flatten(1) * 10))
    path = export_onnx(model, tmp_path / "model.onnx").path
    x = 1e7 + np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    report = check_parity(model, path, x)
    (check,) = report.failed
    assert check.name == "digits of float32"
    assert "of 64 rows of 'your data'" in check.detail
    assert report.unjudged >= 64
    assert not report.flips
    assert f"not judged on {report.unjudged}" in report.verdict


# Correct models, of which none may be refused ------------------------------------------------


def accepted(model, rows=24):
    """Hold the live model, asked row by row, against what a file may answer."""
    inference = inference_copy(detached_copy(model), Profile())
    comparison = Comparison(inference)
    probes = {probe.name: probe.x[:rows] for probe in comparison.inputs.probes()}
    for name in ("random rows", "zeros", "huge", "tiny", "one-hot"):
        x = probes[name]
        expected = comparison.reference.expected(x)
        with torch.no_grad():
            live = inference.model(torch.from_numpy(x)).numpy()
            alone = torch.cat([inference.model(torch.from_numpy(x[i : i + 1]))
                               for i in range(0, len(x), 8)]).numpy()  # fmt: skip
        assert not Lost.of(comparison.reference, x, live, expected).fault(name), name
        error = np.abs(alone - expected.log_probs[::8])[expected.comparable[::8]]
        assert (error <= expected.tolerance[::8][expected.comparable[::8]]).all(), name
    return expected


@pytest.mark.parametrize("seed", sampled(range(60), every=5))
def test_a_correct_backbone_is_accepted_whatever_its_parts(seed):
    accepted(random_backbone(seed))


@pytest.mark.parametrize("seed", [2, whole(3)])
def test_its_file_passes(seed, tmp_path):
    assert export_onnx(random_backbone(seed), tmp_path / "model.onnx").report.passed


class Signs(nn.Module):
    def forward(self, x):
        return torch.sign(x)


class Rounded(nn.Module):
    def forward(self, x):
        return torch.round(4 * x) / 4


@pytest.mark.parametrize("jump", [Signs, Rounded])
@pytest.mark.parametrize("kind", [Backboned, Everything])
def test_a_function_that_jumps_is_accepted(jump, kind):
    torch.manual_seed(0)
    flat = int(np.prod(SHAPE))
    layers = [nn.Flatten(), nn.Linear(flat, 32), jump(), nn.Linear(32, 16), jump()]
    accepted(kind(nn.Sequential(*layers), 16, K, input_shape=SHAPE))


def test_sines_of_large_inputs_are_accepted_and_not_judged(tmp_path):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), Sine(30.0), nn.Linear(32, 16))
    model = Backboned(layers, 16, K, input_shape=SHAPE)
    report = export_onnx(model, tmp_path / "model.onnx").report
    assert report.passed
    assert 0 < report.unjudged <= 64 + 16  # huge rows, and one-hots of up to 10⁶
    assert LARGEST_ROUNDING == 2.0**-12
    reference = reference_of(detached_copy(model))
    huge = 1e7 * np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)
    assert not reference.expected(huge).comparable.any()
    assert "selftest" in metadata_of(onnx.load(tmp_path / "model.onnx"))
