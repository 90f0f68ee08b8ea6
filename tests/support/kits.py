"""The kits of examples/deploy, each run as a user would, in a folder of its own."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
from browsers import package, shared_browser, tool
from tools import ROOT, needed

DEPLOY = ROOT / "examples" / "deploy"
CC = ("gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
RANGE = (0, 16)
# A user's environment: smx_export itself has switched telemetry off in this process.
ENV = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}


@dataclass
class Said:
    """What a kit said: (class name, probability) of each row, or why not; a warning beside it."""

    answers: list
    refusal: str
    warning: str = ""

    @classmethod
    def of(cls, done):
        said = done.stderr.strip()
        if done.returncode == 0:
            assert said == "" or said.startswith("warning: "), said
        else:
            assert said != ""
        assert len(said.splitlines()) <= 1, said
        pairs = [line.split("\t") for line in done.stdout.splitlines()]
        answers = [(name, float(p)) for name, p in pairs]
        return cls(answers, "", said) if done.returncode == 0 else cls(answers, said)


def run(*command, folder, **options):
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=ENV, capture_output=True, text=True, timeout=60,
        encoding="utf-8", **options,
    )  # fmt: skip


def install(name, folder):
    """What npm install would."""
    there = folder / "node_modules"
    there.exists() or there.symlink_to(package(name).parent)


def lines(x, separator):
    return [separator.join(f"{value:.17g}" for value in row.ravel()) for row in x]


def python(folder, x):
    np.save(folder / "x.npy", x)
    return Said.of(run(sys.executable, "classify.py", "model.onnx", "x.npy", folder=folder))


def node(folder, x):
    install("onnxruntime-node", folder)
    (folder / "rows.json").write_text(json.dumps([row.tolist() for row in x]))
    return Said.of(run(tool("node"), "classify.mjs", "model.onnx", "rows.json", folder=folder))


def c(folder, x):
    if not (folder / "classify").exists():
        needed("emx_onnx_cgen")
        generated = run(sys.executable, "generate.py", "model.onnx", folder=folder)
        assert generated.returncode == 0, generated.stderr
        tool(CC[0])
        built = run(*CC, "-o", "classify", "classify.c", "model.c", "-lm", folder=folder)
        assert (built.returncode, built.stderr) == (0, "")
    rows = "".join(f"{line}\n" for line in lines(x, " "))
    return Said.of(run("./classify", folder=folder, input=rows))


def opencv(folder, x):
    cv2 = needed("cv2")
    names = [f"{row}.png" for row in range(len(x))]
    for name, row in zip(names, x, strict=True):
        pixels = np.rint(row * 255 / RANGE[1]).astype(np.uint8).reshape(8, 8)
        larger = pixels.repeat(5, axis=0).repeat(5, axis=1)  # as no camera is this coarse
        cv2.imwrite(str(folder / name), larger)
    return Said.of(run(sys.executable, "classify.py", "model.onnx", *names, folder=folder))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing."""


@contextmanager
def serve(folder):
    """What ``python -m http.server --bind 127.0.0.1`` serves."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def browser(folder, x):
    install("onnxruntime-web", folder)
    with serve(folder) as url:
        page = shared_browser("drive_kit.mjs").ask(url=url, texts=lines(x, ", "))
    assert page["foreign"] == []
    first, *rest = page["states"]
    assert first["disabled"] == (not first["status"].startswith("self-test passed"))
    warnings = [state["status"] for state in rest if state["status"].startswith("warning: ")]
    if first["disabled"] or (rest[-1]["status"] and rest[-1]["status"] not in warnings):
        return Said([], page["states"][-1]["status"])
    chosen = [
        line.split(maxsplit=2)
        for state in rest
        for line in state["probabilities"].splitlines()
        if line.startswith("→")
    ]
    return Said([(name, float(p)) for _, p, name in chosen], "", "".join(warnings[:1]))


KITS = {"python": python, "node": node, "browser": browser, "c": c, "opencv": opencv}
