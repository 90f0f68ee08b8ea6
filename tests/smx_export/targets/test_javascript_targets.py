"""onnxruntime in node and in Chromium: sessions that are asked, stopped, killed and forgotten."""

import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sampled import whole
from tools import installed, left

from smx_export import Profile, export_onnx
from smx_export.contract import ALL_OUTPUTS
from smx_export.targets import NotInstalled, javascript, npm, target
from smx_export.targets.bridge import Bridge
from smx_export.targets.javascript import JavaScriptError

NODE = ("onnxruntime-node", "onnxruntime-web-node")
NAMES = (*NODE, "onnxruntime-web-chromium")


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """A file of features with all outputs, and one of pixels."""
    folder = tmp_path_factory.mktemp("files")
    profiles = {"features": Profile(outputs=ALL_OUTPUTS), "pixels": Profile(image=True)}
    return {
        name: export_onnx(
            trained, folder / f"{name}.onnx", profile=profile, input_range=(0, 16)
        ).path
        for name, profile in profiles.items()
    }


@pytest.fixture(scope="module", params=[*NODE, whole(NAMES[-1])])
def session(request, files):
    """One session a runtime, which the tests share."""
    loaded = installed(request.param).load(files["features"])
    yield loaded
    loaded.close()


@pytest.fixture
def load(files):
    """Loads a file; in the end nothing of any session is left, however the test treated it."""
    traces = []

    def load(name, file="features"):
        loaded = installed(name).load(files[file])
        traces.append((loaded._log.parent, loaded._bridge.server_address))
        return loaded

    yield load
    gc.collect()
    assert_nothing_left(traces)


def assert_nothing_left(traces):
    for folder, address in traces:
        assert left(str(folder)) == []
        assert not folder.exists()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(address):
            pass


@pytest.fixture(scope="module")
def rows(digits):
    return digits.splits.test.x.flatten(1).numpy()


def assert_same(answers, path, x):
    runtime = onnxruntime.InferenceSession(path)
    names = [output.name for output in runtime.get_outputs()]
    right = dict(zip(names, runtime.run(None, {"input": np.ascontiguousarray(x)}), strict=True))
    assert list(answers) == names
    for name, answer in answers.items():
        assert (answer.dtype, answer.shape) == (right[name].dtype, right[name].shape)
        np.testing.assert_allclose(answer, right[name], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_a_batch_of_any_size_is_answered_as_in_python(n, session, files, rows):
    assert_same(session.run(rows[:n]), files["features"], rows[:n])


def test_the_label_is_int64(session, rows):
    assert session.run(rows[:3])["label"].dtype == np.int64


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-3],
        lambda x: x[:9, ::-1],
        lambda x: np.asfortranarray(x[:9]),
        lambda x: np.broadcast_to(x[0], (4, 64)),
        lambda x: x.astype(">f4").astype("<f4")[1:2],
    ],
)
def test_rows_that_lie_apart_in_memory_arrive_whole(view, session, files, rows):
    assert_same(session.run(view(rows)), files["features"], view(rows))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((2, 63), np.float32), "invalid dimensions"),
        (np.zeros(64, np.float32), "[Ii]nvalid|rank"),
        (np.zeros((2, 64), np.float64), "float64|data type"),
        (np.zeros((2, 64), np.float16), "no tensor of float16 can be made"),
    ],
    ids=["width", "rank", "dtype", "unknown dtype"],
)
def test_a_wrong_input_is_refused_and_the_next_one_answered(x, said, session, files, rows):
    with pytest.raises(JavaScriptError, match=said) as caught:
        session.run(x)
    assert "\n" not in str(caught.value)
    assert_same(session.run(rows[:2]), files["features"], rows[:2])


def test_time_passes(session, rows):
    assert 0 < session.seconds(rows[:1], runs=3) < 0.1


@pytest.mark.parametrize("name", [NODE[0], *map(whole, NAMES[1:])])
def test_pixels_are_bytes_and_a_killed_process_is_no_hang(name, load, files, rows):
    session = load(name, "pixels")
    pixels = np.rint(rows[:5] * 255 / 16).astype(np.uint8).reshape(5, 8, 8)
    assert_same(session.run(pixels), files["pixels"], pixels)
    os.kill(session._process.pid, signal.SIGKILL)
    with pytest.raises(JavaScriptError, match="its process ended with exit code -9"):
        session.run(pixels)
    with pytest.raises(JavaScriptError, match="got a closed one; load the file anew"):
        session.run(pixels)


@pytest.mark.parametrize("name", NODE)
def test_a_bad_file_is_refused_in_one_line(name, tmp_path, monkeypatch):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no model")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(JavaScriptError, match="Failed to load model") as caught:
        installed(name).load(path)
    assert "\n" not in str(caught.value)
    assert left(str(scratch)) == list(scratch.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        installed(name).load(tmp_path / "absent.onnx")
    assert left(str(scratch)) == list(scratch.iterdir()) == []


def test_a_process_that_stands_still_is_given_up(load, rows, monkeypatch):
    monkeypatch.setattr(javascript, "ENDING", 0.1)  # it ignores SIGTERM, too
    session = load(NODE[0])
    session.timeout = 0.1
    os.kill(session._process.pid, signal.SIGSTOP)
    with pytest.raises(JavaScriptError, match=r"none came in 0\.1 s"):
        session.run(rows[:1])
    with pytest.raises(JavaScriptError, match="got a closed one"):  # its answer would come late
        session.run(rows[:1])


def test_a_session_can_be_closed_twice(load, rows):
    session = load(NODE[0])
    session.close()
    session.close()
    with pytest.raises(JavaScriptError, match="got a closed one"):
        session.run(rows[:1])


def test_a_forgotten_session_ends_by_itself(load):
    session = load(NODE[0])
    process = session._process
    del session
    gc.collect()
    assert process.poll() is not None


@pytest.mark.whole
def test_python_s_end_ends_a_browser(files):
    installed(NAMES[2])
    code = (
        "import sys; from pathlib import Path; from smx_export.targets import target; "
        "session = target(sys.argv[1]).load(Path(sys.argv[2])); "
        "print(session._log.parent, session._bridge.server_port)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, NAMES[2], files["features"]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    folder, port = done.stdout.split()
    assert_nothing_left([(Path(folder), ("127.0.0.1", int(port)))])


# The bridge --------------------------------------------------------------------------------------


@pytest.fixture
def ask_for(tmp_path):
    """What a bridge that offers four files answers to a GET: status, type, content."""
    secret = tmp_path / "secret.html"
    for name in ("secret.html", "page.html", "code.mjs", "code.wasm"):
        (tmp_path / name).write_text(name)
    files = {f"/{name}": tmp_path / name for name in ("page.html", "code.mjs", "code.wasm")}
    with Bridge({**files, "/folder/page.html": tmp_path / "page.html"}) as bridge:
        line = http.client.HTTPConnection("127.0.0.1", bridge.server_port, timeout=10)

        def ask_for(path):
            line.request("GET", path.replace("SECRET", str(secret)))
            reply = line.getresponse()
            return reply.status, reply.headers["Content-Type"], reply.read()

        yield ask_for
        line.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/page.html", "text/html"),
        ("/folder/page.html", "text/html"),
        ("/code.mjs", "text/javascript"),
        ("/code.wasm", "application/wasm"),
    ],
)
def test_the_bridge_serves_what_it_was_given(path, kind, ask_for):
    assert ask_for(path) == (200, kind, Path(path).name.encode())


@pytest.mark.parametrize(
    "path",
    ["/", "/secret.html", "/folder/../secret.html", "/../secret.html", "/%2e%2e/secret.html",
     "SECRET", "/SECRET", "/page.html/", "/page.html?x=1", "/folder"],
)  # fmt: skip
def test_the_bridge_serves_nothing_else(path, ask_for):
    assert ask_for(path) == (404, "text/plain", b"")
    assert ask_for("/page.html")[0] == 200  # the same connection, as before


def test_questions_and_answers_pass_through_the_bridge_unchanged():
    data = bytes(range(256)) * 40_000 + b"\n\n"
    with Bridge({}) as bridge:
        line = http.client.HTTPConnection("127.0.0.1", bridge.server_port, timeout=10)
        assert bridge.answer(0.01) is None
        bridge.ask({"what": "é\n"}, data)
        line.request("POST", "/", b"")
        head, _, body = line.getresponse().read().partition(b"\n")
        assert (head, body) == (b'{"what": "\\u00e9\\n"}', data)
        bridge.ask({}, b"")
        line.request("POST", "/", b'{"so": 1}\n' + data)
        assert line.getresponse().read() == b"{}\n"
        assert bridge.answer(10) == ({"so": 1}, data)
        line.close()


# npm ---------------------------------------------------------------------------------------------


def package(folder, version):
    home = folder / "node_modules" / "some-package"
    home.mkdir(parents=True)
    (home / "package.json").write_text(f'{{"version": "{version}"}}')


def test_the_nearest_package_counts_then_that_of_the_checkout(tmp_path, monkeypatch):
    checkout, work = tmp_path / "checkout", tmp_path / "work" / "deep"
    work.mkdir(parents=True)
    monkeypatch.setattr(npm, "__file__", str(checkout / "smx_export" / "npm.py"))
    monkeypatch.chdir(work)
    with pytest.raises(NotInstalled, match="some-package, found none: npm install some-package"):
        npm.node_module("some-package")
    for folder, version in ((checkout, "1"), (work.parent, "2"), (work, "3")):
        package(folder, version)
        assert npm.node_module_version("some-package") == version
    (work / "node_modules" / "empty").mkdir()
    with pytest.raises(NotInstalled):
        npm.node_module("empty")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_program_or_package_is_said_with_its_remedy(name, tmp_path, monkeypatch):
    installed(name)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("SMX_CHROMIUM", "no-such-browser")
        with pytest.raises(NotInstalled, match=r"apt-get install (nodejs|chromium)"):
            target(name).version()
    monkeypatch.setattr(npm, "__file__", str(tmp_path / "npm.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotInstalled, match=r"npm install onnxruntime-(node|web)$"):
        target(name).version()
