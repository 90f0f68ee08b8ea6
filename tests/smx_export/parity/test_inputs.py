"""Token ids and several inputs: the file is the model, and each kind of wrong file is refused.

The judge of the answers is numpy, from the model's arrays alone (``typed_inputs.probabilities``).
"""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations.editing import before
from onnx import numpy_helper
from sampled import whole
from torch import nn
from trainers import quiet_trainer
from typed_inputs import CLASSES, LENGTH, WORDS, Several, Tokens, made, probabilities, rows, tensors

from smx_export import FileError, OnnxClassifier, OnnxExport, Profile, check_parity, export_onnx
from smx_export.artifact.comparison import compare
from smx_export.artifact.declared import declared
from smx_export.artifact.rows import are_floats, heard, joined, numbers, parts_of, told, width_of
from smx_export.artifact.vectors import Vectors
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import inference_copy
from smx_export.parity.comparison import comparison
from smx_export.parity.probes.mixed import Field, Mixed, of_integers, of_numbers
from smx_export.parity.user_data import UserRows
from smx_export.targets.matrix import matrix
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = (Tokens, Several)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of each kind and its file."""
    folder = tmp_path_factory.mktemp("typed")

    def export(kind):
        model = made(kind, preprocessing="standardize")
        x, y = tensors(rows(kind, 300)), torch.arange(300) % CLASSES
        model.fit_statistics([(x, y)])
        return model, export_onnx(model, folder / f"{kind.__name__}.onnx", data=(x, y))

    return {kind: export(kind) for kind in KINDS}


def asked(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probs"], x if isinstance(x, dict) else {"input": x})[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 257])
def test_the_file_answers_what_numpy_does(kind, count, exported):
    model, export = exported[kind]
    x = rows(kind, count, seed=count)
    right = probabilities(model, x)
    assert np.abs(asked(export.path, x) - right).max() < 1e-5
    assert np.abs(OnnxClassifier(export.path).predict_proba(x) - right).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_names_dtypes_and_shapes_are_kept_each_with_its_batch(kind, exported):
    found = {
        value.name: (
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in onnx.load(exported[kind][1].path).graph.input
    }
    wanted = {
        "image": ("float32", ["batch", 4, 4]),
        "age": ("float32", ["batch"]),
        "ids": ("int64", ["batch", LENGTH]),
        "mask": ("bool", ["batch", LENGTH]),
    }
    assert found == (wanted if kind is Several else {"input": wanted["ids"]})
    assert [*found] == ([*wanted] if kind is Several else ["input"])  # in the order declared


@pytest.mark.parametrize("kind", KINDS)
def test_the_gate_passes_again_and_the_file_tests_itself(kind, exported):
    model, export = exported[kind]
    assert check_parity(model, export.path).passed
    assert selftest(export.path).passed
    assert export.report.exact_graph


@pytest.mark.parametrize("kind", [whole(Tokens), Several])
def test_runtimes_that_get_one_input_of_numbers_are_not_run(kind, exported):
    found = matrix(exported[kind][1].path, ["onnxruntime", "onnxruntime-oldest", "onnx-reference"])
    assert {row.verdict for row in found.rows} == {"passed"}, str(found)
    (row,) = matrix(exported[kind][1].path, ["openvino"]).rows
    assert row.verdict == "not run"


def _seen(model, path, change):
    """Whether the questions, without a look at the graph, see what is changed in a file."""
    proto = onnx.load(path)
    change(proto)
    known = comparison(model, path)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for probe in known.inputs.probes():
        outputs = session.run(None, known.inference.feed(probe.batch))
        named = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
        if not compare(known.answering.to(probe).expected, named).right:
            return True
    return False


def _moved(name, at, by=1e-3):
    def change(proto):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor).copy()
        array[at] += by
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", [1, 2, 17, WORDS - 1])
def test_the_questions_see_one_word_that_is_off_by_a_thousandth(kind, word, exported):
    model, export = exported[kind]
    table = next(n.name for n in onnx.load(export.path).graph.initializer if "words" in n.name)
    assert not _seen(model, export.path, lambda proto: None)
    assert _seen(model, export.path, _moved(table, word))
    unused = 0 if kind is Tokens else None  # outside of the range that the model states
    if unused is not None:
        assert not _seen(model, export.path, _moved(table, unused))


def _stored(proto, value):
    """The name of a constant that is put into a file."""
    name = f"constant_{len(proto.graph.initializer)}"
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


WRONG = {
    "one input a thousandth too large": lambda p: before(
        p, "age", ("Mul", [_stored(p, np.float32(1.001))], {})
    ),
    "one input clipped far away": lambda p: before(
        p, "age", ("Min", [_stored(p, np.float32(30))], {})
    ),
    "one input clipped at zero": lambda p: before(p, "age", ("Relu", [], {})),
    "a mask turned around": lambda p: before(p, "mask", ("Not", [], {})),
    "all words there": lambda p: before(p, "mask", ("Or", [_stored(p, np.True_)], {})),
    "an image transposed": lambda p: before(p, "image", ("Transpose", [], {"perm": [0, 2, 1]})),
    "an image rounded to bytes": lambda p: before(
        p,
        "image",
        ("Mul", [_stored(p, np.float32(255))], {}),
        ("Round", [], {}),
        ("Div", [_stored(p, np.float32(255))], {}),
    ),
    "the last word taken for the one before": lambda p: before(
        p, "ids", ("Min", [_stored(p, np.int64(WORDS - 2))], {})
    ),
    "padding taken for a word": lambda p: before(p, "ids", ("Max", [_stored(p, np.int64(1))], {})),
    "words in another order": lambda p: before(
        p, "ids", ("Gather", [_stored(p, np.arange(LENGTH)[::-1].copy())], {"axis": 1})
    ),
    "words of the first row": lambda p: before(
        p, "ids", ("Gather", [_stored(p, np.zeros(1, np.int64))], {"axis": 0})
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_questions_see_what_one_input_is_wrong_about(wrong, exported):
    model, export = exported[Several]
    assert _seen(model, export.path, WRONG[wrong]), wrong


def _swap(proto, one, other):
    for node in proto.graph.node:
        names = {one: other, other: one}
        node.input[:] = [names.get(name, name) for name in node.input]


class Twins(SoftmaxRegression):
    """Two inputs of one shape."""

    def __init__(self):
        super().__init__(4, 3, input_shape={"left": (2,), "right": (2,)})

    def features(self, **inputs):
        return torch.cat([inputs["left"], 2 * inputs["right"]], 1)


def test_a_file_that_takes_one_input_for_the_other_is_refused(tmp_path):
    torch.manual_seed(0)
    model = Twins()
    path = export_onnx(model, tmp_path / "twins.onnx").path
    proto = onnx.load(path)
    _swap(proto, "left", "right")
    (tmp_path / "swapped.onnx").write_bytes(proto.SerializeToString())
    failed = {c.name for c in check_parity(model, tmp_path / "swapped.onnx").failed}
    assert "graph" in failed
    assert _seen(model, path, lambda proto: _swap(proto, "left", "right"))
    del proto.graph.input[1]
    proto.graph.input[0].name = "input"
    (tmp_path / "one.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(FileError):
        check_parity(model, tmp_path / "one.onnx")


@pytest.mark.parametrize("what", ["dtype", whole("shape"), whole("order")])
def test_another_declaration_is_refused(what, exported, tmp_path):
    model, export = exported[Several]
    proto = onnx.load(export.path)
    if what == "dtype":
        proto.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    elif what == "shape":
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16
    else:
        inputs = [*proto.graph.input][::-1]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
    (tmp_path / "other.onnx").write_bytes(proto.SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx.checker, "check_model", lambda *_: None)
        assert not check_parity(model, tmp_path / "other.onnx").passed


# The questions -----------------------------------------------------------------------------------

fields = st.lists(
    st.builds(
        lambda dtype, shape, low, size: (np.dtype(dtype), tuple(shape), low, size),
        st.sampled_from(["int64", "int32", "uint8", "bool", "float32"]),
        st.lists(st.integers(1, 3), max_size=2),
        st.integers(0, 100),
        st.integers(1, 150),
    ),
    min_size=1,
    max_size=4,
)


@given(fields, st.booleans())
def test_no_question_leaves_the_ranges_and_every_value_has_a_turn(described, stated):
    made_of = []
    for number, (dtype, shape, low, size) in enumerate(described):
        bounds = (0, 1) if dtype.kind == "b" else (low, low + size)
        if dtype.kind == "f" and not stated:
            bounds = None
        made_of.append(Field(f"x{number}", dtype, shape, bounds))
    space = Mixed(tuple(made_of), several=True)
    real = np.random.default_rng(0).standard_normal((8, space.flat().width))
    asked = [space.ordinary(5), space.corners(), *(p.x for p in of_numbers(space, real))]
    values = [p.x for p in of_integers(space)]
    for x in (*asked, *values):
        for field in made_of:
            part = x[field.name]
            assert part.dtype == field.dtype
            assert part.shape == (len(x), *field.shape)
            if field.bounds is not None:
                assert part.min() >= np.float32(field.bounds[0])
                assert part.max() <= np.float32(field.bounds[1])
    for field in made_of:
        if field.dtype.kind != "f":
            low, high = field.bounds
            seen = np.unique(np.concatenate([x[field.name].ravel() for x in values]).astype(int))
            assert seen.tolist() == [*range(low, high + 1)]


def test_of_many_values_both_ends_and_evenly_chosen_ones_have_a_turn():
    most = 2**62
    space = Mixed((Field("ids", np.dtype(np.int64), (3,), (0, most)),), several=False)
    seen = np.concatenate([probe.x.ravel() for probe in of_integers(space, most=100)])
    assert {0, most} <= {*seen.tolist()}
    assert len({*seen.tolist()}) == 300
    assert space.ordinary(4).dtype == np.int64


# Rows and vectors --------------------------------------------------------------------------------


def test_rows_of_several_inputs_are_taken_apart_again():
    x = rows(Several, 7)
    together = joined(x)
    assert {n: p.tolist() for n, p in parts_of(together).items()} == {
        name: part.tolist() for name, part in x.items()
    }
    assert heard(told(together.dtype)) == together.dtype
    assert width_of(together) == 16 + 1 + 2 * LENGTH
    assert numbers(together[2:3])[0, 0] == x["age"][2]  # in the order of their names
    assert are_floats(together).sum() == 17


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_read_as_they_were_written(kind, exported):
    model, export = exported[kind]
    vectors = comparison(model, export.path).inputs.vectors
    again, _ = Vectors.from_json(vectors.to_json(""))
    assert again.rows.dtype == vectors.rows.dtype
    assert np.array_equal(numbers(again.rows), numbers(vectors.rows))
    assert again.inputs == vectors.inputs
    assert len(vectors.inputs) == 4  # two ordinary rows, both ends


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda v: v["rows"].pop("age"),
        lambda v: v["shape"].update(age=[3]),
        lambda v: v["shape"].update(age=[0]),
        lambda v: v["shape"].update(ids="6"),
        lambda v: v.update(shape=[4, 4]),
        lambda v: v.update(rows="AAAA"),
        lambda v: v.update(dtype={}, shape={}, rows={}),
        lambda v: v["dtype"].update(ids="object"),
        lambda v: v["dtype"].update(ids={}),
        lambda v: v["rows"].update(ids=v["rows"]["ids"][:-8]),
        lambda v: v.update(inputs=[[0, 1e400]]),
        lambda v: v.update(inputs=[[7, 1.0]]),
    ],
)
def test_damaged_vectors_are_refused(spoilt, exported):
    model, export = exported[Several]
    values = json.loads(comparison(model, export.path).inputs.vectors.to_json(""))
    spoilt(values)
    with pytest.raises(FileError, match="self-test vectors"):
        Vectors.from_json(json.dumps(values))


# Refusals ----------------------------------------------------------------------------------------


class Plain(SoftmaxRegression):
    """Any arguments, with features of its own."""

    def __init__(self, **kwargs):
        super().__init__(4, 3, **kwargs)
        self.words = nn.Embedding(10, 4)

    def features(self, x):
        return self.words(x).mean(1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_dtype": "int64", "input_shape": {}}, None),
        ({"input_dtype": "float64"}, "out of float32, int64"),
        ({"input_dtype": "float16"}, "out of float32, int64"),
        ({"input_dtype": object()}, "out of float32, int64"),
        ({"input_dtype": {"a": "int64"}}, "as a dict by name"),
        ({"input_range": {"a": (0, 1)}}, "as a dict by name"),
        ({"input_dtype": "int64", "input_range": (0, 9.5)}, "two whole numbers"),
        ({"input_dtype": "uint8", "input_range": (0, 256)}, "two whole numbers"),
        ({"input_dtype": "int32", "input_range": (9, 0)}, "the smaller first"),
        ({"input_shape": {"a": (2,)}, "input_range": (0, 1)}, "as a dict by name"),
        ({"input_shape": {"a": (2,)}, "input_dtype": {"b": "int64"}}, "the inputs a"),
        ({"input_shape": {"a": (2,)}, "input_range": {"b": (0, 1)}}, "the inputs a"),
        ({"input_shape": {"a b": (2,)}}, "names of inputs"),
        ({"input_shape": {"self": (2,)}}, "names of inputs"),
        ({"input_shape": {3: (2,)}}, "names of inputs"),
        ({"input_shape": {"a": (0,)}}, "whole numbers of at least"),
    ],
)
def test_what_is_no_description_of_inputs_is_refused(arguments, said):
    if said is None:
        Plain(**arguments)
        return
    with pytest.raises(InputError, match=said) as error:
        Plain(**arguments)
    assert ", got " in str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, np.int64, np.dtype("int64"), int, "torch.int64"])
def test_dtypes_of_torch_and_numpy_are_names(dtype):
    assert Plain(input_dtype=dtype, input_shape=(5,)).hparams["input_dtype"] == "int64"


def test_the_plain_model_takes_numbers():
    for arguments in ({"input_dtype": "int64"}, {"input_shape": {"a": (4,)}}):
        with pytest.raises(InputError, match="features"):
            SoftmaxRegression(4, 3, **arguments)


class NoRange(Tokens):
    """Token ids of an unknown vocabulary."""

    def __init__(self):
        super().__init__()
        self.input_range = None


def loader(kind, count=60):
    x = tensors(rows(kind, count))
    y = torch.arange(count) % CLASSES
    return [(x, y)] if isinstance(x, dict) else [(x[i : i + 20], y[i : i + 20]) for i in (0, 20)]


def test_integers_without_a_range_are_refused_before_training_and_the_remedy_works(tmp_path):
    trainer = quiet_trainer(callbacks=[OnnxExport(str(tmp_path / "m.onnx"))], max_epochs=1)
    with pytest.raises(InputError, match=r"input_range=\(0, …\)"):
        trainer.fit(NoRange(), loader(Tokens))
    assert trainer.global_step == 0
    model = NoRange().eval()
    assert export_onnx(model, tmp_path / "m.onnx", input_range=(1, WORDS - 1)).report.passed
    assert check_parity(model, tmp_path / "m.onnx").passed  # it takes the range that the file tells


def test_a_range_that_the_model_cannot_take_is_refused_with_that_remedy(tmp_path):
    model = NoRange().eval()
    with pytest.raises(InputError, match="input_range, of token ids"):
        export_onnx(model, tmp_path / "m.onnx", input_range=(0, 10 * WORDS))


@pytest.mark.parametrize(
    ("profile", "said"), [("image", "one input of float32"), ("compact", "nothing but standardis")]
)
def test_profiles_of_plain_inputs_are_refused(profile, said, tmp_path):
    data = (rows(Tokens, 6), np.arange(6) % CLASSES)
    with pytest.raises(InputError, match=said):
        export_onnx(made(Tokens), tmp_path / "m.onnx", profile=profile, data=data)


class Probs(Twins):
    """An input that is called as an output is."""

    def __init__(self):
        SoftmaxRegression.__init__(self, 4, 3, input_shape={"left": (2,), "probs": (2,)})

    def features(self, left, probs):
        return torch.cat([left, probs], 1)


class Winner(Twins):
    """An input that is called as a value of the graph is."""

    def __init__(self):
        SoftmaxRegression.__init__(self, 4, 3, input_shape={"left": (2,), "winner": (2,)})

    def features(self, left, winner):
        return torch.cat([left, winner], 1)


def test_an_input_is_not_called_as_a_value_of_the_graph_is(tmp_path):
    with pytest.raises(InputError, match="rename the input"):
        export_onnx(Winner(), tmp_path / "m.onnx", profile=Profile.of(outputs=["label"]))
    assert export_onnx(Winner(), tmp_path / "m.onnx").report.passed


@pytest.mark.whole
def test_a_batch_tells_to_onnx_its_shapes(tmp_path):
    torch.manual_seed(0)
    sample = {"left": torch.zeros(2, 2), "right": torch.zeros(2, 2)}
    assert Twins().to_onnx(tmp_path / "m.onnx", sample).exists()


class Input(SoftmaxRegression):
    """The one input has a name: that of files of one input."""

    def __init__(self):
        super().__init__(4, 3, input_shape={"input": (4,)})

    def features(self, **inputs):
        return torch.tanh(inputs["input"])


def test_one_input_by_name_may_be_called_input(tmp_path):
    model = Input().eval()
    export = export_onnx(model, tmp_path / "m.onnx", data={"input": np.ones((2, 4))})
    assert check_parity(model, export.path).passed
    assert selftest(export.path).passed
    x = {"input": np.ones((2, 4), np.float32)}
    with torch.no_grad():
        right = model(tensors(x)).exp().numpy()
    assert np.abs(OnnxClassifier(export.path).predict_proba(x) - right).max() < 1e-5


def test_a_declared_input_of_more_than_numpy_can_hold_is_a_fault(exported, tmp_path):
    proto = onnx.load(exported[Several][1].path)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**40
    assert not declared(proto).passed


def test_an_input_is_not_called_as_an_output_is(tmp_path):
    with pytest.raises(InputError, match="rename it"):
        export_onnx(Probs(), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.pop("age"), "the inputs image, age, ids, mask"),
        (lambda x: x.update(more=x["age"]), "the inputs image, age, ids, mask"),
        (lambda x: x.update(ids=x["ids"].float()), "ids of int64"),
    ],
)
def test_other_batches_are_refused_by_name(change, said):
    x = tensors(rows(Several, 4))
    change(x)
    with pytest.raises(InputError, match=said):
        made(Several)(x)
    with pytest.raises(InputError, match="a dict of the inputs"):
        made(Several)(torch.zeros(4, 3))
    with pytest.raises(InputError, match="of int64"):
        made(Tokens)(torch.zeros(4, LENGTH))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (Tokens, lambda x: x + 0.5, "whole numbers"),
        (Tokens, lambda x: x - 1, "from 1 to 39"),
        (Tokens, lambda x: x[:, :3], "shape"),
        (Several, lambda x: x["ids"], "as a dict"),
        (Several, lambda x: {**x, "ids": -x["ids"]}, "ids from 0 to 39"),
        (Several, lambda x: {**x, "age": x["age"][:3]}, "as many rows"),
        (Several, lambda x: {**x, "image": x["image"][:, 0]}, "image of shape"),
    ],
)
def test_other_data_is_refused(kind, change, said, tmp_path):
    with pytest.raises(InputError, match=said):
        export_onnx(made(kind), tmp_path / "m.onnx", data=change(rows(kind, 9)))
    assert not (tmp_path / "m.onnx").exists()


def test_whole_numbers_of_any_dtype_are_ids():
    inference, x = inference_copy(detached_copy(made(Tokens)), Profile()), rows(Tokens, 5)
    for given_x in (x.astype(np.int32), x.astype(float), x.tolist(), torch.from_numpy(x)):
        own = UserRows.of(inference, given_x)
        assert own.x.dtype == np.int64
        assert own.x.tolist() == x.tolist()


class Mixing(Several):
    """A statistic over the batch, of one input."""

    def features(self, *, image, age, ids, mask):
        return super().features(image=image, age=age - age.mean(), ids=ids, mask=mask)


class Dropping(Tokens):
    """Dropout that never ends."""

    def features(self, x):
        return nn.functional.dropout(super().features(x), 0.5)


@pytest.mark.parametrize("kind", [Mixing, Dropping])
def test_what_no_file_can_be_is_refused_as_of_one_input(kind, tmp_path):
    with pytest.raises(InputError, match=r"expected (an answer|a model)"):
        export_onnx(made(kind), tmp_path / "m.onnx")


@pytest.mark.whole
def test_int32(tmp_path):
    model, x = made(Tokens, dtype="int32"), rows(Tokens, 9).astype(np.int32)
    export = export_onnx(model, tmp_path / "m.onnx")
    assert np.abs(asked(export.path, x) - probabilities(model, x)).max() < 1e-5
    assert OnnxClassifier(export.path).dtype == np.int32
    classifier, wide = OnnxClassifier(export.path), x.astype(np.int64)
    np.testing.assert_array_equal(classifier.predict(wide), classifier.predict(x))
    with pytest.raises(TypeError, match="int32"):  # which does not hold it
        classifier.predict(wide + 2**40)


class Bytes(SoftmaxRegression):
    """Grey images as they come, which the model itself makes numbers of."""

    def __init__(self):
        super().__init__(16, 3, input_shape=(4, 4), input_dtype="uint8")

    def features(self, x):
        return (x / 255).flatten(1)


def test_bytes_that_the_model_divides_itself(tmp_path):
    torch.manual_seed(0)
    model = Bytes()
    x = np.random.default_rng(0).integers(0, 256, (9, 4, 4)).astype(np.uint8)
    export = export_onnx(model, tmp_path / "m.onnx", data=x)
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    scores = (x.reshape(9, -1) / 255.0) @ weight.T + bias
    right = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    classifier = OnnxClassifier(export.path)
    assert np.abs(classifier.predict_proba(x) - right).max() < 1e-5
    assert selftest(export.path).passed
    with pytest.raises(TypeError, match="uint8"):
        classifier.predict(x / 255)


@pytest.mark.parametrize(
    "arguments",
    [
        whole({"activation": "sparsemax"}),
        {"activation": "entmax15", "preprocessing": "standardize"},
    ],
)
def test_other_activations(arguments, tmp_path):
    model = made(Several, **arguments)
    if "preprocessing" in arguments:
        model.fit_statistics([(tensors(rows(Several, 50)), torch.arange(50) % CLASSES)])
    export = export_onnx(model, tmp_path / "m.onnx", profile="robust")
    assert export.report.passed
    x = rows(Several, 20)
    with torch.no_grad():
        right = model.double()(_double(tensors(x))).exp().numpy()
    assert np.abs(asked(export.path, x) - right).max() < 1e-4


def _double(x):
    return {n: part.double() if part.is_floating_point() else part for n, part in x.items()}


def test_a_label_that_turns_a_hundredth_of_a_nat_too_early_is_seen(tmp_path):
    model = made(Several)
    path = export_onnx(model, tmp_path / "m.onnx", profile=Profile.of(outputs=["label"])).path
    biases = [t.name for t in onnx.load(path).graph.initializer if list(t.dims) == [CLASSES]]
    assert len(biases) == 1
    assert not _seen(model, path, lambda proto: None)
    for k in range(CLASSES):
        assert _seen(model, path, _moved(biases[0], k, by=1e-2))


def test_labels_and_scores(tmp_path):
    model = made(Several)
    profile = Profile.of("portable", outputs=["label", "scores", "probs"])
    export = export_onnx(model, tmp_path / "m.onnx", profile=profile)
    x = rows(Several, 50)
    right = probabilities(model, x).argmax(1)
    assert OnnxClassifier(export.path).predict(x).tolist() == right.tolist()


@pytest.mark.whole
def test_a_model_that_was_exported_is_as_it_was(exported):
    model, _ = exported[Several]
    before = copy.deepcopy(model.state_dict())
    default = torch.get_default_dtype()
    check_parity(model, exported[Several][1].path)
    assert torch.get_default_dtype() == default
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
