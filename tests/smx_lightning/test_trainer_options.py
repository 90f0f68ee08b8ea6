"""The Trainer's options, with mini-batches and with the exact solver, against plain loops."""

import functools
import math

import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from sampled import sampled, whole
from sklearn import datasets
from torch.nn import utils
from torch.utils.data import DataLoader
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import DigitsDataModule
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.descent import Descent

L2 = 1e-2
X, Y = (torch.as_tensor(a) for a in datasets.load_digits(return_X_y=True))
PARTS = list(zip((X / 16).split(100), Y.split(100), strict=True))  # float64
BATCHES, HELD_OUT, WHOLE = PARTS[:4], PARTS[4:6], [0, 1, 2, 3]
ONES = [[k] for k in WHOLE]
SGD = functools.partial(torch.optim.SGD, lr=0.5)
ADAM = functools.partial(torch.optim.Adam, lr=0.01)
OPTIMIZERS = pytest.mark.parametrize("optimizer", [SGD, ExactSolver], ids=["sgd", "exact"])
# The same, of tests that take seconds.
SGD_AT_LEAST = pytest.mark.parametrize("optimizer", [SGD, whole(ExactSolver)], ids=["sgd", "exact"])
STOP = callbacks.EarlyStopping("val/nll", min_delta=100, patience=2)
CLIP = "gradient_clip_val", "gradient_clip_algorithm"
WIDE = {"bf16-mixed": "float32", "16-mixed": "float32", "64-true": "float64"}
DTYPES = {ADAM: WIDE | {"bf16-true": "bfloat16"}, SGD: {"16-true": "float16"}, ExactSolver: WIDE}
ignoring = pytest.mark.filterwarnings


@pytest.fixture(autouse=True)
def _alone():
    """One thread, with which small problems are fastest; and torch's settings as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def loader(batches=BATCHES):
    return DataLoader(batches, batch_size=None)


def model_of(optimizer=SGD, cls=SoftmaxRegression, **kwargs):
    torch.manual_seed(0)
    return cls(64, 10, l2=L2, optimizer=optimizer, **kwargs).double()


def fit(model, batches=BATCHES, **options):
    trainer = quiet_trainer(**{"max_epochs": 2, "precision": "64-true", **options})
    trainer.fit(model, loader(batches), loader(HELD_OUT))
    return trainer


def by_hand(steps, lrs=None, clip=None):
    """Weights after one SGD step a list of batches, which are joined to one, in plain torch."""
    linear = model_of().linear
    for batches, lr in zip(steps, lrs or [0.5] * len(steps), strict=True):
        linear.zero_grad()
        x, y = (torch.cat(parts) for parts in zip(*(BATCHES[k] for k in batches), strict=True))
        nll = torch.nn.functional.cross_entropy(linear(x), y)
        (nll + L2 / 2 * linear.weight.square().sum()).backward()
        if clip is not None:
            clip(linear.parameters(), 0.01)
        for p in linear.parameters():
            p.data -= lr * p.grad
    return linear.weight


def assert_weights(model, expected):
    torch.testing.assert_close(model.linear.weight, expected, rtol=1e-9, atol=1e-12)


class Seen(callbacks.Callback):
    """Which training batches were seen, and how many to validate on, in training and before it."""

    def __init__(self):
        self.trained, self.validated = [], [0, 0]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained += [k for k, (x, _) in enumerate(BATCHES) if torch.equal(x, batch[0])]

    def on_validation_batch_end(self, trainer, *_):
        self.validated[trainer.sanity_checking] += 1


SEEN = [  # batches of an epoch, epochs, batches validated on, and before training; by which options
    (WHOLE, 2, 4, 2, {}, {"reload_dataloaders_every_n_epochs": 1}, {"profiler": "simple"}),
    (WHOLE, 2, 4, 2, {"deterministic": True}, {"detect_anomaly": True}),
    ([0], 2, 4, 2, {"limit_train_batches": 1}),
    ([0, 1, 2], 2, 4, 2, {"limit_train_batches": 3}, {"limit_train_batches": 0.75}),
    (WHOLE, 2, 0, 0, {"limit_val_batches": 0}),
    (WHOLE, 2, 2, 1, {"limit_val_batches": 1}, {"limit_val_batches": 0.5}),
    (WHOLE, 2, 8, 2, {"val_check_interval": 2}, {"val_check_interval": 0.5}),
    (WHOLE, 2, 2, 2, {"check_val_every_n_epoch": 2}),
    (WHOLE, 2, 4, 0, {"num_sanity_val_steps": 0}, {"barebones": True}),
    ([0], 2, 2, 1, {"overfit_batches": 1}),
    ([0, 1], 2, 2, 1, {"overfit_batches": 0.5}),
    ([0], 1, 1, 0, {"fast_dev_run": True}),
    ([0, 1], 1, 2, 0, {"fast_dev_run": 2}),
]


@OPTIMIZERS
@pytest.mark.parametrize(
    ("options", "expected"),
    sampled([(o, row[:4]) for row in SEEN for o in row[4:]], every=2),
    ids=str,
)
@ignoring("ignore:You are trying to `self.log")  # barebones logs nothing, and says so
def test_weights_are_those_of_the_batches_asked_for(options, expected, optimizer):
    seen, model, (epoch, epochs, *validated) = Seen(), model_of(optimizer), expected
    if optimizer is ExactSolver and "limit_train_batches" in options:
        with pytest.raises(InputError, match="part of the data"):
            fit(model, **options)
        return
    trainer = fit(model, callbacks=[seen], **options)
    assert (seen.trained, seen.validated) == (epoch * epochs, validated)
    assert torch.are_deterministic_algorithms_enabled() == ("deterministic" in options)
    if "profiler" in options:
        assert len(trainer.profiler.recorded_durations["run_training_batch"]) == 8
    if optimizer is SGD:
        assert_weights(model, by_hand([[k] for k in seen.trained]))
    else:
        plain = model_of(ExactSolver)
        fit(plain, [BATCHES[k] for k in epoch], max_epochs=epochs)
        assert_weights(model, plain.linear.weight)


@pytest.mark.parametrize("limit", [1, 0.5])
def test_only_the_limited_part_is_tested(limit):
    model, (x, y) = model_of(), HELD_OUT[0]
    quiet_trainer(limit_test_batches=limit).test(model, loader(HELD_OUT), verbose=False)
    assert model.confusion_matrix.sum() == len(y)
    assert model.confusion_matrix.trace() == (model(x).argmax(1) == y).sum()


@pytest.mark.parametrize(
    ("options", "steps", "clip"),
    [
        ({"max_steps": 6, "max_epochs": -1}, [*ONES, [0], [1]], None),
        ({"accumulate_grad_batches": 2}, [[0, 1], [2, 3]] * 2, None),
        ({CLIP[0]: 0.01, CLIP[1]: "norm"}, ONES * 2, utils.clip_grad_norm_),
        ({CLIP[0]: 0.01, CLIP[1]: "value"}, ONES * 2, utils.clip_grad_value_),
    ],
)
def test_steps_are_those_of_a_plain_loop(options, steps, clip):
    model = model_of()
    fit(model, **options)
    assert_weights(model, by_hand(steps, clip=clip))


@OPTIMIZERS
@pytest.mark.parametrize("metric", ["val/nll", "train/nll"])
def test_early_stopping_stops(metric, optimizer):
    stopping = callbacks.EarlyStopping(metric, patience=2, min_delta=100)
    assert fit(model_of(optimizer), max_epochs=20, callbacks=stopping).current_epoch == 3


@pytest.mark.parametrize("stop", [{"max_steps": 3}, {"callbacks": STOP}])
def test_the_exact_solver_leaves_its_best_point_whatever_stops_it(stop, monkeypatch):
    """Its third evaluation is made a bad one: the point of the second is the answer."""
    best, model = model_of(ExactSolver), model_of(ExactSolver)
    fit(best)
    monkeypatch.setattr(Descent, "_accepted", lambda descent, _: descent.evaluations < 3)
    assert fit(model, max_epochs=10, **stop).global_step == 3
    assert_weights(model, best.linear.weight)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (ExactSolver, {CLIP[0]: 1.0, CLIP[1]: "value"}, "clipping"),
        (ExactSolver, {"precision": "16-true"}, "float32 or float64"),
        (ExactSolver, {"callbacks": callbacks.StochasticWeightAveraging(0.5)}, "averaged weights"),
        (ExactSolver, {"callbacks": callbacks.EMAWeightAveraging()}, "averaged weights"),
        (ADAM, {"precision": "16-true"}, "eps that float16 can hold"),
    ],
)
@ignoring("ignore:You're using the WeightAveraging callback")  # so it is refused
def test_what_would_not_reach_the_optimum_is_refused(optimizer, options, message):
    with pytest.raises(InputError, match=message):
        fit(model_of(optimizer), **options)


def test_a_plateau_lowers_the_rate_and_the_monitor_sees_it(tmp_path):
    """No epoch gains 99 %, so that each after the first divides the rate by ten."""
    settings = {"monitor": "val/nll", "patience": 0, "threshold": 0.99, "factor": 0.1}
    model = model_of(lr_scheduler=functools.partial(ReduceLROnPlateau, **settings))
    monitor = callbacks.LearningRateMonitor("epoch")
    fit(model, max_epochs=4, callbacks=monitor, logger=CSVLogger(tmp_path))
    assert monitor.lrs["lr-SGD"] == pytest.approx([0.5, 0.5, 0.05, 0.005])
    lrs = [lr for lr in monitor.lrs["lr-SGD"] for _ in WHOLE]
    assert_weights(model, by_hand(ONES * 4, lrs))


def test_weight_averaging_ends_at_the_average():
    points = []
    record = callbacks.LambdaCallback(
        on_train_epoch_start=lambda _, model: points.append(model.linear.weight.clone())
    )
    averaging, model = callbacks.StochasticWeightAveraging(0.5, swa_epoch_start=3), model_of()
    fit(model, max_epochs=5, callbacks=[averaging, record])
    assert_weights(model, torch.stack(points[2:]).mean(0))  # epochs' beginnings, from the third on


@ignoring("ignore:(?s).*Error detected in MulBackward0")  # and the line that it stands in
def test_detect_anomaly_names_the_operation():
    model = model_of()
    model.loss = lambda log_probs, y: (0 * log_probs).sqrt().sum()
    with pytest.raises(RuntimeError, match="'MulBackward0' returned nan"):
        fit(model, detect_anomaly=True)


def trained_on_digits(optimizer, precision, digits):
    torch.manual_seed(0)
    model = SoftmaxRegression(64, 10, l2=L2, preprocessing="standardize", optimizer=optimizer)
    trainer = quiet_trainer(max_epochs=8, precision=precision)
    trainer.fit(model, digits)
    return model, float(trainer.callback_metrics["val/accuracy_micro"])


@ignoring("ignore:.*fp16 is not supported on CPU")  # Lightning takes bf16-mixed instead
@pytest.mark.parametrize(
    ("optimizer", "precision", "dtype"),
    sampled(
        [(o, p, getattr(torch, d)) for o, dtypes in DTYPES.items() for p, d in dtypes.items()],
        every=3,
    ),
)
def test_every_precision_is_as_accurate_as_float32(optimizer, precision, dtype, digits):
    wide, expected = trained_on_digits(optimizer, "32-true", digits)
    model, accuracy = trained_on_digits(optimizer, precision, digits)
    assert expected > 0.9
    assert accuracy == pytest.approx(expected, abs=0.02)
    assert model.linear.weight.dtype == dtype
    log_probs = model(digits.splits.test.x)
    assert log_probs.dtype == torch.promote_types(dtype, torch.float32)
    assert (log_probs.exp().sum(1) - 1).abs().max() < 1e-5
    if optimizer is ExactSolver and dtype == torch.float32:
        assert torch.equal(model.linear.weight, wide.linear.weight)


def test_the_suggested_learning_rate_is_good_and_the_exact_solver_needs_none(tmp_path):
    model = model_of()
    trainer = quiet_trainer(max_epochs=50, precision="64-true", default_root_dir=tmp_path)
    found = Tuner(trainer).lr_find(model, loader(), min_lr=1e-3, max_lr=10, num_training=50)
    assert_weights(model, model_of().linear.weight)
    assert 0.01 < model.lr == found.suggestion() < 1
    logged = fit(model).callback_metrics
    assert_weights(model, by_hand(ONES * 2, [model.lr] * 8))
    assert logged["val/nll"] < 0.9 * math.log(10)
    with pytest.raises(InputError, match="the solver chooses its steps itself"):
        Tuner(trainer).lr_find(model_of(ExactSolver), loader())


@pytest.mark.whole
@SGD_AT_LEAST
def test_the_largest_batch_size_is_found_and_leaves_no_trace(optimizer, tmp_path):
    """There is none for more than 256 rows, at an epoch's second step."""

    class SmallMemory(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1 and len(batch[1]) > 256:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(batch, batch_idx)

    results = []
    for size in (8, 256):
        data, model = DigitsDataModule(batch_size=size), model_of(optimizer, SmallMemory).float()
        trainer = quiet_trainer(default_root_dir=tmp_path)
        if size == 8:
            Tuner(trainer).scale_batch_size(model, datamodule=data, init_val=128)
        assert data.batch_size == 256
        torch.manual_seed(1)
        trainer.fit(model, data)
        results.append({"weight": model.linear.weight, **trainer.callback_metrics})
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.whole
@ignoring("ignore:`torch.jit.script_method` is deprecated")  # inductor's own
@ignoring("ignore:The .grad attribute of a Tensor")  # dynamo looks at it
@SGD_AT_LEAST
@pytest.mark.parametrize("part", ["forward", "smx", "steps", whole("inductor")])
def test_a_compiled_model_is_the_same_model(part, optimizer):
    torch._dynamo.reset()
    graphs, plain, model = [], model_of(optimizer), model_of(optimizer)
    backend = "inductor" if part == "inductor" else lambda graph, _: graphs.append(1) or graph
    if part == "steps":
        fit(torch.compile(model, backend=backend), BATCHES * 3)
    else:
        (model.smx if part == "smx" else model).compile(backend=backend)
        fit(model, BATCHES * 3)
    fit(plain, BATCHES * 3)
    assert_weights(model, plain.linear.weight)
    assert list(model.smx.state_dict()) == ["0.weight", "0.bias"]
    # torch 2.13 leaves modules of its own, as smx is, uncompiled (its #150915). At 8 graphs, such
    # as one for every length of a list, dynamo gives up.
    assert len(graphs) in (range(1, 8) if part in ("forward", "steps") else range(1))
