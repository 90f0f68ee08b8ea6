"""Callbacks that write confusion matrices and predictions as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from smx_lightning.errors import InputError
from smx_lightning.errors.text import csv_text
from smx_lightning.module import Prediction, SoftmaxRegression
from smx_lightning.processes.files import file_path, written_whole
from smx_lightning.processes.predictions import predictions_csv
from smx_lightning.tables.cells import cells
from smx_lightning.tables.encoding import listed


class ConfusionCsv(Callback):
    """Write the confusion matrix of a test as a CSV file: a row a label, a column a prediction.

    Sums of weights are written to the 15 digits that float64 is sure of, whole ones as integers.
    Names that a spreadsheet would take for formulas are quoted, see
    :func:`smx_lightning.errors.text.csv_text`.

    Args:
        path: The file; ``confusion_matrix.csv`` in the run's log folder by default.

    Attributes:
        written: The file of the last test, or ``None``.
    """

    brought_back: ClassVar[tuple[str, ...]] = ("written",)  # see smx_lightning.processes.spawned

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.written: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that has no confusion matrix, before it is tested."""
        softmax_regression(self, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the counts, where there are any, on rank zero."""
        model = softmax_regression(self, pl_module)
        target = target_file(trainer, self.path, "confusion_matrix.csv")
        if not trainer.is_global_zero or model.confusion_matrix is None:
            return
        header = ["label", *(f"predicted {name}" for name in model.class_names)]
        counts = [[*map(_written, row)] for row in model.confusion_matrix.tolist()]
        rows = [[csv_text(name), *row] for name, row in zip(model.class_names, counts, strict=True)]
        self.written = _write_csv(target, [header, *rows])


_Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # places, labels and probs of some rows


class PredictionsInOrder(BasePredictionWriter):
    """Collect on rank zero what all processes predict, a row a row of the input and in its order.

    ``trainer.predict`` answers on each process with that process's rows. The rows of several
    loaders follow one another.

    Attributes:
        prediction: label (n,) and probs (n, classes) of the last prediction, on the CPU; ``None``
            before it, and on other ranks.
    """

    brought_back: ClassVar[tuple[str, ...]] = ("prediction",)

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")
        self.prediction: Prediction | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that answers otherwise, before it predicts."""
        super().setup(trainer, pl_module, stage=stage)
        softmax_regression(self, pl_module)

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Bring the rows together, and into order."""
        answers = [predictions] if len(batch_indices) == 1 else predictions
        parts: list[Any] = [[*map(self._rows, answers, batch_indices)]]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size if trainer.is_global_zero else None
            torch.distributed.gather_object(parts[0], gathered)
            if gathered is None:
                return
            parts = gathered
        found = [_in_order([*filter(None, shares)]) for shares in zip(*parts, strict=True)]
        if not any(found):
            raise InputError(
                f"{type(self).__name__} expected rows to predict, got none; check the loader"
            )
        labels, probs = (torch.cat(part) for part in zip(*filter(None, found), strict=True))
        self.prediction = Prediction(labels, probs)

    def _rows(self, answers: Sequence[Any], indices: Sequence[Any]) -> _Rows | None:
        """What this process has answered to one loader's rows; ``None`` where it had none."""
        if len(indices) != len(answers):
            raise InputError(
                f"{type(self).__name__} expected the places of all rows, got those of "
                f"{len(indices)} batches of {len(answers)}; take a DataLoader with a batch_size or "
                "a batch_sampler"
            )
        wrong = next((a for a in answers if not (isinstance(a, tuple) and len(a) == 2)), None)
        if wrong is not None:
            raise InputError(
                f"{type(self).__name__} expected predict_step to answer with a Prediction, label "
                f"and probs, got {type(wrong).__name__}; answer so, or take the callback out"
            )
        if not answers:
            return None
        labels, probs = (torch.cat(part).cpu() for part in zip(*answers, strict=True))
        rows = [torch.as_tensor(places, dtype=torch.int64) for places in indices]  # also of none
        return torch.cat(rows), labels, probs


def _in_order(shares: Sequence[_Rows]) -> Prediction | None:
    """All processes' answers to one loader's rows, in the order of these."""
    if not shares:
        return None
    rows, labels, probs = (torch.cat(part) for part in zip(*shares, strict=True))
    # Where processes share the classes of one model, each of them has seen each row.
    order = torch.full((int(rows.max()) + 1,), -1).index_copy_(0, rows, torch.arange(len(rows)))
    return Prediction(labels[order], probs[order])


class PredictionsCsv(PredictionsInOrder):
    """Write what ``predict`` answers as a CSV file: row, class name, one probability a class.

    The class of a row that has no answer, whose label is -1, is empty. Of a table the columns that
    its data module's ``identifiers()`` tells stand behind the row, as ``smx-export predict`` has
    them.

    Args:
        path: The file; ``predictions.csv`` in the run's log folder by default.
        keep: Names of the table's own columns that are written; all of them by default.

    Attributes:
        written: The file of the last prediction, or ``None``.
    """

    brought_back: ClassVar[tuple[str, ...]] = ("prediction", "written")

    def __init__(self, path: str | None = None, keep: list[str] | None = None) -> None:
        super().__init__()
        self.path, self.keep = path, keep
        self.written: Path | None = None

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write all rows in order, on rank zero."""
        super().write_on_epoch_end(trainer, pl_module, predictions, batch_indices)
        target = target_file(trainer, self.path, "predictions.csv")
        if self.prediction is None:
            return
        names = softmax_regression(self, pl_module).class_names
        labels, probs = self.prediction
        own = _own_columns(trainer, len(labels), self.keep)
        kept = None if own is None else [*own]
        with predictions_csv(target, names, kept=kept) as write:
            write(labels.tolist(), probs.tolist(), own=[*(own or {}).values()])
        self.written = target


def _own_columns(
    trainer: Trainer, rows: int, keep: Sequence[str] | None
) -> dict[str, list[str]] | None:
    """Cells of the first rows of a table's own columns, by name; ``None`` where it is no table.

    Raises:
        InputError: For a name that no column has, for fewer rows than were predicted, and for what
            no cell can hold.
    """
    identifiers = getattr(trainer.datamodule, "identifiers", None)  # type: ignore[attr-defined]
    if identifiers is None:
        return None
    table = identifiers()
    missing = [name for name in keep or () if name not in table.column_names]
    if missing or table.num_rows < rows:
        wanted = f"the columns {listed(missing)}" if missing else f"{rows} rows"
        got = listed(table.column_names) if missing else f"{table.num_rows}"
        raise InputError(
            f"PredictionsCsv expected {wanted} in the table to write beside the answers, got "
            f"{got or 'none'}; choose others with keep="
        )
    names = table.column_names if keep is None else keep
    return {name: cells(name, table.column(name).slice(0, rows)) for name in names}


def softmax_regression(callback: Callback, module: LightningModule) -> SoftmaxRegression:
    """The module, if it is one that ``callback`` can work with.

    Raises:
        InputError: Where it is another kind of module.
    """
    if not isinstance(module, SoftmaxRegression):
        raise InputError(
            f"{type(callback).__name__} expected a SoftmaxRegression or a subclass, got "
            f"{type(module).__name__}; take the callback out for other modules"
        )
    return module


def target_file(trainer: Trainer, path: str | None, name: str) -> Path:
    """Where a callback writes: ``path``, or ``name`` in the run's log folder, which is made.

    All processes must ask, whichever of them writes: they agree on the log folder.

    Raises:
        InputError: Where the folder cannot be made.
    """
    target = file_path(path or run_folder(trainer) / name)
    if trainer.is_global_zero:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected a folder for {target}, got: {error.strerror or error}; choose another "
                "path"
            ) from error
    return target


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run: that in which ModelCheckpoint makes ``checkpoints``.

    Lightning's ``log_dir`` of loggers that keep no files of their own is that of all their runs.
    """
    logger = trainer.logger
    if logger is None or isinstance(logger, (CSVLogger, TensorBoardLogger)):
        return Path(trainer.log_dir or trainer.default_root_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    parent = logger.save_dir or trainer.default_root_dir
    return Path(trainer.strategy.broadcast(str(Path(parent, str(logger.name), version))))


def _written(count: float) -> str:
    return str(int(count)) if count % 1 == 0 else f"{count:.15g}"


def _write_csv(target: Path, rows: list[list[Any]]) -> Path:
    with written_whole(target) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return target
