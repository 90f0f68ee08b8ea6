"""``smx-lightning fit`` and its other subcommands: LightningCLI with links and defaults.

Number of features, number of classes, class names and input shape flow from the data to the model.
``fit`` finds the exact optimum of a plain model, unless an optimiser is named, and goes on to test
the best checkpoint and to export it.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import warnings
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import SIGTERMException

from smx_lightning import DISTRIBUTION, __version__
from smx_lightning.activations import SOFTMAX
from smx_lightning.callbacks import ConfusionCsv, PredictionsCsv
from smx_lightning.cli.bar import OneLineBar
from smx_lightning.cli.coefficients import CoefficientsCLI, TableTrainer
from smx_lightning.cli.described import has_rows
from smx_lightning.cli.fitting import DATA, MODEL, MODEL_DEFAULTS, least_loss
from smx_lightning.cli.folders import SaveConfig, claim_folders, give_up_empty
from smx_lightning.cli.help import EPILOG, SUBCOMMANDS
from smx_lightning.cli.outcome import Course, Outcome, course, outcome
from smx_lightning.cli.parser import Parser
from smx_lightning.errors.faults import BAD_INPUT, Fault, causes, fault_of
from smx_lightning.errors.text import lines, one_line, printable
from smx_lightning.metrics import loss_name
from smx_lightning.module import SoftmaxRegression

DONE, PARITY_FAILED, STOPPED_SHORT = 0, 1, 3
UNFIT_WEIGHTS = "Error(s) in loading state_dict"  # as torch says that a checkpoint has others
EXPORTER = "smx_export"  # named, not imported: training knows nothing of ONNX


class SmxCLI(CoefficientsCLI):
    """The command line; its constructor runs the subcommand.

    Attributes:
        exit_code: What the process should end with.
    """

    exit_code = DONE

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link data to model, add checkpointing, export and prediction files."""
        self.link_model_to_data(parser)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(importlib.import_module(EXPORTER).OnnxExport, "onnx")
        parser.add_lightning_class_args(ConfusionCsv, "confusion")
        parser.add_lightning_class_args(PredictionsCsv, "predictions")
        parser.set_defaults(
            {
                "model": {"class_path": MODEL, "init_args": MODEL_DEFAULTS},
                "data": {"class_path": DATA},
                **least_loss(loss_name(SOFTMAX)),
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
            }
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, and the run's folder."""
        self.claimed = claim_folders(trainer := super().instantiate_trainer(**kwargs))
        return trainer

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Add the progress bar, where the user has neither another one nor none."""
        given = config.get("callbacks") or []
        bars = [
            c for c in (given if isinstance(given, list) else [given]) if isinstance(c, ProgressBar)
        ]
        if config.get("enable_progress_bar") is not False and not config["barebones"] and not bars:
            callbacks = [*callbacks, OneLineBar()]
        return super()._instantiate_trainer(
            config, [*callbacks, Course(f"train/{self.model._smx_metrics.loss}")]
        )

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; where it fails, its folder goes, if there is nothing in it."""
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            give_up_empty(self.claimed)
            raise

    def before_fit(self) -> None:
        """Say which optimiser trains."""
        if self.trainer.is_global_zero:
            print(printable(f"{'optimizer':20} {self.choice}"))

    def after_fit(self) -> None:
        """Test the best checkpoint and say what was made.

        Raises:
            SIGTERMException: Where the process was told to end once training was over.
        """
        told = self.trainer.received_sigterm  # which the test would forget
        if self.trainer.strategy.reduce_boolean_decision(told, all=False):
            raise SIGTERMException
        if self.config_init.fit.trainer.fast_dev_run or not self.trainer.state.finished:
            return
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        stage = next((stage for stage in ("test", "val") if has_rows(self.datamodule, stage)), "")
        if stage:
            measure = self.trainer.test if stage == "test" else self.trainer.validate
            measure(
                self.model,
                datamodule=self.datamodule,
                ckpt_path=best or None,
                verbose=False,
                weights_only=True,
            )
        ended = outcome(self.model, self.trainer)
        loss = self.model._smx_metrics.loss
        guessing = math.log(self.model.num_classes) if loss == loss_name(SOFTMAX) else math.inf
        losses = self._callback(Course).losses
        went = course(losses, f"train/{loss}", guessing, self.trainer.max_epochs)
        tested = getattr(self.datamodule, "tested", True)
        self._summary(stage or "train", best, ended, went, tested=tested)
        if ended is not None and not ended.reached:
            self.exit_code = STOPPED_SHORT
            if self.trainer.is_global_zero:
                print(f"smx-lightning: the exact solver {ended.line}", file=sys.stderr)

    def after_validate(self) -> None:
        """Say what was measured."""
        self._summary("val")

    def after_test(self) -> None:
        """Say what was measured."""
        self._summary("test")

    def after_predict(self) -> None:
        """Say where the predictions are."""
        if self.trainer.is_global_zero:
            print(printable(f"predictions  {self._callback(PredictionsCsv).written}"))

    def validate(self, **kwargs: Any) -> None:
        """Validate without Lightning's own table: the summary has it."""
        self.trainer.validate(**{**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """Test without Lightning's own table: the summary has it."""
        self.trainer.test(**{**kwargs, "verbose": False})

    def _callback(self, kind: type) -> Any:
        return next(c for c in self.trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]

    def _summary(
        self,
        stage: str,
        checkpoint: str = "",
        ended: Outcome | None = None,
        went: str | None = None,
        *,
        tested: bool = True,
    ) -> None:
        if not self.trainer.is_global_zero:
            return
        measured = self.trainer.callback_metrics
        rows = {
            name.replace("/", " ").replace("_", " "): f"{float(measured[name]):.4f}"
            for name in sorted(measured)
            if name.startswith(f"{stage}/")
        }
        if not tested:
            rows["test"] = "none, as no rows were held out for it: test_fraction is 0"
        confusion = self._callback(ConfusionCsv).written
        if confusion is not None:
            rows["confusion matrix"] = os.path.relpath(confusion)
        if ended is not None:
            rows["solver"] = ended.line
        elif went is not None:
            rows["training"] = went
        if checkpoint:
            rows["checkpoint"] = os.path.relpath(checkpoint)
            export = self._callback(importlib.import_module(EXPORTER).OnnxExport).export
            if export is not None:
                rows["ONNX file"] = os.path.relpath(export.path)
                rows["verdict"] = export.report.verdict
        width = max([20, *map(len, rows)])
        print(lines(f"{label:{width}} {value}" for label, value in rows.items()))


def run(args: list[str]) -> int:
    """Run the command line on arguments; its exit code where nothing ends it before.

    Args:
        args: As :func:`smx_lightning.cli.arguments.completed` leaves them.
    """
    _quieten()
    return SmxCLI(
        SoftmaxRegression,
        LightningDataModule,
        save_config_callback=SaveConfig,
        trainer_class=TableTrainer,
        parser_class=Parser,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        parser_kwargs={
            "prog": DISTRIBUTION,
            "version": __version__,
            "epilog": EPILOG,
            **{
                name: {"epilog": EPILOG, "usage": f"{DISTRIBUTION} {name} [options]"}
                for name in SUBCOMMANDS
            },
        },
        trainer_defaults={
            "max_epochs": 100,
            "enable_model_summary": False,  # the summary at the end says what matters
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "."}},
        },
        args=args,
    ).exit_code


def fault(end: BaseException) -> Fault:
    """What ended a run: :func:`smx_lightning.errors.faults.fault_of`, and what is known here."""
    exporter = importlib.import_module(EXPORTER)
    for cause in causes(end):
        if isinstance(cause, exporter.ParityError):
            return Fault(PARITY_FAILED, str(cause))
        if isinstance(cause, RuntimeError) and str(cause).startswith(UNFIT_WEIGHTS):
            return Fault(BAD_INPUT, one_line(cause))
    return fault_of(end, (MisconfigurationException, exporter.FileError))


def _quieten() -> None:
    """Hide what libraries say about themselves; what concerns the user's run stays."""
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # slices need no workers
    warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")  # the data module's choice
    warnings.filterwarnings("ignore", ".*The dirpath has changed.*")  # a run has its own folder
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")  # epochs are logged
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
