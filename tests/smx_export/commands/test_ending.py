"""Commands that a signal ends, or whose output nobody can write, and what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from smx_export import export_onnx
from smx_export.artifact.files import sealed
from smx_export.targets.limited import GRACE
from smx_lightning import SoftmaxRegression

# Signals as a terminal leaves them: nohup and shells' background jobs have some ignored.
RUN = """
import sys
sys.path.remove("")
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
from smx_export.__main__ import main
sys.exit(main())
"""
SHADOWING = ("json", "numpy", "onnx", "onnxruntime", "smx_export", "runpy", "signal")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("ending") / "model.onnx"
    export_onnx(SoftmaxRegression(3, 2), path)
    return path


@pytest.fixture(scope="module")
def endless(file):
    """The same file, with a loop of 2**62 trips before its probabilities."""
    proto = onnx.load(file)
    graph, scalar = proto.graph, helper.make_tensor_value_info
    last = next(node for node in graph.node if "probs" in node.output)
    last.output[0] = "before"
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [scalar("i", TensorProto.INT64, []), scalar("go", TensorProto.BOOL, []),
         scalar("v", TensorProto.FLOAT, None)],
        [scalar("on", TensorProto.BOOL, []), scalar("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    for name, value in (("trips", 2**62), ("start", True)):
        kind = TensorProto.INT64 if name == "trips" else TensorProto.BOOL
        tensor = helper.make_tensor(name, kind, [], [value])
        array = numpy_helper.to_array(tensor)
        constant = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        graph.node.insert(0, constant)
    graph.node.append(helper.make_node("Loop", ["trips", "start", "before"], ["probs"], body=body))
    path = file.with_name("endless.onnx")
    path.write_bytes(sealed(proto))
    return path


def started(*arguments, **options):
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, **options}
    return subprocess.Popen(command, text=True, env=environment, **options)


def running(path):
    """Processes with that file among their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(path) in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to see processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_command_that_was_ended(number, endless):
    seconds = 5 if number == signal.SIGKILL else 60
    process = started("selftest", endless, "--max-seconds", seconds)
    assert until(lambda: len(running(endless)) == 2, 20)
    time.sleep(1.5)  # so that it is in the loop
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    if number == signal.SIGKILL:  # nothing is said, and the rest ends by itself
        assert until(lambda: not running(endless), seconds + GRACE + 5)
        return
    assert process.returncode == 128 + number
    assert said == "smx-export: ended by a signal before all was done; start it again\n"
    assert until(lambda: not running(endless), 5)


@pytest.mark.parametrize("command", ["selftest", "verify", "predict"])
def test_nothing_is_imported_from_the_current_folder(command, file, tmp_path):
    for name in SHADOWING:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    import numpy as np

    np.savez(tmp_path / "rows.npz", x=np.zeros((2, 3), np.float32))
    more = {"verify": ["--targets", "onnxruntime"], "predict": ["rows.npz", "out.csv"]}
    process = started(command, file, *more.get(command, []), cwd=tmp_path)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, out + said
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_output_that_cannot_be_written_ends_in_a_sentence(file):
    with Path("/dev/full").open("w") as full:
        process = started("inspect", file, stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith("smx-export: expected to ")
    assert said.count("\n") == 1, said


def test_who_stops_reading_has_read_enough(file):
    reading, writing = os.pipe()
    os.close(reading)
    process = started("inspect", file, stdout=writing)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
