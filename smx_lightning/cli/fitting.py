"""``fit`` with the optimiser that suits the model, and the settings that suit the optimiser.

What the arguments tell becomes a default of the parser, so that a printed configuration is what
runs; the rest is settled once the model exists. What the user gives counts, in a file or on the
command line, and so does the optimiser of a checkpoint that is resumed.
"""

from __future__ import annotations

import pkgutil
from typing import Any, cast

import torch
from jsonargparse import Namespace, dict_to_namespace
from lightning.pytorch import Trainer

from smx_lightning.activations import SOFTMAX, Activation, activation_of
from smx_lightning.checkpoint.describing import ACTIVATION, describe
from smx_lightning.checkpoint.matching import has_features
from smx_lightning.checkpoint.optimizers import OPTIMIZER, SCHEDULE, parameters_of, path_of
from smx_lightning.cli.checkpoint import FOUND_BY_TRAINER, CheckpointCLI
from smx_lightning.cli.choice import (
    EXACT,
    MINI_BATCHES,
    heeds,
    is_exact,
    is_not_plain,
    optimizer_of,
    solves,
    trains_exactly,
    trains_otherwise,
)
from smx_lightning.cli.described import OURS, has_rows, require_made
from smx_lightning.cli.parser import Parser
from smx_lightning.errors import InputError
from smx_lightning.metrics import loss_name
from smx_lightning.module import SoftmaxRegression
from smx_lightning.optim import ExactSolver

MODEL = "smx_lightning.SoftmaxRegression"
MODEL_DEFAULTS: dict[str, Any] = {"preprocessing": "standardize", "l2": 1e-3}
DATA = "smx_lightning.data.DigitsDataModule"
OF_MODEL, BATCH_SIZE = f"model.init_args.{OPTIMIZER}", "data.init_args.batch_size"
# Rows of a batch. A batch costs Lightning a millisecond, whatever it holds.
LARGE, USUAL_BATCH = 65536, 256
ENTRIES = 2**24  # of a batch, features or logits: 64 MB of float32
LEAST_OBJECTIVE = {"checkpoint.monitor": "train/objective"}
COUNT_BATCHES = (  # what they mean depends on the size of a batch
    "trainer.limit_train_batches",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
    "trainer.overfit_batches",
    "trainer.val_check_interval",
)


class FitCLI(CheckpointCLI):
    """The exact solver trains a plain model unless the user names an optimiser or a schedule."""

    passed: Any = None  # the optimiser that the model was constructed with

    # From the arguments ----------------------------------------------------------------------

    def choose_defaults(self) -> None:
        """Make the exact solver and what suits it the defaults, where that is already known."""
        self._leave_data_to_others()
        kind = self._kind() if self.typed.get("subcommand") == "fit" else None
        if kind is None:
            return
        parser, named = cast("Parser", self._subcommand_parsers["fit"]), self._named()
        resumed = self.typed.get("fit.ckpt_path") not in (None, *FOUND_BY_TRAINER)
        activation = self._activation(kind)
        parser.set_defaults(least_loss(loss_name(activation)))
        plain = kind is SoftmaxRegression and not resumed and solves(activation)
        exact = is_exact(named) if named else plain
        if exact:
            parser.set_defaults(suited())
            usual = kind.features is SoftmaxRegression.features and self._is_data_ours()
            if usual and self._may_enlarge():
                data = {"class_path": DATA, "init_args": {"batch_size": LARGE}}
                parser.set_defaults({"data": data})
        elif named is None and (resumed or trains_otherwise(kind) is None):
            unsettled = (OF_MODEL, BATCH_SIZE, *suited())
            parser.unsettled = tuple(key for key in unsettled if not self._is_given(key))
        parser.set_defaults({"model": self._default_model(kind, exact=exact)})

    def _default_model(self, kind: type[SoftmaxRegression], *, exact: bool) -> dict[str, Any]:
        """The defaults of a class: where only another one's are known, these go before its own."""
        usual = {**MODEL_DEFAULTS}
        if exact:
            usual[OPTIMIZER] = {"class_path": path_of(ExactSolver)}
        takes = parameters_of(kind, leave_out=())
        return {
            "class_path": self._class_path(),
            "init_args": {name: value for name, value in usual.items() if name in takes},
        }

    def _class_path(self) -> str:
        return str(self.typed.get("fit.model.class_path") or MODEL)

    def _kind(self) -> type[SoftmaxRegression] | None:
        """The model's class; ``None`` where there is none, of which the parser complains."""
        kind = _imported(self._class_path())
        return kind if kind is not None and issubclass(kind, SoftmaxRegression) else None

    def _is_data_ours(self) -> bool:
        """Whether the data module is of this library's kind, as the default is."""
        kind = _imported(self._data_path())
        return kind is not None and issubclass(kind, OURS)

    def _data_path(self) -> str:
        return str(self.typed.get(f"{self.typed.get('subcommand')}.data.class_path") or DATA)

    def _leave_data_to_others(self) -> None:
        """A data module of another kind has its own defaults, not those of ours."""
        if not self._is_data_ours() and self.typed.subcommand in self._subcommand_parsers:
            parser = self._subcommand_parsers[self.typed.subcommand]
            parser.set_defaults({"data": {"class_path": self._data_path()}})

    def _named(self) -> dict[str, Any] | None:
        """What the user names that decides: an optimiser, or else a schedule."""
        given = (self.typed.get(f"fit.model.init_args.{what}") for what in (OPTIMIZER, SCHEDULE))
        return next((named.as_dict() for named in given if isinstance(named, Namespace)), None)

    def _activation(self, kind: type[SoftmaxRegression]) -> Activation:
        """The activation that the user names, or else the class; softmax where that is unknown."""
        declared = parameters_of(kind, leave_out=()).get(ACTIVATION)
        usual = SOFTMAX.spec if declared is None else declared.default
        given = self.typed.get(f"fit.model.init_args.{ACTIVATION}", usual)
        try:
            return activation_of(given.as_dict() if isinstance(given, Namespace) else given)
        except InputError:  # the model's constructor will say so
            return SOFTMAX

    def _is_given(self, key: str) -> bool:
        return f"{self.typed.subcommand}.{key}" in self.typed

    def _may_enlarge(self) -> bool:
        """Whether the size of a batch is nobody's but ours."""
        counted = any(self.typed.get(f"fit.{key}") for key in COUNT_BATCHES)  # not null, not 0
        return not counted and not self._is_given(BATCH_SIZE)

    # From the model --------------------------------------------------------------------------

    def _model(
        self, kind: type[SoftmaxRegression], /, *args: Any, **kwargs: Any
    ) -> SoftmaxRegression:
        self.passed = kwargs.get(OPTIMIZER)
        return require_made(super()._model(kind, *args, **kwargs))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Settle the optimiser, and what suits it, before the Trainer is made."""
        held_out = "val" if has_rows(self.datamodule, "val") else "train"
        self._suit(least_loss(self.model._smx_metrics.loss, held_out))
        if self.subcommand == "fit":
            cast("Parser", self._subcommand_parsers["fit"]).unsettled = ()
            why = self._settle()
            self.choice = f"{optimizer_of(self.model)}, {why}"
            if trains_exactly(self.model):
                self._suit(suited())
                self._enlarge()
        elif trains_exactly(self.model):  # or Lightning warns that this was another callback's
            self._suit(LEAST_OBJECTIVE)
        return super().instantiate_trainer(**kwargs)

    def _settle(self) -> str:
        """Take the exact solver where nothing speaks against it; why it is this optimiser."""
        if self.checkpoint is not None and OPTIMIZER not in self.given:
            return "as in the checkpoint"
        given = self._is_given(OF_MODEL)
        if given and heeds(self.model, self.passed):
            return f"as given; {MINI_BATCHES if trains_exactly(self.model) else EXACT}"
        if self._named() is not None and not given:
            return f"for the {SCHEDULE} that is given; for the exact optimum leave it out"
        why = is_not_plain(self.model, self.passed)
        if why is not None:
            return why
        if not trains_exactly(self.model):
            self.model._optimizer = ExactSolver
            describe(self.model)
            self.config.fit[OF_MODEL] = dict_to_namespace(self.model.hparams[OPTIMIZER])
        return f"to the exact optimum; {MINI_BATCHES}"

    def _suit(self, settings: dict[str, Any]) -> None:
        """What suits the exact solver, where the user has not given it."""
        made = self.config_init[self.subcommand]
        for key, value in settings.items():
            if not self._is_given(key):
                section, name = key.split(".")
                self.config[self.subcommand][key] = value
                setattr(made[section], name, value)  # arguments of the Trainer, or the callback

    def _enlarge(self) -> None:
        """Make the batches as large as suits the exact solver, where nobody else chooses."""
        chosen = self.config.fit
        ours = isinstance(self.datamodule, OURS)  # of others nobody knows the cost
        if ours and BATCH_SIZE in chosen and self._may_enlarge() and not has_features(self.model):
            widest = max(self.datamodule.num_features, self.datamodule.num_classes)
            chosen[BATCH_SIZE] = large_batch(widest)
            self.datamodule.batch_size = chosen[BATCH_SIZE]


def large_batch(widest: int) -> int:
    """How many rows suit the exact solver, of so many features or classes."""
    return min(LARGE, max(USUAL_BATCH, ENTRIES // widest))


def _imported(name: str) -> type | None:
    """A class by its full name; ``None`` where there is none."""
    try:
        kind = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return kind if isinstance(kind, type) else None


def least_loss(name: str, rows: str = "val") -> dict[str, Any]:
    """The best epoch is the one of the least loss, of this name among metrics, on these rows."""
    return {"checkpoint.monitor": f"{rows}/{name}"}


def suited() -> dict[str, Any]:
    """Settings that suit the exact solver, by their keys.

    It stops by itself, on the objective, and needs float64, which Apple's GPUs have not.
    """
    usual = {"trainer.max_epochs": 1000, **LEAST_OBJECTIVE}
    return usual | ({"trainer.accelerator": "cpu"} if torch.backends.mps.is_available() else {})
