import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from sampled import whole
from tools import ROOT

from smx_export import OnnxExport, ParityError, check_parity, export_onnx
from smx_export.artifact.describe import describe
from smx_export.graph import written
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import BatchLoader, Rows
from smx_lightning.processes.files import written_whole


def names(folder):
    return [file.name for file in folder.iterdir()]


def model_of_shape(d=6, k=3, **kwargs):
    return SoftmaxRegression(d, k, **kwargs)


def test_the_file_keeps_the_contract(tmp_path):
    classes = ["α", "b c", '"quoted"']
    path = export_onnx(model_of_shape(class_names=classes), tmp_path / "model.onnx").path
    assert names(tmp_path) == ["model.onnx"]
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    assert [node.op_type for node in proto.graph.node] == ["Gemm", "LogSoftmax", "Softmax"]
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("input", "tensor(float)", ["batch", 6])
    outputs = [(out.name, out.type, out.shape) for out in session.get_outputs()]
    assert outputs == [
        ("log_probs", "tensor(float)", ["batch", 3]),
        ("probs", "tensor(float)", ["batch", 3]),
    ]
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == classes


def test_standardisation_is_folded_into_the_weights(trained, digits, tmp_path):
    path = export_onnx(trained, tmp_path / "model.onnx").path
    x = digits.splits.test.x
    (log_probs,) = onnxruntime.InferenceSession(path).run(
        ["log_probs"], {"input": x.flatten(1).numpy()}
    )
    np.testing.assert_allclose(log_probs, trained(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6])
def test_a_mean_far_above_its_scale_costs_no_accuracy(ratio, tmp_path):
    """Folded, the ratio 1e6 would cost 7 nats: the file then subtracts the mean first."""
    model = model_of_shape(64, 10, preprocessing="standardize")
    with torch.no_grad():
        model.linear.weight.normal_()
        model.preprocessing.mean.copy_(ratio * (1 + torch.rand(64)))
    export = export_onnx(model, tmp_path / "model.onnx")
    assert export.report.passed
    assert export.report.max_error < 0.002
    operators = [node.op_type for node in onnx.load(export.path).graph.node]
    assert ("Sub" in operators) == (ratio > 1024)


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint, tmp_path):
    first = export_onnx(checkpoint, tmp_path / "a.onnx").path.read_bytes()
    assert export_onnx(checkpoint, tmp_path / "b.onnx").path.read_bytes() == first


def test_the_metadata_tells_the_provenance_and_no_local_path(checkpoint, tmp_path):
    path = export_onnx(checkpoint, tmp_path / "model.onnx").path
    provenance = describe(path).provenance
    assert provenance["packages"]["torch"] == torch.__version__
    assert provenance["training"]["epochs"] == 5
    assert "val/nll" in provenance["training"]["metrics"]
    content = path.read_bytes()
    assert str(checkpoint.parent).encode() not in content
    assert str(ROOT).encode() not in content


@pytest.mark.parametrize("cast", ["bfloat16", "half", "double"])
def test_any_training_precision_exports_float32(cast, tmp_path):
    model = getattr(model_of_shape(), cast)()
    export = export_onnx(model, tmp_path / "model.onnx")
    assert export.report.passed
    weight = onnx.numpy_helper.to_array(onnx.load(export.path).graph.initializer[0])
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, model.linear.weight.detach().float())
    assert model.linear.weight.dtype == getattr(
        torch, cast.replace("half", "float16").replace("double", "float64")
    )


def test_export_leaves_the_live_model_and_its_trainer_alone(digits, quiet_trainer, tmp_path):
    model = SoftmaxRegression(64, 10, preprocessing="standardize")
    trainer = quiet_trainer()
    trainer.fit(model, digits)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx")
    assert model.trainer is trainer
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_to_onnx_is_the_safe_export(tmp_path):
    model = model_of_shape(d=6)
    path = model.to_onnx(tmp_path / "model.onnx", input_sample=torch.zeros(1, 2, 3))
    assert check_parity(model, path).passed
    assert describe(path).input_shape == [2, 3]


def test_a_failed_check_leaves_what_was_there(tmp_path, monkeypatch):
    path = export_onnx(model_of_shape(), tmp_path / "model.onnx").path
    good = path.read_bytes()
    build = written.softmax_regression_graph
    monkeypatch.setattr(
        written,
        "softmax_regression_graph",
        lambda w, b, meta, **shift: build(1.01 * w, b, meta, **shift),
    )
    with pytest.raises(ParityError, match="the ONNX file is not the model: log_probs") as caught:
        export_onnx(model_of_shape(), path)
    assert not caught.value.report.passed
    assert path.read_bytes() == good
    assert names(tmp_path) == ["model.onnx"]


def test_a_crash_while_writing_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("good")

    def crash():
        with written_whole(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert path.read_text() == "good"
    assert names(tmp_path) == ["file"]


def test_written_files_have_ordinary_permissions(tmp_path):
    export_onnx(model_of_shape(), tmp_path / "model.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "model.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_callback_exports_the_best_checkpoint_byte_for_byte(digits, quiet_trainer, tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/nll", filename="best")
    onnx_export = OnnxExport(str(tmp_path / "callback.onnx"))
    trainer = quiet_trainer(max_epochs=3, enable_checkpointing=True, callbacks=[best, onnx_export])
    model = SoftmaxRegression(64, 10, preprocessing="standardize", input_shape=(8, 8))
    trainer.fit(model, digits)
    converted = export_onnx(tmp_path / "best.ckpt", tmp_path / "converted.onnx").path
    assert onnx_export.export.path.read_bytes() == converted.read_bytes()
    assert onnx_export.export.report.task.rows == len(digits.splits.val)


def test_the_callback_takes_the_best_weights_and_not_the_last(digits, quiet_trainer, tmp_path):
    """A learning rate that explodes after one epoch: the last weights are not the best ones."""
    best = ModelCheckpoint(tmp_path, monitor="val/nll", filename="best")
    onnx_export = OnnxExport(str(tmp_path / "model.onnx"))
    model = SoftmaxRegression(
        64,
        10,
        preprocessing="standardize",
        lr_scheduler=lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda e: 1 + 1000 * e),
    )
    trainer = quiet_trainer(max_epochs=2, enable_checkpointing=True, callbacks=[best, onnx_export])
    trainer.fit(model, digits)
    assert not check_parity(model, tmp_path / "model.onnx").passed
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "best.ckpt")
    assert check_parity(loaded, tmp_path / "model.onnx").passed


def test_without_checkpoints_the_callback_exports_the_weights_at_hand(
    digits, quiet_trainer, tmp_path
):
    onnx_export = OnnxExport(str(tmp_path / "model.onnx"))
    model = SoftmaxRegression(64, 10)
    quiet_trainer(callbacks=[onnx_export]).fit(model, digits)
    assert check_parity(model, tmp_path / "model.onnx").passed


def test_a_fast_dev_run_exports_nothing(digits, quiet_trainer, tmp_path):
    onnx_export = OnnxExport(str(tmp_path / "model.onnx"))
    quiet_trainer(callbacks=[onnx_export], fast_dev_run=True).fit(SoftmaxRegression(64, 10), digits)
    assert onnx_export.export is None
    assert not names(tmp_path)


def test_the_report_is_a_table_and_json_without_nan(trained, digits, tmp_path):
    rows = digits.splits.test
    report = export_onnx(trained, tmp_path / "m.onnx", data=(rows.x, rows.y)).report
    assert "449 labelled rows" in str(report)
    assert str(report).splitlines()[-1].startswith("parity holds on ")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(report.to_json(), parse_constant=refuse)
    assert content["passed"] is True
    assert content["task"]["model_accuracy"] == content["task"]["file_accuracy"]
    with pytest.raises(AttributeError):
        report.rows = 3


# Your own rows -------------------------------------------------------------------------------

ROWS = torch.arange(24.0).reshape(4, 6).remainder(7)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    "x",
    [
        ROWS.bfloat16(),
        ROWS.half(),
        ROWS.to(torch.float8_e5m2),
        ROWS.clone().requires_grad_(),
        2 * ROWS.clone().requires_grad_() / 2,
        ROWS.tolist(),
        np.ma.masked_equal(ROWS.numpy(), -1),
        np.asfortranarray(ROWS.numpy()),
    ],
    ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')}",
)
def test_rows_of_any_precision_and_from_a_graph_are_compared(x, tmp_path):
    torch.manual_seed(1)
    model = model_of_shape()
    plain = ROWS.to(torch.float8_e5m2).float() if "float8" in str(getattr(x, "dtype", "")) else ROWS
    report = export_onnx(model, tmp_path / "m.onnx", data=(x, LABELS)).report
    expected = -model(plain)[range(4), LABELS].double().mean().detach()
    assert report.task.model_nll == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((ROWS.numpy() + 1j, LABELS), "expected data of real numbers, got complex64"),
        ((ROWS.to(torch.complex64), LABELS), "expected data of real numbers, got complex64"),
        (ROWS.numpy().astype(str), "expected data of real numbers, got <U"),
        (ROWS.numpy().astype(object), "expected data of real numbers, got object"),
        ((ROWS, LABELS, LABELS, LABELS), "or .inputs, labels, weights., got a tuple of 4"),
        ([ROWS, LABELS], "expected data as one array, got list that is none"),
        ([[1.0] * 6, [1.0]], "expected data as one array, got list that is none"),
        (ROWS.to_sparse(), "expected data as one array, got Tensor that is none"),
    ],
)
def test_what_are_no_rows_is_refused_in_one_sentence(data, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_onnx(model_of_shape(), tmp_path / "m.onnx", data=data)
    assert not names(tmp_path)


def test_rows_behind_a_mask_have_no_answer(tmp_path):
    x = np.ma.masked_equal(ROWS.numpy(), 6)
    assert x.mask.any()
    hidden, missing = (
        export_onnx(model_of_shape(), tmp_path / "m.onnx", data=data).report
        for data in (x, np.where(x.mask, np.nan, ROWS.numpy()))
    )
    assert hidden.unjudged == missing.unjudged


class OwnLabels(SoftmaxRegression):
    """Steps that know labels of their own."""

    def validation_step(self, batch, batch_idx):
        self.forward(batch[0])

    training_step_rows = staticmethod(lambda y: y.reshape(len(y), -1)[:, 0].long().clamp(0, 9))

    def training_step(self, batch, batch_idx):
        return self.objective(batch[0], self.training_step_rows(batch[1]))


def pairs(digits, labelled):
    val = digits.splits.val
    rows = torch.utils.data.TensorDataset(val.x, labelled(val.y))
    return torch.utils.data.DataLoader(rows, batch_size=64)


@pytest.mark.parametrize(
    "labelled",
    [
        lambda y: torch.nn.functional.one_hot(y, 10).float() * 2,
        lambda y: torch.stack([y, y], 1),
        lambda y: torch.where(torch.arange(len(y)) % 7 == 0, -2, y),
        lambda y: y + 1,
        lambda y: y.float(),
    ],
    ids=["no distribution", "(n, 2)", "negative", "too large", "float"],
)
def test_labels_of_one_s_own_are_left_and_the_rows_compared(
    labelled, digits, quiet_trainer, tmp_path
):
    callback = OnnxExport(str(tmp_path / "m.onnx"))
    rows = pairs(digits, labelled)
    quiet_trainer(callbacks=[callback]).fit(OwnLabels(64, 10, input_shape=(8, 8)), rows, rows)
    report = callback.export.report
    assert report.passed
    assert report.task is None
    bare = export_onnx(SoftmaxRegression(64, 10, input_shape=(8, 8)), tmp_path / "n.onnx").report
    assert report.rows == bare.rows + len(digits.splits.val)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_the_task_report_is_of_weighted_soft_and_unlabelled_rows(
    soft, weighted, digits, quiet_trainer, tmp_path
):
    val = digits.splits.val
    known = torch.arange(len(val)) % 7 > 0
    y = torch.where(known, val.y, -1)
    if soft:
        q = torch.nn.functional.one_hot(val.y, 10) * 0.7 + 0.03
        y = torch.where(known[:, None], q, torch.nan)
    weight = torch.arange(len(val)).double() % 3 if weighted else None
    callback = OnnxExport(str(tmp_path / "m.onnx"))
    model = SoftmaxRegression(64, 10, input_shape=(8, 8))
    loader = BatchLoader(Rows(val.x, y, weight), batch_size=64)
    quiet_trainer(callbacks=[callback]).fit(model, loader, loader)
    log_probs = model(val.x).detach().double()
    q = (q if soft else torch.nn.functional.one_hot(val.y, 10)).double()
    c = known.double() * (1 if weight is None else weight)
    accuracy = c @ q[torch.arange(len(q)), log_probs.argmax(1)] / c.sum()
    nll = -(c @ (q * log_probs).sum(1)) / c.sum()
    for task in (
        callback.export.report.task,
        export_onnx(model, tmp_path / "n.onnx", data=(val.x, y, weight)).report.task,
    ):
        assert task.rows == int((c > 0).sum())
        assert (task.file_accuracy, task.model_accuracy) == pytest.approx([float(accuracy)] * 2)
        assert (task.file_nll, task.model_nll) == pytest.approx([float(nll)] * 2, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_callback_compares_batches_of_any_precision(precision, digits, quiet_trainer, tmp_path):
    callback = OnnxExport(str(tmp_path / "m.onnx"))
    model = SoftmaxRegression(64, 10, input_shape=(8, 8))
    rows = pairs(digits, lambda y: y)
    quiet_trainer(callbacks=[callback], precision=precision).fit(model, rows, rows)
    assert callback.export.report.passed
    assert callback.export.report.task.rows == len(digits.splits.val)


# The callback over several fits, and before one ----------------------------------------------


def is_of(model, path):
    """By numpy alone: whether the file answers as the model does."""
    x = torch.randn(20, 64)
    probs = onnxruntime.InferenceSession(path).run(["probs"], {"input": x.numpy()})[0]
    return np.allclose(probs, model.eval()(x).exp().detach(), rtol=1e-3, atol=1e-5)


def noise(digits):
    """Rows on which no fit is as good as on the digits."""
    y = digits.splits.val.y
    rows = torch.utils.data.TensorDataset(torch.randn(len(y), 64), y)
    return torch.utils.data.DataLoader(rows, batch_size=64)


def linear():
    return SoftmaxRegression(64, 10, preprocessing="standardize")


again = pytest.mark.filterwarnings("ignore:Checkpoint directory")


@again
@pytest.mark.parametrize("one_trainer", [False, True])
def test_callbacks_that_are_used_again_export_the_fit_at_hand(
    one_trainer, digits, quiet_trainer, tmp_path
):
    best = ModelCheckpoint(tmp_path / "ckpt", monitor="val/nll")
    onnx_export = OnnxExport(str(tmp_path / "m.onnx"))

    def trainer():
        return quiet_trainer(max_epochs=1, enable_checkpointing=True, callbacks=[best, onnx_export])

    first, second, one = linear(), linear(), trainer()
    one.fit(first, digits)
    assert is_of(first, tmp_path / "m.onnx")
    two = one if one_trainer else trainer()
    two.fit_loop.max_epochs = 2
    with pytest.warns(UserWarning, match="is of an earlier fit, and this one has left none"):
        two.fit(second, noise(digits), noise(digits))
    assert is_of(second, tmp_path / "m.onnx")


@again
def test_a_checkpoint_written_over_an_earlier_fit_s_is_this_fit_s(digits, quiet_trainer, tmp_path):
    """The path is the same, and the last weights are not the best ones."""
    onnx_export = OnnxExport(str(tmp_path / "m.onnx"))
    for epochs in (1, 3):
        best = ModelCheckpoint(
            tmp_path, monitor="val/nll", filename="best", enable_version_counter=False
        )
        best.best_model_path = str(tmp_path / "best.ckpt") if epochs == 3 else ""
        model = SoftmaxRegression(
            64,
            10,
            preprocessing="standardize",
            lr_scheduler=lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda e: 1 + 1e3 * e),
        )
        trainer = quiet_trainer(
            max_epochs=epochs, enable_checkpointing=True, callbacks=[best, onnx_export]
        )
        trainer.fit(model, digits)
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "best.ckpt")
    assert is_of(loaded, tmp_path / "m.onnx")
    assert not is_of(model, tmp_path / "m.onnx")


@again
def test_a_fit_that_goes_on_knows_the_best_checkpoint_of_before(digits, quiet_trainer, tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/nll", filename="best", save_last=True)
    onnx_export = OnnxExport(str(tmp_path / "m.onnx"))

    def trainer(epochs):
        callbacks = [best, onnx_export]
        return quiet_trainer(max_epochs=epochs, enable_checkpointing=True, callbacks=callbacks)

    model = SoftmaxRegression(
        64,
        10,
        preprocessing="standardize",
        lr_scheduler=lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda e: 1 + 1e3 * e),
    )
    trainer(1).fit(model, digits)
    trainer(2).fit(model, digits, ckpt_path=tmp_path / "last.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "best.ckpt")
    assert is_of(loaded, tmp_path / "m.onnx")
    assert not is_of(model, tmp_path / "m.onnx")


class Removing(Callback):
    def on_train_end(self, trainer, pl_module):
        Path(trainer.checkpoint_callback.best_model_path).unlink()


def test_a_best_checkpoint_that_was_removed_is_no_loss_of_the_export(
    digits, quiet_trainer, tmp_path
):
    callbacks = [ModelCheckpoint(tmp_path), Removing(), OnnxExport(str(tmp_path / "m.onnx"))]
    model = linear()
    with pytest.warns(UserWarning, match="as it was removed; give each fit"):
        quiet_trainer(enable_checkpointing=True, callbacks=callbacks).fit(model, digits)
    assert is_of(model, tmp_path / "m.onnx")


@again
def test_the_best_checkpoint_may_lie_elsewhere(digits, quiet_trainer, tmp_path):
    """As with ``dirpath="s3://…"``; the first epoch is the best by a metric that rises."""
    folder = f"memory://{tmp_path.name}"
    best = ModelCheckpoint(folder, monitor="val/nll", mode="max", filename="best")
    callbacks = [best, OnnxExport(str(tmp_path / "m.onnx"))]
    model = linear()
    quiet_trainer(max_epochs=3, enable_checkpointing=True, callbacks=callbacks).fit(model, digits)
    assert is_of(SoftmaxRegression.load_from_checkpoint(best.best_model_path), tmp_path / "m.onnx")
    assert not is_of(model, tmp_path / "m.onnx")
    converted = export_onnx(best.best_model_path, tmp_path / "converted.onnx").path
    assert converted.read_bytes() == (tmp_path / "m.onnx").read_bytes()


class Frozen(SoftmaxRegression):
    """A backbone that nobody trains, and that checkpoints leave out."""

    def __init__(self):
        super().__init__(5, 10, input_shape=(64,))
        self.body = torch.nn.Linear(64, 5).requires_grad_(False)
        torch.nn.init.ones_(self.body.weight)
        torch.nn.init.zeros_(self.body.bias)
        self.strict_loading = False

    def features(self, x):
        return (self.body(x.flatten(1)) / 64).tanh()

    def on_save_checkpoint(self, checkpoint):
        for name in ("body.weight", "body.bias"):
            del checkpoint["state_dict"][name]


def test_checkpoints_may_leave_frozen_weights_out(digits, quiet_trainer, tmp_path):
    callbacks = [ModelCheckpoint(tmp_path), OnnxExport(str(tmp_path / "m.onnx"))]
    model = Frozen()
    quiet_trainer(enable_checkpointing=True, callbacks=callbacks).fit(model, digits)
    assert is_of(model, tmp_path / "m.onnx")


def test_a_compiled_model_is_exported_as_the_model(tmp_path):
    model = linear()
    compiled = torch.compile(model, backend="eager")
    export_onnx(compiled, tmp_path / "m.onnx")
    assert is_of(model, tmp_path / "m.onnx")
    assert check_parity(compiled, tmp_path / "m.onnx").passed


class EveryOther(SoftmaxRegression):
    def features(self, x):
        return x[:, ::2, ::2].flatten(1)


def test_a_file_of_another_input_shape_is_compared_in_it(tmp_path):
    model, path = EveryOther(16, 3), tmp_path / "m.onnx"
    export_onnx(model, path, input_shape=(8, 8))
    assert check_parity(model, path, input_shape=(8, 8)).passed
    assert not check_parity(model, path, input_shape=(7, 8)).passed


class Untrained(Callback):
    def on_train_start(self, trainer, pl_module):
        raise AssertionError("the fit began")


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (".", {}, "expected a file name to write to, got the folder .; add a name"),
        ("/proc/nope/x.onnx", {}, "expected a folder for /proc/nope/x.onnx, got: .*; choose an"),
        ("file/x.onnx", {}, "expected a folder for file/x.onnx, got: .*; choose another path"),
        ("/dev/null", {}, "got /dev/null, which is no regular file; choose another name"),
        ("m" * 300, {}, "expected to write m+, got: File name too long"),
        ("new/m.onnx", {"profile": "compact"}, "what int8 weights cost, got no validation; give"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_training(
    path, options, message, digits, quiet_trainer, cli_folder
):
    Path("file").touch()
    trainer = quiet_trainer(callbacks=[OnnxExport(path, **options), Untrained()])
    with pytest.raises(InputError, match=message):
        trainer.fit(linear(), noise(digits))
    assert names(cli_folder) == ["file"]


def test_looking_whether_a_file_can_be_written_leaves_it(digits, quiet_trainer, tmp_path):
    (tmp_path / "m.onnx").write_text("before")
    trainer = quiet_trainer(callbacks=[OnnxExport(str(tmp_path / "m.onnx")), Untrained()])
    with pytest.raises(AssertionError, match="the fit began"):
        trainer.fit(linear(), digits)
    assert names(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "before"


class Backbone(SoftmaxRegression):
    def features(self, x):
        return x.flatten(1).tanh()


def test_the_callback_moves_no_random_numbers(digits, quiet_trainer, tmp_path):
    after = []
    for callbacks in ([], [OnnxExport(str(tmp_path / "m.onnx"))]):
        torch.manual_seed(1)
        quiet_trainer(callbacks=callbacks).fit(Backbone(64, 10), noise(digits), noise(digits))
        after.append(torch.rand(3))
    assert torch.equal(*after)


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, started = tmp_path / "m.txt", threading.Barrier(4)

    def write(text):
        with written_whole(path) as draft:
            draft.write_text(text)
            started.wait()  # all drafts are there

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ["a", "b", "c", "d"]))
    assert path.read_text() in "abcd"
    assert names(tmp_path) == ["m.txt"]


# Backbones that no file can be, and the remedies ----------------------------------------------


def with_features(features, net=None, d=8):
    class Own(SoftmaxRegression):
        def __init__(self):
            super().__init__(d, 3, input_shape=(8,))
            self.net = net

        def features(self, x):
            return features(self, x)

    return Own()


def where(self, x):
    return torch.where(x[:, :1] > 1e30, 2 * x, x)


def branching(self, x):
    return 2 * x if float(x.max()) > 1e30 else x


TABLE = torch.nn.Embedding(100, 2)
REFUSED = [
    (lambda self, x: TABLE(x.long()).flatten(1), 16, r"got IndexError for some: .*x\.clamp"),
    whole(
        (
            lambda self, x: TABLE(x.long().abs()).flatten(1),
            16,
            r"got IndexError for some: .*x\.clamp",
        )
    ),
    (torch.nn.Conv2d(1, 2, 3), 8, r"got RuntimeError for some: .*right input_shape="),
    (torch.nn.RReLU(), 8, r"expected a model that torch.onnx can export, got .*rrelu"),
    (branching, 8, r"expected a model that torch.onnx can export, got .*torch.where instead"),
    (lambda self, x: (x.abs() * -1).log(), 8, r"x\.clamp\(min=1e-6\) before a logarithm"),
]
TAKEN = [
    (lambda self, x: TABLE(x.long().clamp(0, 99)).flatten(1), 16),
    whole((where, 8)),
    whole((lambda self, x: x.clamp(min=1e-6).log(), 8)),
]


def features_of(part):
    return (lambda self, x: self.net(x)) if isinstance(part, torch.nn.Module) else part


@pytest.mark.whole
@pytest.mark.parametrize(("part", "d", "message"), REFUSED)
def test_a_backbone_that_cannot_be_exported_is_refused_in_one_sentence(part, d, message, tmp_path):
    net = part if isinstance(part, torch.nn.Module) else None
    with pytest.raises(ValueError, match=message) as refused:
        export_onnx(with_features(features_of(part), net, d), tmp_path / "m.onnx")
    assert len(str(refused.value).splitlines()) == 1
    assert not names(tmp_path)


@pytest.mark.parametrize(("part", "d"), TAKEN)
def test_the_remedies_for_such_backbones_work(part, d, tmp_path):
    assert export_onnx(with_features(part, d=d), tmp_path / "m.onnx").report.passed
