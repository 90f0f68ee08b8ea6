"""What a file says of itself: every key of its metadata, missing, spoilt, or of another's file.

Each is done to a file that is sealed again. ``seen`` says which check sees it: one of ``verify``'s,
one of ``selftest``'s by that command's name before a colon, or ``FileError``, of both. ``FREE`` are
values that say nothing of the answers.
"""

import json
from base64 import b64decode, b64encode

import numpy as np

from mutations.table import NAMES, OUTPUTS
from smx_export.contract import (
    ACTIVATION,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT_RANGE,
    INPUT_SHAPE,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    SELFTEST,
    SHA256,
    THRESHOLD,
)

METADATA, VECTORS, SHAPE, CLASS, DAMAGED = (
    "metadata",
    "self-test",
    "input shape",
    "model class",
    "FileError",
)
RANGE, IMAGE, SEAL, INPUT = "input range", "image", "seal", "input"
MISSING = None
GARBAGE = ("", "{", "NaN", "null", '"text"', "[]", "{}", "-1", "[[1]]", "true")
FREE = {  # and why
    (PROVENANCE, "packages"): "where the file was made",
    (PROVENANCE, "training"): "what the training had reached when it was made",
    (PROFILE, "max_accuracy_loss"): "what was allowed then; the caller's counts",
    (PROFILE, "max_nll_increase"): "likewise",
    (INPUT_RANGE, "of a model without one"): "then the file alone knows it",
}


def entry(key, value):
    return lambda told: {**told, key: value}


def without(key):
    return lambda told: {name: value for name, value in told.items() if name != key}


def numbers(key, change, dtype="<f4"):
    """Base64 of other numbers."""

    def changed(told):
        values = np.frombuffer(b64decode(told[key]), dtype).copy()
        return {**told, key: b64encode(change(values).astype(dtype).tobytes()).decode()}

    return changed


def of_column(name, key, value):
    """A schema one of whose columns says something else."""
    return lambda told: {
        **told,
        "columns": [{**c, key: value} if c["name"] == name else c for c in told["columns"]],
    }


def times(key, factor):
    return lambda told: {**told, key: [factor * value for value in told[key]]}


def factors(change):
    return lambda told: {**told, "inputs": [[row, change(f)] for row, f in told["inputs"]]}


def rolled(values):
    return np.roll(values, 1)


def constant(value):
    return lambda told: value


# Of a JSON value that is parsed: {name: (key, change, which check of verify sees it)}.
CHANGES = {
    # The vectors: those of the issue, then one for each of their entries.
    "tolerances of 1e30": (SELFTEST, lambda t: {**t, "tolerance": [1e30] * len(t["tolerance"])}),
    "tolerances ten times": (SELFTEST, times("tolerance", 10)),
    "tolerances three times": (SELFTEST, times("tolerance", 3)),
    "tolerances a third": (SELFTEST, times("tolerance", 1 / 3)),
    "one tolerance of 1e3": (
        SELFTEST,
        lambda t: {**t, "tolerance": [1e3, *t["tolerance"][1:]]},
    ),
    "answers moved": (SELFTEST, numbers("log_probs", lambda v: v - 0.01)),
    "answers of other classes": (SELFTEST, numbers("log_probs", rolled)),
    "answers of other rows": (SELFTEST, numbers("log_probs", lambda v: v[::-1])),
    "answers all alike": (SELFTEST, numbers("log_probs", np.zeros_like)),
    "answers of a class less": (
        SELFTEST,
        numbers("log_probs", lambda v: v.reshape(-1, 3)[:, :2].flatten()),
    ),
    "rows of zeros": (SELFTEST, numbers("rows", np.zeros_like, "<u2")),
    "rows swapped": (SELFTEST, numbers("rows", lambda v: np.roll(v, len(v) // 2), "<u2")),
    "rows doubled": (SELFTEST, numbers("rows", lambda v: v + 0x80, "<u2")),
    "features of the rows in another order": (SELFTEST, numbers("rows", rolled, "<u2")),
    "no stress": (
        SELFTEST,
        lambda t: {**t, "inputs": [[row, min(f, 1)] for row, f in t["inputs"]]},
    ),
    "more stress": (SELFTEST, lambda t: {**t, "inputs": [[row, 2 * f] for row, f in t["inputs"]]}),
    "zeros for all inputs": (SELFTEST, lambda t: {**t, "inputs": [[0, 0.0]] * len(t["inputs"])}),
    "one input for all": (SELFTEST, lambda t: {**t, "inputs": t["inputs"][:1] * len(t["inputs"])}),
    "one vector alone": (
        SELFTEST,
        lambda t: {
            **numbers("log_probs", lambda v: v[: len(v) // len(t["inputs"])])(t),
            **{key: t[key][:1] for key in ("inputs", "tolerance", "log_norm")},
        },
    ),
    "norms moved": (SELFTEST, lambda t: {**t, "log_norm": [v + 0.1 for v in t["log_norm"]]}),
    "norms of other rows": (SELFTEST, lambda t: {**t, "log_norm": t["log_norm"][::-1]}),
    "the hash of other weights": (SELFTEST, entry("weights_sha256", 64 * "0")),
    "the hash of no weights": (SELFTEST, entry("weights_sha256", "")),
    # The provenance.
    "another class": (PROVENANCE, entry("model_class", "elsewhere.Another"), CLASS),
    "no class": (PROVENANCE, without("model_class"), METADATA),
    "a class that is no text": (PROVENANCE, entry("model_class", ["a"]), METADATA),
    "no packages": (PROVENANCE, without("packages"), METADATA),
    "packages without versions": (PROVENANCE, entry("packages", {"torch": None}), METADATA),
    "packages as a list": (PROVENANCE, entry("packages", ["torch"]), METADATA),
    "no training": (PROVENANCE, without("training"), METADATA),
    "training as a number": (PROVENANCE, entry("training", 3), METADATA),
    # Names, shape, range.
    "a name less": (CLASS_NAMES, lambda names: names[:-1], NAMES),
    "a name more": (CLASS_NAMES, lambda names: [*names, "more"], NAMES),
    "a name twice": (CLASS_NAMES, lambda names: [names[0], *names[:-1]], NAMES),
    "names turned around": (CLASS_NAMES, lambda names: names[::-1], NAMES),
    "names as numbers": (CLASS_NAMES, lambda names: [*range(len(names))], NAMES),
    "a name of another case": (CLASS_NAMES, lambda names: [names[0].upper(), *names[1:]], NAMES),
    "names as one text": (CLASS_NAMES, "".join, NAMES),
    "another shape of as many": (INPUT_SHAPE, lambda shape: shape[::-1], SHAPE),
    "a shape unrolled": (INPUT_SHAPE, constant([12]), SHAPE),
    "a shape of more": (INPUT_SHAPE, lambda shape: [*shape, 2], SHAPE),
    "a shape with ones": (INPUT_SHAPE, lambda shape: [1, *shape], SHAPE),
    "a negative shape": (INPUT_SHAPE, lambda shape: [-side for side in shape], SHAPE),
    "a shape of fractions": (INPUT_SHAPE, lambda shape: [side + 0.0 for side in shape], SHAPE),
    "another range": (INPUT_RANGE, constant([0.0, 255.0]), RANGE),
    "a range turned around": (INPUT_RANGE, lambda bounds: bounds[::-1], RANGE),
    "a range without an end": (INPUT_RANGE, constant([0.0, float("inf")]), RANGE),
    "a range of one number": (INPUT_RANGE, constant([1.0]), RANGE),
    # The profile.
    "other outputs": (PROFILE, entry("outputs", ["label"]), OUTPUTS),
    "outputs nobody knows": (PROFILE, entry("outputs", ["logits"]), DAMAGED),
    "no outputs": (PROFILE, entry("outputs", []), DAMAGED),
    "outputs as a text": (PROFILE, entry("outputs", "probs"), DAMAGED),
    "an entry nobody knows": (PROFILE, entry("color", True), DAMAGED),
    "robust as a text": (PROFILE, entry("robust", "no"), DAMAGED),
    "image as a number": (PROFILE, entry("image", 0), DAMAGED),
    "another input": (PROFILE, lambda told: {**told, "image": not told["image"]}, INPUT),
    "weights nobody knows": (PROFILE, entry("weights", "int4"), DAMAGED),
    "a budget that is no number": (PROFILE, entry("max_accuracy_loss", "all"), DAMAGED),
    "a budget that is true": (PROFILE, entry("max_nll_increase", True), DAMAGED),
    "a budget below 0": (PROFILE, entry("max_nll_increase", -1), DAMAGED),
}
CHANGES = {
    name: change if len(change) == 3 else (*change, VECTORS) for name, change in CHANGES.items()
}


def changed(metadata, name):
    """The metadata with one of :data:`CHANGES`."""
    key, change, _ = CHANGES[name]
    return {**metadata, key: json.dumps(change(json.loads(metadata[key])))}


THRESHOLDS = {  # of a file of two classes whose threshold is .7
    "none": None,
    "another": "0.3",
    "one": "1",
    "above one": "7",
    "below zero": "-0.7",
    "a text": '"0.7"',
    "true": "true",
    "no JSON": "0.7.",
}
SEALS = {
    "missing": MISSING,
    "of zeros": 64 * "0",
    "too short": 63 * "a",
    "in capitals": 64 * "A",
    "of another file": "0123456789abcdef" * 4,
    "no hash": "sealed",
}
KEYS = {
    CLASS_NAMES, INPUT_SHAPE, INPUT_RANGE, THRESHOLD, ACTIVATION, PROVENANCE, PROFILE, SELFTEST,
    SHA256, FEATURE_NAMES, SCHEMA,
}  # fmt: skip

# Of a file of sparsemax with every output.
SPARSE_CHANGES = {
    "another activation": (ACTIVATION, constant("entmax15"), ACTIVATION),
    "softmax by name": (ACTIVATION, constant("softmax"), ACTIVATION),
    "an alpha": (ACTIVATION, constant({"alpha": 2.0}), ACTIVATION),
    "an activation nobody knows": (ACTIVATION, constant("hardmax"), ACTIVATION),
    "probabilities moved": (SELFTEST, numbers("probs", lambda p: np.abs(p - 1e-3)), VECTORS),
    "probabilities of other classes": (SELFTEST, numbers("probs", rolled), VECTORS),
    "probabilities above 1": (SELFTEST, numbers("probs", lambda p: 2 * p), VECTORS),
    "probabilities below 0": (SELFTEST, numbers("probs", np.negative), VECTORS),
    "no class ruled out": (SELFTEST, numbers("probs", lambda p: np.maximum(p, 1e-4)), VECTORS),
    "scores moved": (SELFTEST, numbers("scores", lambda s: s + 0.01), VECTORS),
    "no scores": (SELFTEST, without("scores"), VECTORS),
    "tolerances of 1": (SELFTEST, lambda t: {**t, "tolerance": [1.0] * len(t["inputs"])}, VECTORS),
    "tolerances ten times": (SELFTEST, times("tolerance", 10), VECTORS),
    "score tolerances ten times": (SELFTEST, times("score_tolerance", 10), VECTORS),
    "log-probabilities as well": (
        SELFTEST,
        lambda t: {**without("probs")(t), "log_probs": t["probs"]},
        VECTORS,
    ),
}

# Of a file whose features come from a table.
TABLE_CHANGES = {
    "names turned around": (FEATURE_NAMES, lambda names: names[::-1]),
    "a name less": (FEATURE_NAMES, lambda names: names[:-1]),
    "a name twice": (FEATURE_NAMES, lambda names: [names[0], *names[:-1]]),
    "another name": (FEATURE_NAMES, lambda names: ["another", *names[1:]]),
    "names as numbers": (FEATURE_NAMES, lambda names: [*range(len(names))]),
    "columns turned around": (SCHEMA, lambda s: {**s, "columns": s["columns"][::-1]}),
    "a column less": (SCHEMA, lambda s: {**s, "columns": s["columns"][:-1]}),
    "a column twice": (SCHEMA, lambda s: {**s, "columns": [*s["columns"], s["columns"][0]]}),
    "another target": (SCHEMA, entry("target", "other")),
    "another weight": (SCHEMA, entry("weight", "other")),
    "another version": (SCHEMA, entry("version", 99)),
    **{
        f"{column}'s {key} {value!r}": (SCHEMA, of_column(column, key, value))
        for column, key, value in [
            ("age", "fill", 4.5), ("age", "fill", None), ("age", "missing", False),
            ("age", "kind", "boolean"), ("age", "name", "AGE"), ("age", "unit", "s"),
            ("colour", "categories", ["blue", "red"]), ("colour", "categories", ["red"]),
            ("colour", "other", []), ("colour", "other", ["y"]), ("colour", "missing", False),
            ("colour", "kind", "number"), ("born", "unit", "D"), ("born", "unit", "years"),
            ("born", "kind", "number"), ("born", "fill", 0.0), ("ok", "kind", "number"),
        ]
    },
}  # fmt: skip
