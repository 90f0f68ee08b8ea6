"""Exports in threads write what they write one after the other, byte for byte."""

import contextlib
import io
import logging
import multiprocessing
import os
import random
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sampled import whole

from smx_export import ParityError, check_parity, export_onnx
from smx_export.graph import written
from smx_lightning import SoftmaxRegression
from smx_lightning.processes import turns

THREADS = 8


class Backbone(SoftmaxRegression):
    def __init__(self, **kwargs):
        super().__init__(6, 3, input_shape=(4,), **kwargs)
        self.hidden = torch.nn.Linear(4, 6)

    def features(self, x):
        return torch.tanh(self.hidden(x))


def plain(seed):
    torch.manual_seed(seed)
    return SoftmaxRegression(5, 4, class_names=[f"{seed} {k}" for k in range(4)])


def traced(seed):
    torch.manual_seed(seed)
    return Backbone(class_names=[f"{seed} {k}" for k in range(3)])


def at_once(function, arguments, draws=False):
    """The answers of threads that begin together; with what the process shares as it was."""
    started = threading.Barrier(len(arguments))

    def run(argument):
        started.wait()
        return function(argument)

    shared, drawn = settings(), generators()
    with ThreadPoolExecutor(len(arguments)) as pool:
        answers = list(pool.map(run, arguments))
    assert settings() == shared
    assert generators() == drawn or draws
    return answers


def settings():
    """Of the process, which an export may change for a while."""
    return (
        sys.stdout,
        sys.stderr,
        list(warnings.filters),
        logging.getLogger("torch.onnx").level,
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.nn.Module.__call__,
        torch.nn.Module.__getattr__,
    )


def generators():
    numpys = np.random.get_state()[1].tolist()
    return torch.get_rng_state().tolist(), random.getstate(), numpys


MIXED = [plain, traced, plain, plain, traced, plain, plain, plain]


@pytest.mark.parametrize(
    "makes",
    [[plain] * THREADS, whole(MIXED), whole([traced] * THREADS)],
    ids=["plain", "mixed", "traced"],
)
def test_different_models(tmp_path, makes):
    models = [make(seed) for seed, make in enumerate(makes)]
    expected = [
        export_onnx(model, tmp_path / f"{seed}.onnx").path.read_bytes()
        for seed, model in enumerate(models)
    ]
    assert len(set(expected)) == THREADS

    def export(seed):
        return export_onnx(models[seed], tmp_path / f"thread{seed}.onnx")

    done = at_once(export, range(THREADS))
    assert [export.path.read_bytes() for export in done] == expected
    assert all(export.report.passed for export in done)


@pytest.mark.parametrize("make", [plain, whole(traced)])
@pytest.mark.parametrize("one_path", [False, True])
def test_the_same_model(tmp_path, make, one_path):
    model = make(0)
    expected = export_onnx(model, tmp_path / "model.onnx").path.read_bytes()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def export(number):
        name = "same.onnx" if one_path else f"{number}.onnx"
        return export_onnx(model, tmp_path / name).path.read_bytes()

    assert at_once(export, range(THREADS)) == [expected] * THREADS
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert model.training


def test_checkpoints(tmp_path, checkpoint):
    expected = export_onnx(checkpoint, tmp_path / "model.onnx").path.read_bytes()

    def export(number):
        return export_onnx(checkpoint, tmp_path / f"{number}.onnx").path.read_bytes()

    # A model that is loaded has drawn its first weights.
    assert at_once(export, range(4), draws=True) == [expected] * 4


def test_verifying_beside_exporting(tmp_path):
    models = [plain(0), traced(1)]
    paths = [export_onnx(model, tmp_path / f"{k}.onnx").path for k, model in enumerate(models)]

    expected = paths[1].read_bytes()

    def job(number):
        if number % 2:
            path = export_onnx(models[1], tmp_path / f"thread{number}.onnx").path
            return path.read_bytes() == expected
        return [check_parity(m, p).passed for m, p in zip(models, paths, strict=True)] == [True] * 2

    assert all(at_once(job, range(4)))


def test_a_failure_lets_the_next_one_go_on(tmp_path, monkeypatch):
    build = written.softmax_regression_graph

    def wrong(weight, *args, **kwargs):
        factor = 1.5 if threading.current_thread().name == "bad" else 1
        return build(weight * factor, *args, **kwargs)

    monkeypatch.setattr(written, "softmax_regression_graph", wrong)
    caught = []

    def fail():
        with contextlib.suppress(ParityError):
            export_onnx(plain(0), tmp_path / "bad.onnx")
            caught.append("no error")

    thread = threading.Thread(target=fail, name="bad")
    thread.start()
    thread.join()
    assert caught == []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(export_onnx, plain(0), tmp_path / "good.onnx").result(timeout=60)
    assert done.report.passed


def test_one_runs_at_a_time_and_may_call_others():
    running, most = 0, 0

    @turns.in_turn
    def inner():
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(1000):
            pass
        running -= 1

    @turns.in_turn
    def outer(number):
        """Its own words."""
        inner()
        return number

    assert outer.__doc__ == "Its own words."
    assert at_once(outer, range(THREADS)) == list(range(THREADS))
    assert most == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_that_is_forked_meanwhile_does_not_wait_for_ever():
    entered, leave = threading.Event(), threading.Event()

    @turns.in_turn
    def slow():
        entered.set()
        leave.wait()

    thread = threading.Thread(target=slow)
    thread.start()
    entered.wait()
    process = multiprocessing.get_context("fork").Process(target=turns.in_turn(lambda: None))
    try:
        process.start()
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
        leave.set()
        thread.join()


def test_nothing_is_printed_and_what_others_print_arrives(tmp_path, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    tracing, printed = threading.Event(), threading.Event()

    class Telling(Backbone):
        def features(self, x):
            if torch.compiler.is_exporting() and not tracing.is_set():
                tracing.set()
                assert printed.wait(60)
            return super().features(x)

    def other():
        assert tracing.wait(60)
        print("from another thread")
        printed.set()

    thread = threading.Thread(target=other)
    thread.start()
    export_onnx(Telling(), tmp_path / "model.onnx")
    thread.join()
    assert terminal.getvalue() == "from another thread\n"
