"""Models and files that answer at random, keep state or mix rows; and correct ones that do not.

No file can be the first, whatever was measured; none of the second may be refused.
"""

import json
import random
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from backbones import SHAPE, Backboned, Everything, Sine, random_backbone
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F  # noqa: N812 (its customary name)

from smx_export import FileError, ParityError, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.files import metadata_of, sealed, weights_sha256
from smx_export.findings import Lost
from smx_export.graph import sign
from smx_export.operators import unsteady
from smx_export.parity import Comparison
from smx_export.profile import Profile
from smx_export.reference import LARGEST_ROUNDING, SAFETY, MeasuredReference, reference_of
from smx_export.selftest import read_intact, selftest
from smx_export.shipped import inference_copy, shipped_as
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
    return x.flatten(1) * (random.random() > 0.02)


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
    monkeypatch.setattr("smx_export.trace.traced_graph", lambda *a: pytest.fail("was traced"))


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
    Comparison(shipped_as(inference_copy(correct), Profile()))
    assert torch.equal(torch.get_rng_state(), state)


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
    Comparison(shipped_as(inference_copy(made(features)), Profile()))


def test_a_model_that_follows_the_remedies_is_exported(tmp_path):
    export = export_onnx(made(dropout_in_training).train(), tmp_path / "model.onnx")
    assert {OPERATORS, AGAIN, BESIDE} <= {check.name for check in export.report.checks}
    assert "Dropout" not in [node.op_type for node in onnx.load(export.path).graph.node]


# Files that answer at random -----------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Two models with a backbone, the plain model, and their files."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    traced = made(lambda model, x: model.part(x.flatten(1)), module=nn.Linear(D, D))
    models = {
        "traced": traced,
        "plain": SoftmaxRegression(D, K),
        "as they are": made(lambda model, x: x.flatten(1)),
    }
    for name, model in models.items():
        export_onnx(model, folder / f"{name}.onnx")
    return SimpleNamespace(models=models, path=lambda name: folder / f"{name}.onnx")


def spoiled(source, target, change):
    """A changed file, sealed and signed off as the exporter would."""
    proto = onnx.load(source)
    change(proto)
    metadata = metadata_of(proto)
    signed = json.loads(metadata["selftest"]) | {"weights_sha256": weights_sha256(proto)}
    sign(proto, metadata | {"selftest": json.dumps(signed)})
    target.write_bytes(sealed(proto))
    return target


def between(proto, nodes, constants=()):
    """Put nodes between the input and its readers, who then read ``seen``."""
    for node in proto.graph.node:
        node.input[:] = ["seen" if name == "input" else name for name in node.input]
    for position, node in enumerate(nodes):
        proto.graph.node.insert(position, node)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in constants
    )


def added(proto, *draws):
    """The input, and ten to the -30 of what is drawn: no answer changes."""
    tiny = helper.make_node("Mul", ["drawn", "tiny"], ["little"])
    add = helper.make_node("Add", ["input", "little"], ["seen"])
    between(proto, [*draws, tiny, add], [("tiny", np.float32(1e-30))])


def like(op_type, **attributes):
    node = helper.make_node(op_type, ["input"], ["drawn"], "draw", **attributes)
    return lambda proto: added(proto, node)


def of_nothing(op_type):
    node = helper.make_node(op_type, [], ["drawn"], "draw", shape=[1, D])
    return lambda proto: added(proto, node)


def multinomial(proto):
    draw = helper.make_node("Multinomial", ["input"], ["classes"], "draw", sample_size=1)
    cast = helper.make_node("Cast", ["classes"], ["drawn"], to=TensorProto.FLOAT)
    added(proto, draw, cast)


def bernoulli_of_chances(proto):
    chances = helper.make_node("Sigmoid", ["input"], ["chances"])
    added(proto, chances, helper.make_node("Bernoulli", ["chances"], ["drawn"], "draw"))


def dropout(training, ratio=0.0):
    def change(proto):
        node = helper.make_node("Dropout", ["input", "ratio", "training"], ["seen"], "draw")
        between(proto, [node], [("ratio", np.float32(ratio)), ("training", np.bool_(training))])

    return change


def dropout_by_a_constant(training):
    def change(proto):
        tensor = numpy_helper.from_array(np.bool_(training))
        constant = helper.make_node("Constant", [], ["training"], value=tensor)
        node = helper.make_node("Dropout", ["input", "", "training"], ["seen"], "draw")
        between(proto, [constant, node])

    return change


def dropout_by_computation(proto):
    """Its training mode depends on the input."""
    largest = helper.make_node("ReduceMax", ["input"], ["largest"], keepdims=0)
    more = helper.make_node("Greater", ["largest", "limit"], ["training"])
    node = helper.make_node("Dropout", ["input", "", "training"], ["seen"], "draw")
    between(proto, [largest, more, node], [("limit", np.float32(1e30))])


def dropout_without_a_mode(proto):
    between(proto, [helper.make_node("Dropout", ["input"], ["seen"], "draw")])


def batch_norm(training):
    def change(proto):
        outputs = ["seen", "new_mean", "new_var"] if training else ["seen"]
        node = helper.make_node(
            "BatchNormalization", ["input", *"abcd"], outputs, "draw",
            training_mode=int(training), epsilon=0.0,
        )  # fmt: skip
        ones, zeros = np.ones(D, np.float32), np.zeros(D, np.float32)
        between(proto, [node], [("a", ones), ("b", zeros), ("c", zeros), ("d", ones)])

    return change


def in_a_branch(proto):
    """Of an If that never takes it."""
    draw = helper.make_node("RandomNormalLike", ["input"], ["there"], "draw")
    stay = helper.make_node("Identity", ["input"], ["here"])
    branches = [
        helper.make_graph([n], "branch", [], [helper.make_tensor_value_info(n.output[0], 1, None)])
        for n in (draw, stay)
    ]
    node = helper.make_node("If", ["never"], ["seen"], then_branch=branches[0],
                            else_branch=branches[1])  # fmt: skip
    between(proto, [node], [("never", np.bool_(False))])


def in_a_function(proto):
    body = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], "draw"),
        helper.make_node("Sub", ["noise", "noise"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", proto.opset_import[0].version)]
    proto.functions.append(helper.make_function("own", "Shake", ["x"], ["y"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    between(proto, [helper.make_node("Shake", ["input"], ["seen"], domain="own")])


UNSTEADY = {
    "RandomNormalLike": like("RandomNormalLike"),
    "seeded": like("RandomNormalLike", seed=1.0),
    "RandomUniformLike": like("RandomUniformLike"),
    "RandomNormal": of_nothing("RandomNormal"),
    "RandomUniform": of_nothing("RandomUniform"),
    "Bernoulli": bernoulli_of_chances,
    "Multinomial": multinomial,
    "dropout of nothing": dropout(True),
    "dropout": dropout(True, 0.1),
    "dropout by a constant": dropout_by_a_constant(True),
    "dropout by computation": dropout_by_computation,
    "batch norm": batch_norm(True),
    "branch": in_a_branch,
    "function": in_a_function,
}
HARMLESS = {
    "dropout without a mode": dropout_without_a_mode,
    "dropout that is off": dropout(False, 0.5),
    "dropout that a constant turns off": dropout_by_a_constant(False),
    "batch norm in eval mode": batch_norm(False),
}


@pytest.mark.parametrize("change", UNSTEADY.values(), ids=UNSTEADY)
@pytest.mark.parametrize("name", ["traced", "plain"])
def test_a_file_with_a_random_operator_fails_whatever_it_answers(name, change, good, tmp_path):
    path = spoiled(good.path(name), tmp_path / "bad.onnx", change)
    report = check_parity(good.models[name], path)
    (check,) = [check for check in report.failed if check.name == OPERATORS]
    assert "'draw'" in check.detail
    assert "eval mode" in check.detail
    (check,) = [check for check in selftest(path).checks if check.name == OPERATORS]
    assert not check.passed
    with pytest.raises(FileError, match="'draw'"):
        read_intact(path)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("name", ["traced", "plain"])
def test_dropout_and_batch_norm_in_eval_mode_are_harmless(name, change, good, tmp_path):
    path = spoiled(good.path(name), tmp_path / "fine.onnx", change)
    assert check_parity(good.models[name], path).passed
    assert selftest(path).passed


def test_a_name_that_is_false_in_one_place_is_not_false_in_another(good):
    proto = onnx.load(good.path("plain"))
    dropout(False)(proto)
    assert not list(unsteady(proto))
    proto.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    assert list(unsteady(proto)) == ["Dropout 'draw'"]


def faint(proto):
    """Noise far within the tolerance, but not nothing."""
    between(
        proto,
        [
            helper.make_node("RandomNormalLike", ["input"], ["drawn"]),
            helper.make_node("Mul", ["drawn", "tiny"], ["little"]),
            helper.make_node("Add", ["input", "little"], ["seen"]),
        ],
        [("tiny", np.float32(1e-7))],
    )


def of_the_batch(proto):
    """The batch's mean is subtracted from each row."""
    mean = helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1)
    if proto.opset_import[0].version < 18:  # axes were no input before
        mean = helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=1, axes=[0])
    little = helper.make_node("Mul", ["mean", "part"], ["little"])
    sub = helper.make_node("Sub", ["input", "little"], ["seen"])
    between(proto, [mean, little, sub], [("axes", np.array([0])), ("part", np.float32(1e-2))])


@pytest.mark.parametrize(("change", "name"), [(faint, AGAIN), (of_the_batch, BESIDE)])
@pytest.mark.parametrize("kind", ["traced", "plain"])
def test_the_check_that_must_see_it_does(change, name, kind, good, tmp_path):
    report = check_parity(
        good.models[kind], spoiled(good.path(kind), tmp_path / "bad.onnx", change)
    )
    assert name in [check.name for check in report.failed]


def test_a_wrong_file_is_not_called_random(good, tmp_path):
    def double(proto):
        between(proto, [helper.make_node("Add", ["input", "input"], ["seen"])])

    report = check_parity(
        good.models["traced"], spoiled(good.path("traced"), tmp_path / "bad.onnx", double)
    )
    assert not report.passed
    assert not {OPERATORS, AGAIN, BESIDE} & {check.name for check in report.failed}


def test_the_command_line_refuses_an_old_file_that_answers_at_random(good, tmp_path, capsys):
    path = spoiled(good.path("plain"), tmp_path / "bad.onnx", like("RandomNormalLike"))
    assert main(["selftest", str(path)]) == 1
    assert main(["verify", str(path), "--targets", "onnxruntime"]) == 2
    assert main(["web", str(path), str(tmp_path / "site")]) == 2
    assert "RandomNormalLike 'draw'" in capsys.readouterr().err


# A live model held against a file that exists ------------------------------------------------


@pytest.mark.parametrize("features", [functional_dropout, counted_calls, centred_in_the_batch])
def test_check_parity_refuses_such_a_model(features, good):
    with pytest.raises(InputError, match=f"{CHANGES}|{MIXES}"):
        check_parity(made(features), good.path("traced"))


def state_that_only_large_inputs_change(model, x):
    model.seen = getattr(model, "seen", 0) + int(x.abs().max() > 1e3)
    return x.flatten(1) * (1 + 0.1 * model.seen)


def noise_on_large_inputs(model, x):
    large = x.flatten(1).abs() > 1e3
    return x.flatten(1) + torch.from_numpy(np.random.rand(1).astype(np.float32)) * large


@pytest.mark.parametrize("features", [state_that_only_large_inputs_change, noise_on_large_inputs])
def test_what_ordinary_rows_do_not_show_the_report_does(features, good):
    assert check_parity(made(lambda model, x: x.flatten(1)), good.path("as they are")).passed
    report = check_parity(made(features), good.path("as they are"))
    assert "digits of float32" in [check.name for check in report.failed]


# What float32 explains -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CHANGING.values(), ids=CHANGING)
def test_no_tolerance_explains_what_float32_cannot(case):
    """Were it not refused before, randomness would still not be taken for rounding."""
    features, kwargs = case
    model = inference_copy(made(features, module=kwargs["module"]() if kwargs else None))
    x = np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    expected = MeasuredReference(model).expected(x)
    size = 1 + np.abs(expected.log_probs).max(1, keepdims=True)
    judged = expected.judged
    # √u, sixteenfold; the head's own bound is some 30 u of numbers as small as these.
    assert (expected.tolerance[judged] <= (SAFETY * 2.0**-12 + 1e-4) * size[judged]).all()


def test_randomness_that_got_as_far_as_the_report_fails_it(tmp_path, monkeypatch):
    monkeypatch.setattr("smx_export.parity.refuse_unsteady", lambda *arguments: None)
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
    shipped = shipped_as(inference_copy(model), Profile())
    comparison = Comparison(shipped)
    probes = {probe.name: probe.x[:rows] for probe in comparison.questions.probes()}
    for name in ("random rows", "zeros", "huge", "tiny", "one-hot"):
        x = probes[name]
        expected = comparison.reference.expected(x)
        with torch.no_grad():
            live = shipped.model(torch.from_numpy(x)).numpy()
            alone = torch.cat([shipped.model(torch.from_numpy(x[i : i + 1]))
                               for i in range(0, len(x), 8)]).numpy()  # fmt: skip
        assert not Lost.of(comparison.reference, x, live, expected).fault(name), name
        error = np.abs(alone - expected.log_probs[::8])[expected.judged[::8]]
        assert (error <= expected.tolerance[::8][expected.judged[::8]]).all(), name
    return expected


@pytest.mark.parametrize("seed", range(60))
def test_a_correct_backbone_is_accepted_whatever_its_parts(seed):
    accepted(random_backbone(seed))


@pytest.mark.parametrize("seed", [2, 3])
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
    assert 0 < report.unjudged <= 64
    assert LARGEST_ROUNDING == 2.0**-12
    reference = reference_of(inference_copy(model))
    huge = 1e7 * np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)
    assert not reference.expected(huge).judged.any()
    assert "selftest" in metadata_of(onnx.load(tmp_path / "model.onnx"))
