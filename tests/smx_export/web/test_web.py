"""The page of smx-export web, in a real browser: npm's playwright-core drives Debian's chromium."""

import base64
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import torch
from browsers import shared_browser
from sampled import sampled
from tools import ROOT, SUPPORT, missing

from smx_export import FileError, export_onnx
from smx_export.__main__ import main as smx_export
from smx_export.artifact.sidecar import sidecar
from smx_export.profile import Profile
from smx_export.runtime import OnnxClassifier
from smx_export.targets.base import NotInstalled
from smx_export.web.site import PAGE, RUNTIME, serve, write_site
from smx_lightning import SoftmaxRegression
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.tables import Column, Schema

DRIVER = SUPPORT / "drive_page.mjs"
PHONE = {"width": 390, "height": 844, "touch": True}
TOP, BOTTOM = [[0.3, 0.2], [0.65, 0.15], [0.66, 0.4], [0.45, 0.48]], [[0.45, 0.48], [0.7, 0.6]]


@pytest.fixture(scope="module")
def drive():
    """Opens pages in a browser, see drive_page.mjs; gives what each showed after every step.

    Screenshots are kept in build/screenshots.
    """
    shots = ROOT / "build" / "screenshots"
    shots.mkdir(parents=True, exist_ok=True)
    browser = shared_browser("drive_page.mjs", shots=str(shots))

    def drive(*pages):
        return browser.ask(pages=pages)["pages"]

    drive.shots = shots
    return drive


def site_of(model, folder, **options):
    """A model, exported, and its page: (ONNX file, page's folder)."""
    path = export_onnx(model, folder / "model.onnx", **options).path
    try:
        return path, write_site(path, sidecar(path), folder / "page").folder
    except NotInstalled as error:
        return missing(str(error))


@pytest.fixture(scope="module")
def digits_site(trained, tmp_path_factory):
    return site_of(trained, tmp_path_factory.mktemp("digits"), input_range=(0, 16))


@pytest.fixture(scope="module")
def digits_url(digits_site):
    with serve(digits_site[1]) as url:
        yield url


def png(pixels):
    """A grey picture as a PNG file: signature, then chunks of length, kind, content, checksum."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks.items()
    )


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A grey 8×8 picture, and its bytes."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    path.write_bytes(png(pixels))
    return path, pixels.ravel().astype(np.float32)


def probs_in_python(path, x):
    session = onnxruntime.InferenceSession(path)
    return session.run(["probs"], {"input": np.asarray([x], np.float32)})[0][0]


def assert_answers(path, state):
    expected = probs_in_python(path, state["lastInput"])
    np.testing.assert_allclose(state["lastProbs"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.whole
def test_numbers_that_float32_would_round_are_answered(drive, tmp_path):
    """A file that takes float64; numpy is the judge."""
    x = 1.7e9 + np.random.default_rng(0).uniform(0, 64, (40, 3)).round(2)
    model = SoftmaxRegression(3, 3, preprocessing="standardize")
    model.preprocessing.fit(Moments.of(torch.from_numpy(x)))
    _, folder = site_of(model, tmp_path)
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": [{"fill": x[k].tolist()} for k in (0, 1)]})
    first, *answered = page["states"]
    assert first["badge"]["state"] == "good"
    assert "float64 [batch, 3]" in first["facts"]
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    scores = (x[:2] - x.mean(0)) / x.std(0) @ weight.T + bias
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert [state["lastInput"] for state in answered] == x[:2].tolist()
    np.testing.assert_allclose([state["lastProbs"] for state in answered], probs, rtol=1e-4)
    assert page["problems"] == []


def test_a_file_of_one_batch_is_given_blocks_of_it(drive, trained, tmp_path):
    path, folder = site_of(trained, tmp_path, input_range=(0, 16), batch=3, top_k=2)
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": [{"draw": TOP}]})
    loaded, drawn = page["states"]
    assert loaded["badge"]["state"] == "good"
    assert "float32 [3, 64]" in loaded["facts"]
    x = np.asarray([drawn["lastInput"]] * 3, np.float32)
    expected = onnxruntime.InferenceSession(path).run(["probs"], {"input": x})[0][0]
    np.testing.assert_allclose(drawn["lastProbs"], expected, rtol=1e-4, atol=1e-6)
    assert page["problems"] == []


def test_the_file_is_verified_on_load(drive, digits_url):
    (page,) = drive({"url": digits_url})
    (state,) = page["states"]
    assert state["badge"]["state"] == "good"
    assert state["badge"]["text"].startswith("verified: ")
    assert not state["distrusted"]
    assert "onnxruntime-web 1." in state["facts"]
    assert (page["problems"], page["foreign"]) == ([], [])


def test_drawings_are_answered_as_onnxruntime_in_python_does(drive, digits_site, digits_url):
    steps = [
        {"draw": TOP},
        {"draw": BOTTOM},
        {"click": "#fit"},
        {"click": "#clear"},
        {"draw": BOTTOM},
    ]
    (page,) = drive({"url": digits_url, "steps": [*steps, {"shot": "desktop"}]})
    blank, top, both, unfitted, cleared, again, _ = page["states"]
    for state in (top, both, unfitted, again):
        assert_answers(digits_site[0], state)
        assert 0 <= min(state["lastInput"]) < 4 < 8 < max(state["lastInput"]) <= 16
        name, share = state["prediction"].split(" ", 1)
        assert name == state["winner"] == str(np.argmax(state["lastProbs"]))
        assert share == f"{100 * max(state['lastProbs']):.1f} %"
        assert len(state["bars"]) == 10
    inputs = {tuple(state["lastInput"]) for state in (top, both, unfitted, again)}
    assert len(inputs) == 4
    for state in (blank, cleared):
        assert (state["lastInput"], state["lastProbs"], state["winner"]) == ([], [], None)
    assert (page["problems"], page["foreign"]) == ([], [])


def test_classes_of_probability_0_are_shown_as_ruled_out(drive, trained, tmp_path):
    model = SoftmaxRegression(
        64, 10, activation="entmax15", input_shape=(8, 8), preprocessing="standardize"
    )
    model.load_state_dict(trained.state_dict())
    path, folder = site_of(model, tmp_path, input_range=(0, 16))
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": [{"draw": TOP}]})
    blank, drawn = page["states"]
    assert blank["badge"]["text"].startswith("verified: ")
    assert not any("ruled out" in bar for bar in blank["bars"])
    assert_answers(path, drawn)
    shown = ["ruled out" in bar for bar in drawn["bars"]]
    assert shown == [p == 0 for p in drawn["lastProbs"]]
    assert 0 < sum(shown) < 10
    assert (page["problems"], page["foreign"]) == ([], [])


@pytest.mark.whole
def test_a_fitted_drawing_fills_the_frame_wherever_it_was_drawn(drive, digits_url):
    stroke = np.array([[0.0, 0.0], [0.2, 0.0], [0.2, 0.4]])
    steps = [
        {"draw": (stroke + 0.1).tolist()},
        {"click": "#clear"},
        {"draw": (stroke + 0.5).tolist()},
    ]
    (page,) = drive({"url": digits_url, "steps": steps})
    first, second = (np.reshape(page["states"][i]["lastInput"], (8, 8)) for i in (1, 3))
    np.testing.assert_allclose(first, second, atol=1.0)
    assert min(first[0].max(), first[7].max()) > 4


@pytest.mark.whole
def test_a_picture_is_scaled_to_the_range_of_the_inputs(drive, digits_site, digits_url, picture):
    path, pixels = picture
    steps = [{"choose": str(path)}, {"click": "#invert"}, {"click": "#clear"}, {"drop": str(path)}]
    (page,) = drive({"url": digits_url, "steps": steps})
    _, chosen, inverted, _, dropped = page["states"]
    np.testing.assert_allclose(chosen["lastInput"], 16 * pixels / 255, rtol=1e-6)
    for state in (inverted, dropped):
        np.testing.assert_allclose(state["lastInput"], 16 * (255 - pixels) / 255, rtol=1e-6)
    assert_answers(digits_site[0], chosen)
    assert (page["problems"], page["foreign"]) == ([], [])


@pytest.mark.whole
def test_what_is_no_picture_is_refused_in_a_sentence(drive, digits_url):
    (page,) = drive({"url": digits_url, "steps": [{"choose": str(DRIVER)}]})
    assert "drive_page.mjs could not be read as a picture" in page["states"][-1]["error"]
    assert page["states"][-1]["lastInput"] == []


@pytest.mark.whole
def test_everything_fits_on_a_phone(drive, digits_url):
    light, dark = ([{"draw": TOP}, {"shot": name}] for name in ("phone", "phone_dark"))
    for page in drive(
        {"url": digits_url, "steps": light, **PHONE},
        {"url": digits_url, "steps": dark, "dark": True, **PHONE},
    ):
        for state in page["states"]:
            assert (state["overflow"], state["below"]) == (0, 0)
        assert page["states"][-1]["lastProbs"] != []
        assert page["problems"] == []
    assert (drive.shots / "phone.png").read_bytes() != (drive.shots / "phone_dark.png").read_bytes()


def test_a_changed_file_fails_and_its_predictions_are_marked(drive, digits_site, digits_url):
    initializers = onnx.load(digits_site[0]).graph.initializer
    raw = max((tensor.raw_data for tensor in initializers), key=len)
    content = bytearray(digits_site[0].read_bytes())
    largest = int(np.abs(np.frombuffer(raw, "<f4")).argmax())
    content[content.index(raw) + 4 * largest + 3] ^= 0x80  # the sign of the largest weight
    answer = {"answer": "model.onnx", "with": base64.b64encode(content).decode()}
    (page,) = drive({"url": digits_url, "steps": [answer, {"draw": TOP}]})
    state = page["states"][-1]
    assert state["badge"]["state"] == "bad"
    assert "vectors differ" in state["badge"]["text"]
    assert "not the one that was exported" in state["badge"]["text"]
    assert state["distrusted"]
    assert state["lastProbs"] != []


@pytest.mark.parametrize(
    "name", sampled(["model.json", "model.onnx", *RUNTIME], named=["model.onnx"])
)
def test_a_missing_file_is_named(drive, digits_url, name):
    (page,) = drive({"url": digits_url, "steps": [{"answer": name, "with": ""}]})
    (state,) = page["states"]
    assert state["badge"]["state"] == "bad"
    named = "onnxruntime-web" if name.endswith("mjs") else name
    assert f"Could not load {named}" in state["error"]
    assert state["error"].endswith("write the page again with smx-export web.")


@pytest.mark.whole
@pytest.mark.parametrize("with_", ["not an ONNX file", "{"])
def test_a_damaged_model_is_refused(drive, digits_url, with_):
    answer = {"answer": "model.onnx", "with": base64.b64encode(with_.encode()).decode()}
    (page,) = drive({"url": digits_url, "steps": [answer]})
    assert page["states"][0]["badge"]["text"] == "FAILED: the model does not load"
    assert "onnxruntime-web does not take model.onnx" in page["states"][0]["error"]


def test_numbers_are_typed_and_a_threshold_decides(drive, tmp_path):
    model = SoftmaxRegression(3, 2, class_names=["no", "yes"], threshold=0.2)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[0.0, 0, 0], [1.0, -0.5, 0]]))
        model.linear.bias.zero_()
    path, folder = site_of(model, tmp_path)
    steps = [
        {"fill": [-1, 0, 2.5]},  # yes at 26.9 %: above 20 %, below a half
        {"fill": [-2, 0, 2.5]},  # yes at 11.9 %
        {"fill": [-2, "", 2.5]},
        {"click": "#example"},
    ]
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": steps})
    _, yes, no, empty, example = page["states"]
    for state in (yes, no, example):
        assert_answers(path, state)
    assert (yes["lastInput"], yes["winner"], no["winner"]) == ([-1, 0, 2.5], "yes", "no")
    assert yes["prediction"].startswith("yes 26.9 %")
    assert (empty["lastProbs"], empty["hint"]) == ([], "expected a number as x2")
    assert page["problems"] == []


@pytest.mark.parametrize(
    ("shape", "range_", "far", "near"),
    [
        ([3], [0, 16], [[1, 2, 81], [-65, 0, 0], [255, 255, 255]], [[0, 16.5, 80], [-64, 0, 0]]),
        ([3, 1], [0, 16], [[1, 2, 25], [-9, 0, 0], [255, 255, 255]], [[0, 16.5, 24], [-8, 0, 0]]),
        ([3], None, [], [[0, 1e30, -1e30]]),
    ],
)
def test_the_page_knows_what_lies_far_outside_the_range(shape, range_, far, near):
    """Its module alone, in node."""
    node = shutil.which("node")
    if node is None:
        missing("node on the PATH")
    module = (PAGE / "range.js").as_uri()
    about = {"input": {"dtype": "float32"}, "input_range": range_, "input_shape": shape}
    script = (
        f"import({json.dumps(module)}).then(({{ rangeNote }}) => console.log(JSON.stringify("
        f"{json.dumps(far + near)}.map((x) => rangeNote(Float32Array.from(x), "
        f"{json.dumps(about)})))))"
    )
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert all("far outside the training data, 0 to 16: check" in note for note in said[: len(far)])
    assert said[len(far) :] == [""] * len(near)
    assert [note[:2] for note in said[: len(far)]] == (["x3", "x1", "x1"] if far else [])


@pytest.mark.whole
def test_numbers_of_another_scale_are_told(drive, tmp_path):
    path, folder = site_of(SoftmaxRegression(3, 2), tmp_path, input_range=(0, 16))
    steps = [{"fill": [1, 2, 255]}, {"fill": [1, 2, 16.5]}]
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": steps})
    _, far, near = page["states"]
    assert far["hint"] == "x3 lies far outside the training data, 0 to 16: check the scale"
    assert near["hint"] == ""
    for state in (far, near):
        assert_answers(path, state)


@pytest.mark.whole
def test_numbers_that_overflow_have_no_answer(drive, tmp_path):
    model = SoftmaxRegression(3, 2)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[9.0, 0, 0], [-9.0, 0, 0]]))
    _, folder = site_of(model, tmp_path)
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": [{"fill": [3e38, 0, 0]}, {"fill": [1, 0, 0]}]})
    _, huge, usual = page["states"]
    assert huge["prediction"] == "No answer: these numbers are too large"
    assert (huge["winner"], usual["winner"]) == (None, "0")
    assert page["problems"] == []


@pytest.mark.whole
def test_many_numbers_are_pasted_and_the_top_classes_shown(drive, tmp_path):
    path, folder = site_of(SoftmaxRegression(100, 20), tmp_path)
    numbers = np.linspace(-2, 2, 100, dtype=np.float32)
    steps = [{"paste": ", ".join(map(str, numbers))}, {"paste": "1, 2, x"}]
    with serve(folder) as url:
        (page,) = drive({"url": url, "steps": steps, **PHONE})
    _, pasted, short = page["states"]
    np.testing.assert_array_equal(np.float32(pasted["lastInput"]), numbers)
    assert_answers(path, pasted)
    assert len(pasted["bars"]) == 10
    assert short["hint"] == "expected 100 numbers, got 3"
    assert pasted["overflow"] == 0


@pytest.mark.whole
def test_the_page_works_under_a_path(drive, digits_site):
    inner = digits_site[1]
    outer = inner.parent / "outer"
    shutil.copytree(inner, outer)
    shutil.copytree(inner, outer / "some" / "path")
    with serve(outer) as url:
        (page,) = drive({"url": f"{url}some/path/"})
    assert page["states"][0]["badge"]["state"] == "good"


def test_a_site_replaces_an_earlier_one_and_nothing_else(digits_site, tmp_path):
    path, _ = digits_site
    folder = tmp_path / "page"
    first = write_site(path, sidecar(path), folder)
    assert write_site(path, sidecar(path), folder).sizes == first.sizes
    assert {file.name for file in folder.iterdir()} == set(first.sizes)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"got also notes\.txt"):
        write_site(path, sidecar(path), folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="expected an empty folder or an earlier page"):
        write_site(path, sidecar(path), other)
    with pytest.raises(FileError, match="expected the sidecar of"):
        write_site(path, {**sidecar(path), "sha256": "0" * 64}, tmp_path / "third")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other", "page"]


def test_a_page_needs_log_probabilities(trained, tmp_path):
    with pytest.raises(FileError, match="expected a file that answers log_probs"):
        site_of(trained, tmp_path, profile=Profile.of(outputs=["probs", "label"]))


@pytest.mark.whole
def test_one_command_leads_from_a_checkpoint_to_the_browser(drive, checkpoint, tmp_path):
    told, folder = tmp_path / "told", tmp_path / "site"
    os.mkfifo(told)  # reading it waits until the browser was started
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {told}\n')
    browser.chmod(0o755)
    arguments = ["web", checkpoint, folder, "--input-range", "0", "16", "--open"]
    command = [sys.executable, "-m", "smx_export", *map(str, arguments)]
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "BROWSER": f"{browser} %s", "PYTHONPATH": paths}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:
        try:
            url = told.read_text().strip()
            (page,) = drive({"url": url, "steps": [{"draw": TOP}]})
            running.send_signal(signal.SIGINT)
            said, _ = running.communicate(timeout=120)
        finally:
            running.kill()
    assert running.returncode == 0
    assert page["states"][0]["badge"]["state"] == "good"
    assert page["states"][1]["winner"] is not None
    assert "parity holds" in said
    assert f"serving {url}" in said


def test_a_file_is_taken_as_it_is(digits_site, tmp_path, capsys):
    folder = tmp_path / "site"
    assert smx_export(["web", str(digits_site[0]), str(folder)]) == 0
    assert (folder / "model.onnx").read_bytes() == digits_site[0].read_bytes()
    assert f"wrote {folder}" in capsys.readouterr().out


# Tables ------------------------------------------------------------------------------------------


def test_a_table_s_columns_are_fields_of_their_own(drive, tmp_path):
    """Held against the file under onnxruntime of the row that Python's tables make."""
    schema = Schema(
        (
            Column("age", fill=40.0, missing=True),
            Column("colour", "category", True, categories=("red", "<b>blue</b>"), other=("grey",)),
            Column("ok", "boolean"),
            Column("born", "date", unit="D"),
            Column("seen, at", "date", fill=0.0, unit="s"),
        )
    )
    model = SoftmaxRegression(len(schema.feature_names), 3, schema=schema)
    model.linear.weight.data.normal_(0, 0.3)
    model.linear.weight.data[:, -2:] *= torch.tensor([1e-4, 1e-9])
    path, folder = site_of(model, tmp_path)
    entered = {
        "age": "61.5", "colour": "<b>blue</b>", "ok": "yes", "born (UTC)": "1987-06-05",
        "seen, at (UTC)": "2020-02-03T04:05:06",
    }  # fmt: skip
    with serve(folder) as url:
        steps = [{"enter": entered}, {"shot": "table"}, {"enter": {"age": "", "colour": "missing"}},
                 {"enter": {"born (UTC)": ""}}]  # fmt: skip
        (page,) = drive({"url": url, "steps": steps})
    assert page["problems"] == page["foreign"] == []
    example, filled, _, gaps, bad = page["states"]
    assert sum(example["lastProbs"]) == pytest.approx(1)
    row = {"age": [61.5], "colour": ["<b>blue</b>"], "ok": [True], "born": ["1987-06-05"],
           "seen, at": ["2020-02-03T04:05:06"]}  # fmt: skip
    other = {**row, "age": pa.nulls(1), "colour": pa.nulls(1)}
    for shown, frame in ((filled, row), (gaps, other)):
        probs = OnnxClassifier(path).predict_proba(frame)
        np.testing.assert_allclose(shown["lastProbs"], probs[0], atol=1e-6)
    assert (bad["hint"], bad["lastProbs"]) == ("expected a date as born", [])


def test_fields_bear_the_features_names(drive, tmp_path):
    model = SoftmaxRegression(3, 2, feature_names=["length", "<i>width</i>", "ü"])
    _, folder = site_of(model, tmp_path, input_range=(0, 1))
    with serve(folder) as url:
        steps = [{"enter": {"<i>width</i>": "0.5", "length": "900"}}, {"enter": {"ü": ""}}]
        (page,) = drive({"url": url, "steps": steps})
    assert page["states"][1]["lastInput"][:2] == [900, 0.5]
    assert page["states"][1]["hint"].startswith("length lies far outside the training data, 0 to 1")
    assert page["states"][2]["hint"] == "expected a number as ü"
