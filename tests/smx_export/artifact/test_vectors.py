"""The vectors in a file: a stranger reads them out of it, and they are the model's answers."""

import copy
import json
import math
import struct
from base64 import b64decode
from hashlib import sha256

import numpy as np
import onnxruntime
import pytest
import torch
from files import ALL, model_of, read
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smx_export import FileError, export_onnx
from smx_export.artifact.comparison import Expected
from smx_export.artifact.sidecar import sidecar, write_sidecar
from smx_export.artifact.vectors import Vectors
from smx_export.parity.probes.chosen import choose
from smx_export.profile import Profile
from smx_export.targets.selftest import selftest

CODES = {"bfloat16": "H", "float32": "f", "uint8": "B"}


def stranger(text):
    """Inputs, and the other values as lists, by someone who has read nothing but the docstring."""
    told = json.loads(text)
    size = math.prod(told["shape"])

    def numbers(key, code):
        data = b64decode(told[key])
        return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)

    rows = numbers("rows", CODES[told["dtype"]])
    if told["dtype"] == "bfloat16":
        rows = [struct.unpack("<f", struct.pack("<HH", 0, upper))[0] for upper in rows]
    x = [
        [factor * value for value in rows[row * size : (row + 1) * size]]
        for row, factor in told["inputs"]
    ]
    dtype = np.uint8 if told["dtype"] == "uint8" else np.float32
    told["x"] = np.array(x).reshape(-1, *told["shape"]).astype(dtype)
    told["log_probs"] = np.array(numbers("log_probs", "f")).reshape(len(x), -1)
    return told


# The format --------------------------------------------------------------------------------------


@st.composite
def some_vectors(draw):
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    m, n, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 4))
    kind = draw(st.sampled_from(["bfloat16", "float32", "uint8"]))
    number = st.floats(-1e6, 1e6, width=32)
    if kind == "uint8":
        rows = draw(arrays(np.uint8, (m, *shape)))
        factors = st.sampled_from([0.0, 1.0])
    else:
        rows = draw(arrays(np.float32, (m, *shape), elements=number))
        factors = st.sampled_from([0.0] + [2.0**k for k in range(41)])
    if kind == "bfloat16":
        rows = (rows.view(np.uint32) & 0xFFFF0000).view(np.float32)
    of = draw(st.lists(st.tuples(st.integers(0, m - 1), factors), min_size=n, max_size=n))
    answers = draw(arrays(np.float32, (n, classes), elements=number))
    tolerance = draw(arrays(np.float64, n, elements=st.floats(1e-9, 1e3)))
    norm = draw(st.none() | arrays(np.float64, n, elements=st.floats(-1e9, 1e9)))
    return Vectors(rows, tuple(of), answers, tolerance, norm)


@given(some_vectors())
def test_vectors_survive_the_metadata_bit_for_bit_and_a_stranger_reads_the_same(vectors):
    text = vectors.to_json("abc")
    back, weights = Vectors.from_json(text)
    told = stranger(text)
    assert weights == told["weights_sha256"] == "abc"
    assert back.rows.dtype == vectors.rows.dtype
    assert back.rows.tobytes() == vectors.rows.tobytes()
    assert back.x.tobytes() == told["x"].tobytes()
    assert back.inputs == vectors.inputs
    np.testing.assert_array_equal(back.log_probs, vectors.log_probs)
    np.testing.assert_array_equal(told["log_probs"], vectors.log_probs)
    np.testing.assert_array_equal(back.tolerance, told["tolerance"])
    assert (vectors.tolerance <= back.tolerance).all()
    assert (back.tolerance <= 1.02 * vectors.tolerance).all()
    assert (back.log_norm is None) == (vectors.log_norm is None) == ("log_norm" not in told)
    if vectors.log_norm is not None:
        np.testing.assert_array_equal(back.log_norm, vectors.log_norm)
    floats = vectors.rows.dtype == np.float32
    brief = floats and not (vectors.rows.view(np.uint32) & 0xFFFF).any()
    assert told["dtype"] == ("bfloat16" if brief else vectors.rows.dtype)


ALIKE = "AAAAAAAAAAAAAAAA"  # three zeros of float32, in base64

DAMAGED = {
    "no object": lambda told: "[]",
    "nested too deep": lambda told: 100_000 * "[",
    "an unknown dtype": lambda told: told | {"dtype": "float16"},
    "a dtype that is no dtype": lambda told: told | {"dtype": "(2,"},
    "rows that are no base64": lambda told: told | {"rows": "é"},
    "rows cut short": lambda told: told | {"rows": told["rows"][:-4]},
    "a row that is not there": lambda told: told | {"inputs": [[9, 1.0], *told["inputs"][1:]]},
    "a negative row": lambda told: told | {"inputs": [[-1, 1.0], *told["inputs"][1:]]},
    "an infinite input": lambda told: told | {"inputs": [[0, 1e39], *told["inputs"][1:]]},
    "an endless factor": lambda told: told | {"inputs": [[0, 10**400], *told["inputs"][1:]]},
    "inputs without end": lambda told: (
        told | {"inputs": 9 * [[0, 1.0]], "tolerance": [1.0] * 9, "log_probs": 9 * ALIKE}
    ),
    "no inputs": lambda told: told | {"inputs": [], "tolerance": [], "log_probs": ""},
    "no answers": lambda told: told | {"log_probs": ""},
    "no tolerance": lambda told: told | {"tolerance": [0.0, *told["tolerance"][1:]]},
    "an infinite tolerance": lambda told: told | {"tolerance": [1e309, *told["tolerance"][1:]]},
    "an endless shape": lambda told: told | {"shape": [2**70]},
    "a norm that is no number": lambda told: told | {"log_norm": [math.nan] * len(told["inputs"])},
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_vectors_are_refused_in_one_sentence(damage):
    rows, answers = np.ones((1, 4), np.float32), np.zeros((2, 3), np.float32)
    good = Vectors(rows, ((0, 1.0), (0, 0.0)), answers, np.ones(2), None)
    damaged = damage(json.loads(good.to_json("abc")))
    text = damaged if isinstance(damaged, str) else json.dumps(damaged)
    with pytest.raises(FileError, match=r"expected self-test vectors .* got damaged ones"):
        Vectors.from_json(text)


# What exported files hold ------------------------------------------------------------------------


MODELS = {  # model, profile, and how its rows are stored
    "portable": (model_of(), Profile(), "bfloat16"),
    "all outputs": (model_of(), ALL, "bfloat16"),
    "robust": (model_of(), Profile(robust=True), "bfloat16"),
    "a mean far above its scale": (model_of(mean=1e5), Profile(), "float32"),
    "image": (model_of(12, input_shape=(3, 2, 2)), Profile(image=True), "uint8"),
    "two classes with a threshold": (model_of(k=2, threshold=0.2), ALL, "bfloat16"),
    "one feature": (model_of(d=1), ALL, "bfloat16"),
    "many classes": (model_of(k=300), Profile(), "bfloat16"),
    "zero weights": (model_of(weight=0.0), ALL, "bfloat16"),
    "very steep": (model_of(weight=1e7), ALL, "bfloat16"),
}


@pytest.mark.parametrize(("model", "profile", "stored"), MODELS.values(), ids=MODELS)
def test_the_answers_are_the_float64_model_s_and_onnxruntime_gives_them(
    model, profile, stored, tmp_path
):
    path = export_onnx(model, tmp_path / "model.onnx", profile=profile).path
    told = stranger(read(path)["selftest"])
    x, tolerance = told["x"], np.array(told["tolerance"])
    assert told["dtype"] == stored
    assert ("log_norm" in told) == ("scores" in profile.outputs)
    with torch.no_grad():
        inputs = torch.from_numpy(x).double().reshape(-1, *model.input_shape)
        truth = copy.deepcopy(model).double().eval()(inputs).numpy()
    assert (tolerance > 0).all()
    assert (np.abs(told["log_probs"] - truth) <= tolerance[:, None]).all()
    session = onnxruntime.InferenceSession(path)
    (log_probs,) = session.run(["log_probs"], {"input": x})
    assert (np.abs(log_probs - told["log_probs"]) <= tolerance[:, None]).all()
    assert selftest(path).passed
    assert not x[-1].any()
    factors = np.array([factor for _, factor in told["inputs"]])
    apart = -told["log_probs"].min(1)[factors > 1]
    if stored == "uint8" or not model.linear.weight.any():
        assert apart.max(initial=0) < 1000
    else:
        assert len(apart) == 2
        assert apart.min() > 1000


@pytest.mark.parametrize("profile", [Profile(), ALL, Profile(image=True)], ids=lambda p: p.name)
def test_the_sidecar_says_what_the_file_says(profile, tmp_path):
    model = model_of(12, input_shape=(3, 2, 2), class_names=["α", "b", "c"])
    path = export_onnx(model, tmp_path / "model.v1.onnx", profile=profile).path
    told = stranger(read(path)["selftest"])
    written = json.loads(write_sidecar(path).read_text(encoding="utf-8"))
    assert written == sidecar(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.v1.json", "model.v1.onnx"]
    test = written["selftest"]
    x = np.frombuffer(b64decode(test["inputs"]), np.dtype(test["dtype"]).newbyteorder("<"))
    np.testing.assert_array_equal(x.reshape(test["shape"]), told["x"])
    log_probs = np.frombuffer(b64decode(test["log_probs"]), "<f4").reshape(len(told["x"]), -1)
    np.testing.assert_array_equal(log_probs, told["log_probs"])
    assert test["tolerance"] == told["tolerance"]
    assert written["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert written["weights_sha256"] == told["weights_sha256"]
    assert written["class_names"] == ["α", "b", "c"]
    assert written["outputs"] == list(profile.outputs)
    dtype, shape = ("uint8", [3, 2, 2]) if profile.image else ("float32", [12])
    assert written["input"] == {"name": "input", "dtype": dtype, "shape": shape}


# How rows become bfloat16 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finer", "stored"), [(1.0, "bfloat16"), (0.999, "float32"), (0.5, "float32")]
)
def test_rows_become_bfloat16_where_that_moves_none_by_more_than_a_sixteenth_of_the_spread(
    finer, stored
):
    """1 + 2⁻⁹ lies between 1 and 1 + 2⁻⁷, bfloat16's next: it moves by 2⁻⁹, a sixteenth of 2⁻⁵."""
    rows = np.array([[1.0, 0.5], [0.25, 1 + 2**-9]], np.float32)
    weight = np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, -1.0]])
    asked = []

    def answer(x):
        asked.append(x)
        scores = x.astype(np.float64) @ weight.T
        log_probs = scores - np.log(np.exp(scores - scores.max(1)[:, None]).sum(1))[:, None]
        log_probs -= scores.max(1)[:, None]
        return Expected(log_probs, np.full_like(scores, 1e-6), np.full_like(scores, 1e-6), scores)

    vectors = choose(rows, answer, np.array([1.0, finer * 2**-5]))
    kept = np.array([[1.0, 0.5], [0.25, 1.0]]) if stored == "bfloat16" else rows
    np.testing.assert_array_equal(vectors.rows, kept)
    assert json.loads(vectors.to_json("abc"))["dtype"] == stored
    # The answers are those to the rows as they are stored.
    np.testing.assert_array_equal(asked[-1][:2], vectors.rows)
    np.testing.assert_allclose(vectors.log_probs, answer(vectors.x).log_probs, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (1.0, 40.0), (40.0, 1.0), (300.0, 0.3)])
def test_the_stress_factor_is_the_least_power_of_two_for_every_row(sizes):
    """A row's classes lie |w x| apart; the smaller row decides how far both are stretched."""
    weight = np.array([[1.0], [-1.0]])

    def answer(x):
        logits = x.astype(float) @ weight.T
        log_probs = logits - np.logaddexp(*logits.T)[:, None]
        nothing = np.full_like(log_probs, 1e-6)
        return Expected(log_probs, nothing, nothing, logits)

    rows = np.array([[size] for size in sizes], np.float32)
    vectors = choose(rows, answer, spread=np.ones(1))
    factors = {factor for _, factor in vectors.inputs}
    least = 2.0 ** math.ceil(math.log2(1000 / (2 * min(sizes))))
    assert factors == {0.0, 1.0, least}
