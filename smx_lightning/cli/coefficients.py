"""``smx-lightning coefficients``: the table of a checkpoint's coefficients.

LightningCLI's subcommands are methods of a Trainer, so there is a Trainer with one more. It chooses
the device, and nothing else: nothing is trained and no folder of a run is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from smx_lightning.checkpoint.loading import load_weights
from smx_lightning.cli.fitting import FitCLI
from smx_lightning.coefficients import Errors, Weights, coefficients_of
from smx_lightning.errors.text import printable
from smx_lightning.processes.files import check_writable

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

NAME = "coefficients"


class TableTrainer(Trainer):
    """A Trainer that can write a model's coefficients."""

    def coefficients(
        self,
        model: SoftmaxRegression,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        path: str | None = None,
        reference: str | None = None,
        errors: Errors | None = None,
        weights: Weights = "frequency",
        level: float = 0.95,
    ) -> None:
        """Print the largest coefficients of a trained model, and write all of them as CSV.

        Args:
            model: As its arguments made it.
            datamodule: Of the rows that it was trained on; ``None``: no standard errors.
            ckpt_path: The checkpoint of the trained model.
            path: The CSV file; none where it is left out.
            reference: A class that the others are compared with, in place of the mean of all.
            errors: model, right where the model is, or robust.
            weights: What row weights are: frequency or sampling.
            level: Of the intervals.
        """
        if path is not None:
            check_writable(path)
        assert ckpt_path is not None  # it was asked for when the arguments were parsed
        load_weights(model, ckpt_path)
        table = coefficients_of(
            model.to(self.strategy.root_device),
            datamodule,
            reference=reference,
            errors=errors,
            weights=weights,
            level=level,
        )
        print(table)
        if path is not None:
            print(printable(f"coefficients  {table.to_csv(path)}"))


class CoefficientsCLI(FitCLI):
    """LightningCLI with one more subcommand."""

    trainer: TableTrainer

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Each with the arguments that are no options."""
        return {**FitCLI.subcommands(), NAME: {"model", "datamodule", "path"}}

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == NAME:
            parser.add_argument(
                "path", nargs="?", type=str, help="the table, as CSV; none by default"
            )
            parser.set_defaults({"trainer.logger": False})  # else a run's folder is made
        return parser

    def coefficients(self, **kwargs: Any) -> None:
        """With standard errors where the user names data: the default's mean nothing."""
        section = self.config_init[NAME]
        if self.typed.get(f"{NAME}.data") is None:
            kwargs["datamodule"] = None
        kwargs.pop("weights_only")
        self.trainer.coefficients(**kwargs, path=section.get("path"))
