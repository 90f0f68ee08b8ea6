"""What a file declares, under attack: each change is seen by the check named, or it is free."""

import json

import numpy as np
import onnx
import profiled
import pytest
import torch
from mutations.declared import (
    CHANGES,
    DAMAGED,
    FREE,
    GARBAGE,
    IMAGE,
    KEYS,
    METADATA,
    SEAL,
    SEALS,
    SPARSE_CHANGES,
    TABLE_CHANGES,
    THRESHOLDS,
    changed,
)
from mutations.models import BACKBONE
from sampled import whole

import smx_export.contract
from smx_export import FileError, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.declared import ALWAYS, EXPECTED
from smx_export.artifact.files import metadata_of, sealed
from smx_export.contract import (
    ACTIVATION,
    ALL_OUTPUTS,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT_RANGE,
    KNOWN_OUTPUTS,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    SELFTEST,
    SHA256,
    THRESHOLD,
)
from smx_export.parity.comparison import Comparison
from smx_export.parity.interface import declares, inference_copy_like, interface
from smx_export.targets.selftest import selftest
from smx_lightning.tables import Column, Schema

BINARY = {"classes": 2, "threshold": 0.7}
MODELS = {
    "portable": {},
    "image": {},
    "binary": BINARY,
    "sparse": {"activation": "sparsemax"},
    "sparse binary": BINARY | {"activation": "entmax15"},
    "table": {
        "input_shape": None,
        "schema": Schema(
            (
                Column("age", missing=True, fill=3.5),
                Column("colour", "category", True, None, None, ("red", "blue"), ("grey", "pink")),
                Column("born", "date", unit="s"),
                Column("ok", "boolean"),
                Column('n, "ü"', fill=-1.0),
                *map(Column, "abc"),
            ),
            target="class",
        ).to_dict(),
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Model and file by name."""
    folder, found = tmp_path_factory.mktemp("declared"), {}
    for name, binary in MODELS.items():
        model = profiled.model_of(**binary)
        profile = profiled.profile("image" if name == "image" else "portable", ALL_OUTPUTS)
        found[name] = model, export_onnx(model, folder / f"{name}.onnx", profile=profile).path
    return found


def with_metadata(path, folder, metadata):
    """A copy with other metadata, sealed again."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {k: v for k, v in metadata.items() if v is not None})
    copy = folder / "copy.onnx"
    copy.write_bytes(sealed(proto))
    return copy


def read(path):
    return metadata_of(onnx.load(path))


def failed(judge, *args):
    """Names of the checks that a judge fails, or that it refuses the file."""
    try:
        return [check.name for check in judge(*args).checks if not check.passed]
    except FileError as error:
        return [DAMAGED] if "\n" not in str(error) else ["several lines"]


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_key_says_is_compared_with_the_model(name, files, tmp_path):
    model, path = files["portable"]
    copy = with_metadata(path, tmp_path, changed(read(path), name))
    assert CHANGES[name][2] in failed(check_parity, model, copy)


# What a backbone's rounding is measured to be differs between machines, and so may its vectors.
MACHINES_DIFFER = [
    "no stress",
    "more stress",
    "one input for all",
    "one vector alone",
    "zeros for all inputs",
    *(f"tolerances {words}" for words in ("ten times", "three times", "a third")),
]
OF_A_BACKBONE = [
    name
    for name, (key, _, _) in CHANGES.items()
    if key in (SELFTEST, PROVENANCE, CLASS_NAMES) and name not in MACHINES_DIFFER
    if "norms" not in name  # of scores, which it does not offer
    if "case" not in name  # of names, which are digits
]


@pytest.mark.usefixtures("one_thread")
def test_so_it_is_of_a_traced_backbone(exported, tmp_path):
    model, path = exported(BACKBONE)
    assert len(OF_A_BACKBONE) >= 20
    passed = []
    for name in OF_A_BACKBONE:
        copy = with_metadata(path, tmp_path, changed(read(path), name))
        compared = Comparison(inference_copy_like(model, onnx.load(copy)))
        checks = [*interface(compared.inference, copy.read_bytes(), onnx.load(copy))]
        checks += declares(compared.inputs, onnx.load(copy))
        if CHANGES[name][2] not in [check.name for check in checks if not check.passed]:
            passed.append(name)
    assert passed == []


@pytest.mark.parametrize("name", MODELS)
def test_without_a_change_it_passes(name, files, tmp_path):
    model, path = files[name]
    copy = with_metadata(path, tmp_path, read(path))
    assert copy.read_bytes() == path.read_bytes()
    assert not failed(check_parity, model, copy)
    assert not failed(selftest, copy)


# Every key that there is -----------------------------------------------------------------------


def test_no_key_is_forgotten():
    names = [name for name in vars(smx_export.contract) if name.isupper()]
    values = {getattr(smx_export.contract, name) for name in names}
    outputs = {"input", *KNOWN_OUTPUTS, "batch", "softmax_regression"}
    assert {value for value in values if isinstance(value, str)} - outputs == KEYS
    assert {*EXPECTED, SHA256} == KEYS
    # A model may have none of the last.
    assert {*ALWAYS, SHA256, INPUT_RANGE, THRESHOLD, ACTIVATION, FEATURE_NAMES, SCHEMA} == KEYS


# What the file's own test cannot know, as it does not know the model.
MODEL_S_OWN = {(INPUT_RANGE, None), (THRESHOLD, None), (INPUT_RANGE, "null"), (THRESHOLD, "null")}
MODEL_S_OWN |= {(SCHEMA, None)}


@pytest.mark.parametrize("value", [None, *GARBAGE])
@pytest.mark.parametrize("key", sorted(KEYS - {SHA256}))
def test_every_key_that_is_missing_or_garbage_is_noticed(key, value, files, tmp_path):
    homes = {ACTIVATION: "sparse binary", FEATURE_NAMES: "table", SCHEMA: "table"}
    model, path = files[homes.get(key, "binary")]
    copy = with_metadata(path, tmp_path, {**read(path), key: value})
    assert failed(check_parity, model, copy)
    if (key, value) not in MODEL_S_OWN:
        assert failed(selftest, copy)


@pytest.mark.parametrize("key", sorted(KEYS - {SHA256}))
def test_every_key_of_another_model_s_file_is_noticed(key, files, tmp_path):
    model, path = files["portable"]
    other = profiled.model_of(
        8, 2, threshold=0.4, input_shape=(2, 4), input_range=(0, 9), class_names=["x", "y"],
        activation="entmax15", schema=Schema(tuple(map(Column, "abcdefgh"))).to_dict(),
    )  # fmt: skip
    other.__class__ = type("Another", (type(other),), {"__module__": "elsewhere"})
    given = read(export_onnx(other, tmp_path / "other.onnx", profile="robust").path)
    copy = with_metadata(path, tmp_path, {**read(path), key: given[key]})
    assert failed(check_parity, model, copy)


@pytest.mark.parametrize("name", SPARSE_CHANGES)
def test_what_a_sparse_file_says_is_compared_with_the_model(name, files, tmp_path):
    model, path = files["sparse"]
    key, change, seen_by = SPARSE_CHANGES[name]
    told = read(path)
    copy = with_metadata(path, tmp_path, {**told, key: json.dumps(change(json.loads(told[key])))})
    failures = failed(check_parity, model, copy)
    assert seen_by in failures or failures == [DAMAGED]


@pytest.mark.parametrize("name", TABLE_CHANGES)
def test_what_a_file_says_of_a_table_is_compared_with_the_model(name, files, tmp_path):
    model, path = files["table"]
    key, change = TABLE_CHANGES[name]
    told = read(path)
    copy = with_metadata(path, tmp_path, {**told, key: json.dumps(change(json.loads(told[key])))})
    assert key.replace("_", " ") in failed(check_parity, model, copy)


@pytest.mark.parametrize("value", SEALS.values(), ids=SEALS)
def test_a_seal_that_is_missing_or_destroyed_fails_in_both(value, files, tmp_path):
    model, path = files["portable"]
    proto = onnx.load(path)
    profiled.metadata(proto, SHA256, value)
    onnx.save(proto, tmp_path / "copy.onnx")
    assert failed(check_parity, model, tmp_path / "copy.onnx") == [SEAL]
    assert failed(selftest, tmp_path / "copy.onnx") == [SEAL]


@pytest.mark.parametrize("value", THRESHOLDS.values(), ids=THRESHOLDS)
def test_another_threshold_does_not_pass(value, files, tmp_path):
    model, path = files["binary"]
    copy = with_metadata(path, tmp_path, {**read(path), THRESHOLD: value})
    assert "threshold" in failed(check_parity, model, copy)
    if value not in (None, "0.3"):
        assert METADATA in failed(selftest, copy)


@pytest.mark.parametrize("value", [None, "Rgb8", "NominalRange_0_1"])
@pytest.mark.parametrize(
    "key", ["Image.BitmapPixelFormat", "Image.ColorSpaceGamma", "Image.NominalPixelRange"]
)
def test_what_an_image_says_of_its_pixels_counts(key, value, files, tmp_path):
    model, path = files["image"]
    copy = with_metadata(path, tmp_path, {**read(path), key: value})
    assert failed(check_parity, model, copy) == [IMAGE]


def test_what_is_free_is_free_and_nothing_else(files, tmp_path):
    model, path = files["portable"]
    told = read(path)
    provenance, profile = (json.loads(told[key]) for key in (PROVENANCE, PROFILE))
    provenance |= {"packages": {"torch": "9"}, "training": {"epochs": 99}}
    profile |= {"max_accuracy_loss": 0.9, "max_nll_increase": 7}
    for key, value in ((PROVENANCE, provenance), (PROFILE, profile), ("mine", "anything")):
        copy = with_metadata(path, tmp_path, {**told, key: json.dumps(value)})
        assert not failed(check_parity, model, copy)
        assert not failed(selftest, copy)
    unknown = profiled.model_of(input_range=None)
    copy = with_metadata(path, tmp_path, {**told, INPUT_RANGE: "[0.0, 7.0]"})
    assert not failed(check_parity, unknown, copy)
    assert {key for key, _ in FREE} == {PROVENANCE, PROFILE, INPUT_RANGE}


def test_selftest_counts_the_names(files, tmp_path, capsys):
    _, path = files["portable"]
    names = json.dumps(profiled.NAMES[:-1])
    copy = with_metadata(path, tmp_path, {**read(path), CLASS_NAMES: names})
    assert failed(selftest, copy) == [METADATA]
    assert main(["selftest", str(copy)]) == 1
    assert "FAIL metadata" in capsys.readouterr().out


# Files that are not ours, and the caller's budget -----------------------------------------------


def test_a_file_of_another_tool_or_of_the_first_version_needs_no_seal_and_vectors(files, tmp_path):
    """It has none of the keys by which ours are known, and may lack the provenance too."""
    model = profiled.model_of()
    path = export_onnx(model, tmp_path / "plain.onnx").path
    for dropped in ((), (PROVENANCE,), (PROVENANCE, "input_shape", "input_range")):
        proto = onnx.load(path)
        for key in (PROFILE, SELFTEST, SHA256, *dropped):
            profiled.metadata(proto, key, None)
        onnx.save(proto, tmp_path / "bare.onnx")
        assert not failed(check_parity, model, tmp_path / "bare.onnx")
    for key in (PROFILE, SELFTEST):  # of ours nothing may be missing
        copy = with_metadata(path, tmp_path, {**read(path), key: None})
        assert METADATA in failed(check_parity, model, copy)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    """A model that rounding spoils, its file with a budget of its own, and the rows."""
    model = profiled.model_of()
    x = np.random.default_rng(0).uniform(0, 1, (400, *profiled.SHAPE)).astype(np.float32)
    model.linear.weight.data *= 1e-3
    model.linear.weight.data[:, 0] *= 1e5  # the other weights of a class round to the same steps
    y = model(torch.from_numpy(x)).argmax(1)
    path = tmp_path_factory.mktemp("coarse") / "coarse.onnx"
    profile = profiled.profile("int8", max_accuracy_loss=1.0, max_nll_increase=100.0)
    return model, export_onnx(model, path, profile=profile, data=(x, y)), (x, y)


def test_what_rounding_may_cost_is_the_caller_s_word(coarse, tmp_path):
    model, export, data = coarse
    told = json.loads(read(export.path)[PROFILE])
    cost = export.report.rounding.accuracy_before - export.report.rounding.accuracy
    copy = with_metadata(
        export.path,
        tmp_path,
        {**read(export.path), PROFILE: json.dumps({**told, "max_accuracy_loss": 0.0})},
    )
    for path in (export.path, copy):  # whatever the file says
        strict = check_parity(model, path, data, max_accuracy_loss=cost - 1e-3, max_nll_increase=9)
        assert [c.name for c in strict.failed] == ["accuracy after rounding"]
        loose = check_parity(model, path, data, max_accuracy_loss=cost + 1e-3, max_nll_increase=9)
        assert loose.passed


@pytest.mark.parametrize("name", [whole("int8"), "float16"])
def test_a_file_with_rounded_weights_passes_by_the_default_budget(name, tmp_path):
    model = profiled.model_of()
    data = profiled.labelled(model)
    path = export_onnx(model, tmp_path / "m.onnx", profile=profiled.profile(name), data=data).path
    assert check_parity(model, path, data).passed
