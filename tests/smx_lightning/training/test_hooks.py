"""Every hook that a subclass or a data module may override, and what still holds then.

``EVERYTHING`` are overridden as most users do, without ``super()``: training, statistics, metrics,
tests, predictions and checkpoints must be those of the plain model, bit for bit.
"""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.core.hooks import CheckpointHooks, DataHooks, ModelHooks
from sampled import sampled
from torch.utils.data import DataLoader, TensorDataset

from smx_export import OnnxExport, export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.checkpoint import read_checkpoint
from smx_lightning.data import BatchLoader, Rows
from smx_lightning.optim import ExactSolver


def rows(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(100, 20, (n, 4)).astype(np.float32)
    y = np.argmax(x[:, :3] + rng.normal(0, 5, (n, 3)), 1)
    return Rows(torch.from_numpy(x), torch.from_numpy(y))


TRAIN, VAL, TEST = rows(40, 0), rows(20, 1), rows(24, 2)


class Data(LightningDataModule):
    def train_dataloader(self):
        return BatchLoader(TRAIN, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return BatchLoader(VAL, batch_size=16)

    def test_dataloader(self):
        return BatchLoader(TEST, batch_size=16)

    predict_dataloader = test_dataloader


def nothing(self, *args, **kwargs):
    return None


def first(self, batch, *args):
    return batch


def step(self, epoch, batch_idx, optimizer, closure):
    optimizer.step(closure)


# Overridden without super(): everything holds.
EVERYTHING = {
    **dict.fromkeys(
        [
            *("setup", "teardown", "configure_model", "prepare_data", "configure_callbacks"),
            *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end"),
            *("on_train_batch_start", "on_train_batch_end", "on_train_epoch_start"),
            *("on_train_epoch_end", "on_validation_start", "on_validation_end"),
            *("on_validation_epoch_start", "on_validation_epoch_end", "on_validation_batch_start"),
            *("on_validation_batch_end", "on_validation_model_zero_grad", "on_test_start"),
            *("on_test_end", "on_test_epoch_start", "on_test_epoch_end", "on_test_batch_start"),
            *("on_test_batch_end", "on_predict_start", "on_predict_end", "on_predict_epoch_start"),
            *("on_predict_epoch_end", "on_predict_batch_start", "on_predict_batch_end"),
            *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
            *("on_before_zero_grad", "on_save_checkpoint", "on_load_checkpoint"),
            *("configure_gradient_clipping", "on_validation_model_eval", "on_test_model_eval"),
            *("on_validation_model_train", "on_test_model_train", "on_predict_model_eval"),
        ],
        nothing,
    ),
    "on_before_batch_transfer": first,
    "on_after_batch_transfer": first,
    "transfer_batch_to_device": first,
    "backward": lambda self, loss: loss.backward(),
    "optimizer_step": step,
    "optimizer_zero_grad": lambda self, epoch, batch_idx, optimizer: optimizer.zero_grad(),
    "lr_scheduler_step": lambda self, scheduler, metric: scheduler.step(),
    "configure_optimizers": lambda self: torch.optim.Adam(self.parameters(), lr=0.01),
    "train_dataloader": lambda self: Data().train_dataloader(),
    "val_dataloader": lambda self: Data().val_dataloader(),
    "test_dataloader": lambda self: Data().test_dataloader(),
    "predict_dataloader": lambda self: Data().test_dataloader(),
}
# Overriding these changes what is computed; each has a test below or elsewhere.
SOMETHING = {
    "forward": "test_subclass.py: export traces it",
    "training_step": "statistics, validation, export; training metrics where it calls objective",
    "validation_step": "all but the val/ metrics",
    "test_step": "all but the test/ metrics",
    "predict_step": "all but PredictionsInOrder, which refuses other answers",
    "configure_sharded_model": "removed by Lightning in favour of configure_model",
}
# No hooks: what a user calls, or Lightning's own.
CALLED = {
    *("log", "log_dict", "log_grad_norm", "print", "freeze", "unfreeze", "all_gather"),
    *("manual_backward", "toggle_optimizer", "untoggle_optimizer", "toggled_optimizer"),
    *("clip_gradients", "optimizers", "lr_schedulers", "to_onnx", "to_torchscript"),
    *("to_tensorrt", "load_from_checkpoint", "state_dict", "load_state_dict"),
}


def hooks_of(*classes):
    names = {name for kind in classes for name, value in vars(kind).items() if callable(value)}
    return {name for name in names if not name.startswith("_")}


def test_the_tables_name_every_hook_of_the_installed_lightning():
    assert hooks_of(LightningModule, ModelHooks, DataHooks, CheckpointHooks) == (
        EVERYTHING.keys() | SOMETHING.keys() | (CALLED & hooks_of(LightningModule))
    )


def run(model, data, quiet_trainer, tmp_path):
    """All that training and evaluation leave behind."""
    torch.manual_seed(0)
    order = PredictionsInOrder()
    trainer = quiet_trainer(max_epochs=2, callbacks=[order])
    given = {"train_dataloaders": None} if data is None else {"datamodule": data}
    trainer.fit(model, **given)
    logged = {**trainer.callback_metrics}
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    given.pop("train_dataloaders", None)
    trainer.test(model, verbose=False, ckpt_path=tmp_path / "run.ckpt", **given)
    trainer.predict(model, return_predictions=False, **given)
    kept = read_checkpoint(tmp_path / "run.ckpt")
    return {
        **model.state_dict(),
        **{f"saved {name}": value for name, value in kept.state_dict.items()},
        **logged,
        **{name: v for name, v in trainer.callback_metrics.items() if name.startswith("test/")},
        "confusion": model.confusion_matrix,
        "label": order.prediction.label,
        "probs": order.prediction.probs,
        "epochs": torch.tensor(kept.training["epochs"]),
    }


def made(kind=SoftmaxRegression, **kwargs):
    torch.manual_seed(1)
    return kind(4, 3, preprocessing="standardize", class_weight="balanced", l2=1e-3, **kwargs)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    from trainers import quiet_trainer

    return run(made(), Data(), quiet_trainer, tmp_path_factory.mktemp("plain"))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


LOADERS_OF_ITS_OWN = {name for name in EVERYTHING if name.endswith("_dataloader")}
# Lightning asks for some of them only in other circumstances.
ASKED_ELSEWHERE = {"on_validation_model_zero_grad", "configure_gradient_clipping"}


# Lightning's, once in a process: it takes the module's hook and not the data module's.
OVERRIDDEN = pytest.mark.filterwarnings("ignore:You have overridden")


def unchanging(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)


def each_and_all(hooks):
    """Sets of one hook each; and all at once, which stands for most of them in make test."""
    singles = [pytest.param({hook}, id=hook) for hook in hooks]
    together = {*hooks} - {"configure_optimizers"}  # without it a schedule is stepped
    return [*sampled(singles, every=8), pytest.param(together, id="all at once")]


@pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training")
@OVERRIDDEN
@pytest.mark.parametrize("hooks", each_and_all(sorted(EVERYTHING)))
def test_an_overridden_hook_takes_nothing_away(hooks, plain, quiet_trainer, tmp_path):
    calls = set()

    def overriding(hook):
        def override(self, *args, **kwargs):
            calls.add(hook)
            return EVERYTHING[hook](self, *args, **kwargs)

        return override

    loaders = LOADERS_OF_ITS_OWN if hooks & LOADERS_OF_ITS_OWN else set()
    own = {name: EVERYTHING[name] for name in loaders}
    kind = type("Overriding", (SoftmaxRegression,), own | {h: overriding(h) for h in hooks})
    model = made(kind, **({"lr_scheduler": unchanging} if "lr_scheduler_step" in hooks else {}))
    found = run(model, None if loaders else Data(), quiet_trainer, tmp_path)
    assert_same(found, plain)
    assert calls | ASKED_ELSEWHERE >= hooks


# A module has no loaders of its own to call.
@OVERRIDDEN
@pytest.mark.parametrize("hooks", each_and_all(sorted(EVERYTHING.keys() - LOADERS_OF_ITS_OWN)))
def test_one_that_calls_super_as_well_takes_nothing_away(hooks, plain, quiet_trainer, tmp_path):
    def calling(hook):
        return lambda self, *args, **kwargs: getattr(super(kind, self), hook)(*args, **kwargs)

    kind = type("Overriding", (SoftmaxRegression,), {hook: calling(hook) for hook in hooks})
    model = made(kind, **({"lr_scheduler": unchanging} if "lr_scheduler_step" in hooks else {}))
    assert_same(run(model, Data(), quiet_trainer, tmp_path), plain)


def test_a_hook_of_a_mixin_and_one_of_a_grandchild_take_nothing_away(
    plain, quiet_trainer, tmp_path
):
    class Mixin:
        on_train_start = on_save_checkpoint = on_validation_epoch_end = nothing

    class Child(Mixin, SoftmaxRegression):
        on_test_epoch_end = nothing

    class Grandchild(Child):
        on_train_start = on_train_epoch_end = on_load_checkpoint = nothing

    assert_same(run(made(Grandchild), Data(), quiet_trainer, tmp_path), plain)


DATA_HOOKS = hooks_of(LightningDataModule, DataHooks) - {
    *("from_datasets", "load_from_checkpoint"),  # no hooks
    *("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"),  # Data's own
}


@pytest.mark.parametrize("hooks", each_and_all(sorted(DATA_HOOKS)))
def test_hooks_of_a_data_module_take_nothing_away(hooks, plain, quiet_trainer, tmp_path):
    answers = EVERYTHING | {"state_dict": lambda self: {}}
    kind = type("OverridingData", (Data,), {hook: answers.get(hook, nothing) for hook in hooks})
    assert_same(run(made(), kind(), quiet_trainer, tmp_path), plain)


# Steps of one's own -------------------------------------------------------------------------


class Mixup(SoftmaxRegression):
    """Somebody's own training step, which counts nothing."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        lam, other = 0.7, torch.arange(len(y)).flip(0)
        log_probs = self(lam * x + (1 - lam) * x[other])
        return lam * self.loss(log_probs, y) + (1 - lam) * self.loss(log_probs, y[other])


class Counted(SoftmaxRegression):
    def training_step(self, batch, batch_idx):
        return self.objective(*batch)


class ByHand(SoftmaxRegression):
    """Manual optimisation."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.objective(*batch))
        optimizer.step()


def test_a_training_step_of_one_s_own_trains_and_exports(quiet_trainer, tmp_path):
    model = made(Mixup)
    before = model.linear.weight.detach().clone()
    onnx = OnnxExport(str(tmp_path / "mixup.onnx"))
    trainer = quiet_trainer(max_epochs=2, callbacks=[onnx])
    trainer.fit(model, Data())
    assert not torch.equal(before, model.linear.weight)
    torch.testing.assert_close(model.preprocessing.mean, TRAIN.x.mean(0))
    assert "train/nll" not in trainer.callback_metrics
    assert "val/nll" in trainer.callback_metrics
    assert onnx.export.report.passed


@pytest.mark.parametrize("kind", [Counted, ByHand])
def test_the_objective_in_a_step_of_one_s_own_is_the_whole_loss(
    kind, plain, quiet_trainer, tmp_path
):
    assert_same(run(made(kind), Data(), quiet_trainer, tmp_path), plain)


def test_evaluation_steps_of_one_s_own_log_what_they_log(quiet_trainer):
    class Own(SoftmaxRegression):
        def validation_step(self, batch, batch_idx):
            self.log("val/mine", float(batch_idx))

        def test_step(self, batch, batch_idx):
            self.log("test/mine", float(batch_idx))

    trainer = quiet_trainer()
    model = made(Own)
    trainer.fit(model, Data())
    assert {"val/mine", "train/nll", "train/accuracy_micro"} == set(trainer.callback_metrics)
    (logged,) = trainer.test(model, Data(), verbose=False)
    assert set(logged) == {"test/mine"}
    assert model.confusion_matrix is None


def test_a_prediction_step_of_one_s_own_is_refused_where_rows_are_to_be_ordered(quiet_trainer):
    class Own(SoftmaxRegression):
        def predict_step(self, batch, batch_idx):
            return self(batch[0]).argmax(1)

    assert len(quiet_trainer().predict(made(Own), Data())) == 2
    with pytest.raises(InputError, match="predict_step to answer with a Prediction"):
        quiet_trainer(callbacks=[PredictionsInOrder()]).predict(
            made(Own), Data(), return_predictions=False
        )


def test_the_exact_solver_says_that_a_step_of_its_own_passes_no_rows_on(quiet_trainer):
    class Deaf(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            return None

    class Scaled(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x / 7, y), batch_idx)

    with pytest.raises(InputError, match=r"call super\(\).training_step"):
        quiet_trainer(max_epochs=50).fit(made(Deaf, optimizer=ExactSolver), Data())
    scaled = made(Scaled, optimizer=ExactSolver)
    quiet_trainer(max_epochs=50).fit(scaled, Data())
    assert scaled.solver.status.name == "CONVERGED"


def test_after_the_exact_solver_another_optimiser_trains_the_same_module(quiet_trainer):
    model = made(optimizer=ExactSolver)
    quiet_trainer(max_epochs=50).fit(model, Data())
    before = model.linear.weight.detach().clone()
    model._optimizer = lambda params: torch.optim.SGD(params, lr=0.5)
    quiet_trainer(max_epochs=1, gradient_clip_val=1.0).fit(model, Data())
    assert model.solver is None
    assert not torch.equal(before, model.linear.weight)


@pytest.mark.parametrize("tries", [1, 5])
def test_a_closure_s_trial_points_are_not_counted(tries, quiet_trainer):
    """The epoch's metrics are those of the point at which each batch arrived."""

    def lbfgs(params):
        return torch.optim.LBFGS(params, max_iter=tries, lr=0.1)

    model = made(optimizer=lbfgs)
    trainer = quiet_trainer(max_epochs=1)
    start = model.linear.weight.detach().clone(), model.linear.bias.detach().clone()
    trainer.fit(model, DataLoader(TensorDataset(TRAIN.x, TRAIN.y), batch_size=len(TRAIN)))
    standardised = (TRAIN.x - TRAIN.x.mean(0)) / TRAIN.x.std(0, correction=0)
    log_probs = (standardised @ start[0].T + start[1]).log_softmax(1)
    expected = -log_probs.gather(1, TRAIN.y[:, None]).mean()
    torch.testing.assert_close(trainer.callback_metrics["train/nll"], expected)


# Batches as the hooks hand them over --------------------------------------------------------


def halved(self, batch, *args):
    x, y = batch[:2]
    return (x - 90) / 2, y


TRANSFERS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Named(Data):
    """Batches (x, y, name), as somebody's data set gives them."""

    def loader(self, rows):
        names = [str(row) for row in range(len(rows))]
        return DataLoader([*zip(rows.x, rows.y, names, strict=True)], batch_size=16)

    def train_dataloader(self):
        return self.loader(TRAIN)

    def val_dataloader(self):
        return self.loader(VAL)


@OVERRIDDEN
@pytest.mark.parametrize("hook", TRANSFERS)
@pytest.mark.parametrize("where", ["module", "data module"])
@pytest.mark.parametrize("data", [Data, Named])
def test_statistics_and_export_see_what_the_model_sees(hook, where, data, quiet_trainer, tmp_path):
    override = {hook: halved}
    model_kind = type("Own", (SoftmaxRegression,), override if where == "module" else {})
    data_kind = type("OwnData", (data,), override if where == "data module" else {})
    onnx = OnnxExport(str(tmp_path / "model.onnx"))
    model = made(model_kind)
    trainer = quiet_trainer(callbacks=[onnx])
    trainer.fit(model, data_kind())
    seen = (TRAIN.x - 90) / 2
    torch.testing.assert_close(model.preprocessing.mean, seen.mean(0))
    torch.testing.assert_close(model.preprocessing.scale, seen.std(0, correction=0))
    task = onnx.export.report.task
    assert task.rows == len(VAL)
    assert task.model_nll == pytest.approx(float(trainer.callback_metrics["val/nll"]), rel=1e-5)


# Which rows the statistics are of -----------------------------------------------------------


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield from zip(TRAIN.x, TRAIN.y, strict=True)


LOADERS = {
    "BatchLoader": lambda: BatchLoader(TRAIN, batch_size=8, shuffle=True),
    "DataLoader": lambda: DataLoader(TensorDataset(TRAIN.x, TRAIN.y), batch_size=8, shuffle=True),
    "stream": lambda: DataLoader(Endless(), batch_size=8),
}


class Seen(SoftmaxRegression):
    def on_train_batch_start(self, batch, batch_idx):
        self.seen = [*getattr(self, "seen", []), batch]


LIMITS = [
    {"limit_train_batches": 1},
    {"limit_train_batches": 3},
    {"overfit_batches": 2},
    {"fast_dev_run": True},
    {"max_steps": 2},
    {"max_steps": 2, "accumulate_grad_batches": 2},
]


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train")
@pytest.mark.parametrize(
    ("loader", "limit"),
    [
        (loader, limit)
        for loader in LOADERS
        for limit in LIMITS
        if not (loader == "stream" and "overfit_batches" in limit)  # which Lightning refuses
    ],
    ids=str,
)
def test_statistics_are_of_the_rows_that_training_sees(loader, limit, quiet_trainer):
    model = Seen(4, 3, preprocessing="standardize")
    trainer = quiet_trainer(**{"max_epochs": 1, **limit})
    trainer.fit(model, LOADERS[loader]())
    x = torch.cat([x for x, _ in model.seen])
    y = torch.cat([y for _, y in model.seen])
    torch.testing.assert_close(model.preprocessing.mean, x.mean(0))
    assert torch.equal(model.class_counts, torch.bincount(y, minlength=3))


def test_the_pass_draws_no_random_number(quiet_trainer):
    weights = []
    for preprocessing in ("none", "standardize"):
        torch.manual_seed(3)
        model = Seen(4, 3, preprocessing=preprocessing)
        torch.manual_seed(4)
        quiet_trainer(max_epochs=2).fit(model, LOADERS["DataLoader"]())
        weights.append(torch.cat([y for _, y in model.seen]))
    assert torch.equal(*weights)


def test_a_generator_would_be_used_up(quiet_trainer):
    batches = (batch for batch in LOADERS["BatchLoader"]())
    with pytest.raises(InputError, match="can be iterated again, got one of a generator"):
        quiet_trainer().fit(made(), batches)


def test_sigterm_ends_the_pass(quiet_trainer):
    class Told(Endless):
        def __iter__(self):
            for count, row in enumerate(super().__iter__()):
                if count == 50:
                    trainer._signal_connector.received_sigterm = True
                yield row

    trainer = quiet_trainer(max_time="00:00:01:00")
    with pytest.raises(SystemExit):
        trainer.fit(made(), DataLoader(Told(), batch_size=8))


# A second fit -------------------------------------------------------------------------------


def loader_of(x, y):
    return DataLoader(TensorDataset(x, y), batch_size=8)


def test_a_second_fit_fits_statistics_and_class_counts_anew(quiet_trainer):
    model = SoftmaxRegression(4, 2, preprocessing="standardize", class_weight="balanced")
    x, y = TRAIN.x, (torch.arange(40) % 10 == 0).long()
    quiet_trainer().fit(model, loader_of(x, y))
    torch.testing.assert_close(model.class_weights_for(x), torch.tensor([40 / 72, 5.0]))
    second = 3 * x[:30] + 7
    quiet_trainer().fit(model, loader_of(second, torch.arange(30) % 2))
    torch.testing.assert_close(model.class_weights_for(x), torch.ones(2))
    torch.testing.assert_close(model.preprocessing.mean, second.mean(0))


def test_folds_over_one_model_end_as_folds_over_new_ones(quiet_trainer):
    one = made(optimizer=ExactSolver).double()
    for fold in range(3):
        keep = torch.arange(40) % 3 != fold
        folds = loader_of(TRAIN.x[keep].double(), TRAIN.y[keep])
        new = made(optimizer=ExactSolver).double()
        for model in (one, new):
            quiet_trainer(max_epochs=100, precision="64-true").fit(model, folds)
            assert model.solver.status.name == "CONVERGED"
        torch.testing.assert_close(one(TRAIN.x), new(TRAIN.x), atol=1e-3, rtol=0)


def test_statistics_of_other_data_leave_the_predictions_as_they_are():
    model = made().double()
    model.fit_statistics([(TRAIN.x, TRAIN.y)])
    before = model(TEST.x.double())
    model.fit_statistics([(5 * VAL.x - 100, VAL.y)])
    torch.testing.assert_close(model(TEST.x.double()), before, rtol=1e-5, atol=1e-6)
    # The same statistics again change no bit.
    weight = model.linear.weight.clone()
    model.fit_statistics([(5 * VAL.x - 100, VAL.y)])
    assert torch.equal(model.linear.weight, weight)


# Metrics as users write them ----------------------------------------------------------------


def test_metrics_get_their_prefix_whatever_form_they_have(quiet_trainer):
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassF1Score

    def f1():
        return MulticlassF1Score(3)

    forms = {
        "collection": lambda stage: MetricCollection({"f1": f1()}),
        "prefixed": lambda stage: MetricCollection({"f1": f1()}, prefix=f"{stage}/"),
        "named": lambda stage: MetricCollection({f"{stage}/f1": f1()}),
        "dict": lambda stage: {"f1": f1()},
        "single": lambda stage: f1(),
    }
    for form, configure in forms.items():
        kind = type(
            "Own", (SoftmaxRegression,), {"configure_metrics": lambda self, s, c=configure: c(s)}
        )
        trainer = quiet_trainer()
        trainer.fit(made(kind), Data())
        name = "multiclass_f1_score" if form == "single" else "f1"
        assert set(trainer.callback_metrics) == {f"train/{name}", f"val/{name}"}, form


def test_other_answers_of_configure_metrics_are_refused():
    kind = type("Own", (SoftmaxRegression,), {"configure_metrics": lambda self, stage: None})
    with pytest.raises(InputError, match="a dict of metrics or one metric, got NoneType"):
        made(kind)


def test_a_row_without_an_answer_is_predicted_as_none_of_the_classes():
    model = made()
    x = TEST.x[:4].clone()
    x[1, 2] = float("nan")
    x[2, 0] = float("inf")
    label, probs = model.predict_step((x, TEST.y[:4]), 0)
    assert (label == -1).tolist() == [False, True, True, False]
    assert probs.isnan().any(1).tolist() == [False, True, True, False]


def test_hooks_of_export_need_a_live_model_and_say_so(tmp_path):
    with pytest.raises(InputError, match=r"name the part with head='…'"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "x.onnx")


def test_a_model_in_front_of_another_keeps_its_own_statistics(quiet_trainer):
    class Stacked(SoftmaxRegression):
        """Softmax regression on the log-probabilities of another."""

        def __init__(self, backbone):
            super().__init__(3, 3, preprocessing="standardize")
            self.backbone = backbone.requires_grad_(False)

        def features(self, x):
            return self.backbone(x)

    backbone = made()
    quiet_trainer(max_epochs=2).fit(backbone, Data())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    stacked = Stacked(backbone)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(stacked, Data())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    torch.testing.assert_close(stacked.preprocessing.mean, backbone(TRAIN.x).mean(0))
    assert {"train/nll", "val/nll"} <= trainer.callback_metrics.keys()
    assert not any("backbone" in name for name in trainer.callback_metrics)
    trainer.test(stacked, Data(), verbose=False)
    assert stacked.confusion_matrix.sum() == len(TEST)


# One step beside ----------------------------------------------------------------------------


def test_a_stream_of_one_pass_is_refused_and_one_that_begins_anew_is_not(quiet_trainer):
    class Stream(torch.utils.data.IterableDataset):
        def __init__(self):
            self.rows = iter([*zip(TRAIN.x, TRAIN.y, strict=True)])

        def __iter__(self):
            return self.rows

    with pytest.raises(InputError, match="got one of a Stream that cannot"):
        quiet_trainer().fit(made(), DataLoader(Stream(), batch_size=8))
    quiet_trainer(max_steps=2).fit(made(), LOADERS["stream"]())


class Rowed(SoftmaxRegression):
    """Remembers its rows."""

    def training_step(self, batch, batch_idx):
        self.rows = [*getattr(self, "rows", []), batch[0]]
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("preprocessing", ["none", "standardize"])
def test_workers_that_stay_serve_every_epoch(preprocessing, quiet_trainer):
    model = Rowed(4, 3, preprocessing=preprocessing)
    data = TensorDataset(TRAIN.x, TRAIN.y)
    loader = DataLoader(data, batch_size=8, num_workers=1, persistent_workers=True)
    quiet_trainer(max_epochs=2).fit(model, loader)
    torch.testing.assert_close(torch.cat(model.rows), TRAIN.x.repeat(2, 1))


def test_a_loader_s_own_generator_is_left_where_it_was(quiet_trainer):
    rows = []
    for preprocessing in ("none", "standardize"):
        model = Rowed(4, 3, preprocessing=preprocessing)
        loader = DataLoader(
            TensorDataset(TRAIN.x, TRAIN.y),
            batch_size=8,
            shuffle=True,
            generator=torch.Generator().manual_seed(7),
        )
        quiet_trainer(limit_train_batches=2).fit(model, loader)
        rows.append(torch.cat(model.rows))
    assert torch.equal(*rows)
    torch.testing.assert_close(model.preprocessing.mean, rows[1].mean(0))


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
def test_averages_of_weights_leave_statistics_as_they_are(quiet_trainer):
    from lightning.pytorch.callbacks import EMAWeightAveraging

    model = made()
    averaging = EMAWeightAveraging(decay=0.9)
    quiet_trainer(max_epochs=20, callbacks=[averaging]).fit(model, Data())
    torch.testing.assert_close(model.preprocessing.mean, TRAIN.x.mean(0), rtol=1e-7, atol=0)
    assert torch.equal(model.class_counts, torch.bincount(TRAIN.y, minlength=3))


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 2, "accumulate": {0: 2}},
        {"max_steps": 20, "optimizer": ExactSolver, "max_epochs": -1},
    ],
    ids=["schedule", "exact"],
)
def test_where_a_step_is_not_so_many_batches_all_rows_count(options, quiet_trainer):
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    accumulate, optimizer = options.pop("accumulate", None), options.pop("optimizer", None)
    callbacks = [] if accumulate is None else [GradientAccumulationScheduler(accumulate)]
    model = made(**({} if optimizer is None else {"optimizer": optimizer}))
    quiet_trainer(callbacks=callbacks, **options).fit(model, BatchLoader(TRAIN, batch_size=4))
    torch.testing.assert_close(model.preprocessing.mean, TRAIN.x.mean(0))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_tuner_s_own_checkpoint_brings_no_statistics_back(quiet_trainer, tmp_path):
    from lightning.pytorch.callbacks import LearningRateFinder

    model = made()
    quiet_trainer().fit(model, Data())
    second = 10 * TRAIN.x + 1000
    finder = LearningRateFinder(num_training_steps=5)
    quiet_trainer(callbacks=[finder], default_root_dir=tmp_path).fit(
        model, loader_of(second, TRAIN.y)
    )
    torch.testing.assert_close(model.preprocessing.mean, second.mean(0))


def test_the_exact_solver_needs_the_last_batch_of_an_epoch_and_each_batch_once(quiet_trainer):
    class Skips(SoftmaxRegression):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    class Halves(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            for half in zip(*(part.split(5) for part in batch), strict=True):
                super().training_step(half, batch_idx)

    with pytest.raises(InputError, match="whose last batch never came"):
        quiet_trainer(max_epochs=5).fit(made(Skips, optimizer=ExactSolver), Data())
    with pytest.raises(InputError, match=r"one super\(\).training_step\(…\) a batch"):
        quiet_trainer(max_epochs=5).fit(made(Halves, optimizer=ExactSolver), Data())


class Host(LightningModule):
    def __init__(self, **kwargs):
        super().__init__()
        self.head = made(**kwargs)
        self.head.fit_statistics([(TRAIN.x, TRAIN.y)])

    def training_step(self, batch, batch_idx):
        return self.head.objective(*batch)

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=5, lr=0.1)


@pytest.mark.parametrize("kind", [Counted, Host])
def test_a_closure_s_trial_points_are_not_counted_in_steps_of_one_s_own(kind, quiet_trainer):
    def lbfgs(params):
        return torch.optim.LBFGS(params, max_iter=5, lr=0.1)

    model = made(kind, optimizer=lbfgs) if kind is Counted else Host()
    head = model if kind is Counted else model.head
    head.fit_statistics([(TRAIN.x, TRAIN.y)])
    expected = torch.nn.functional.nll_loss(head(TRAIN.x), TRAIN.y).detach()
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, DataLoader(TensorDataset(TRAIN.x, TRAIN.y), batch_size=len(TRAIN)))
    name = "train/nll" if kind is Counted else "head/train/nll"
    torch.testing.assert_close(trainer.callback_metrics[name], expected)


def test_two_parts_of_one_batch_both_count(quiet_trainer):
    class Halves(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            (x, y), half = batch, len(batch[0]) // 2
            return self.objective(x[:half], y[:half]) + self.objective(x[half:], y[half:])

    model, counted = made(Halves), []
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1)
    original = model.tallies["train"].compute

    def compute():
        model.tallies["train"].flush()
        counted.append(int(model.tallies["train"].metrics["nll"].count))
        return original()

    model.tallies["train"].compute = compute
    trainer.fit(model, Data())
    assert counted == [16]


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_the_objective_may_be_logged_in_a_validation_step(class_weight, quiet_trainer):
    class Own(SoftmaxRegression):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.objective(*batch))

    model = Own(4, 3, preprocessing="standardize", class_weight=class_weight, l2=1e-3)
    trainer = quiet_trainer(num_sanity_val_steps=2)
    trainer.fit(model, Data())
    assert {"val_loss", "val/nll"} <= trainer.callback_metrics.keys()


@pytest.mark.parametrize("form", ["nested", "dict"])
def test_batches_of_another_form_are_fitted_on_where_the_user_does_it(form, quiet_trainer):
    class Own(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            rows, digits = (batch, batch) if form == "dict" else batch
            return self.objective(rows["rows"], digits["digits"])

    class Told(Own):
        def on_fit_start(self):
            self.fit_statistics([(TRAIN.x, TRAIN.y)])

    pairs = zip(TRAIN.x, TRAIN.y, strict=True)
    nested = [({"rows": x}, {"digits": y}) for x, y in pairs]
    rows = [x | y for x, y in nested] if form == "dict" else nested
    loader = DataLoader(rows, batch_size=8)
    with pytest.raises(
        InputError, match=r"call fit_statistics\(batches\) yourself in on_fit_start"
    ):
        quiet_trainer().fit(made(Own), loader)
    told = made(Told)
    quiet_trainer().fit(told, loader)
    torch.testing.assert_close(told.preprocessing.mean, TRAIN.x.mean(0))


def test_mixed_names_of_metrics_get_one_prefix_each(quiet_trainer):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

    class Own(SoftmaxRegression):
        def configure_metrics(self, stage):
            return {f"{stage}/acc": MulticlassAccuracy(3), "f1": MulticlassF1Score(3)}

    trainer = quiet_trainer()
    trainer.fit(made(Own), Data())
    logged = {f"{stage}/{name}" for stage in ("train", "val") for name in ("acc", "f1")}
    assert set(trainer.callback_metrics) == logged


def test_class_weights_as_scikit_learn_gives_them():
    from sklearn.utils.class_weight import compute_class_weight

    y = TRAIN.y.numpy()
    weights = compute_class_weight("balanced", classes=np.unique(y), y=y)
    assert SoftmaxRegression(4, 3, class_weight=weights).class_weight == weights.tolist()


def test_no_batches_leave_no_statistics():
    model = made()
    with pytest.raises(InputError, match="got batches without any"):
        model.fit_statistics(iter([]))
