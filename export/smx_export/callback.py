"""Export the best checkpoint at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from smx_export.convert import Export, export_copy, refuse_untrained
from smx_export.graph.detached import detached_copy
from smx_export.parity.user_data import Targets
from smx_export.profile import PORTABLE, Profile, Width
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import softmax_regression, target_file
from smx_lightning.checkpoint.content import is_url
from smx_lightning.checkpoint.matching import by_names_of
from smx_lightning.checkpoint.reading import read_checkpoint
from smx_lightning.errors.checks import class_indices
from smx_lightning.errors.text import printable
from smx_lightning.processes.files import check_writable
from smx_lightning.processes.sharding import is_sharded
from smx_lightning.training.batches import parts_of
from smx_lightning.training.first_epoch import fetched

Rows = tuple[Tensor | dict[str, Tensor], Tensor, Tensor | None]
MOST_DATA_ROWS = 4096  # of the validation data: enough to see, quick to compare


class Stamp(NamedTuple):
    """A file, and by what another one in its place is known: when it was written, for one."""

    path: str
    written: str


class OnnxExport(Callback):
    """Write the best checkpoint as a verified ONNX file when ``fit`` ends, on rank zero.

    Where this fit, or the one that it resumes, has left no checkpoint, the weights are exported as
    training left them. The file is compared on validation rows too. The verdict is said as
    Lightning says such things. A failed check raises :class:`smx_export.ParityError`.

    Args:
        path: Where the file goes; ``model.onnx`` in the run's log folder by default.
        profile: Where the file will run: ``portable``, ``robust``, ``compact``, ``image``, or
            several with commas; see :class:`smx_export.Profile`. What ``compact`` costs is
            measured on the validation rows.
        outputs: Some of ``log_probs``, ``probs``, ``scores`` and ``label``; the first two by
            default.
        weights: ``int8`` or ``float16``, of profile ``compact``.
        max_accuracy_loss: What ``compact`` may cost, as a fraction of the validation rows.
        max_nll_increase: Likewise, in nats a row.
        batch: The one number of rows that the file takes, see :class:`smx_export.Profile`.
        top_k: How many of the most probable classes the file names, likewise.

    Attributes:
        export: The path and the report of the last export, or ``None``.
    """

    brought_back: ClassVar[tuple[str, ...]] = ("export",)  # see smx_lightning.processes.spawned

    def __init__(
        self,
        path: str | None = None,
        profile: str = PORTABLE,
        outputs: list[str] | None = None,
        weights: Width = "int8",
        max_accuracy_loss: float = Profile.max_accuracy_loss,
        max_nll_increase: float = Profile.max_nll_increase,
        batch: int | None = None,
        top_k: int | None = None,
    ) -> None:
        self.path = path
        self.profile = Profile.of(
            profile,
            outputs=outputs,
            weights=weights,
            max_accuracy_loss=max_accuracy_loss,
            max_nll_increase=max_nll_increase,
            batch=batch,
            top_k=top_k,
        )
        self.export: Export | None = None
        self._earlier: Stamp | None = None  # the best checkpoint of another fit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that cannot be exported, before it is trained."""
        softmax_regression(self, pl_module)
        self._earlier = _stamp(_best(trainer))

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Know the best checkpoint of the run that this fit goes on from for this run's own."""
        states = checkpoint.get("callbacks", {}).values()
        known = {state.get("best_model_path") for state in states if isinstance(state, dict)}
        if self._earlier is not None and self._earlier.path in known:
            self._earlier = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model that no file can be before it is trained; see :func:`refuse_untrained`.

        Likewise a path that cannot be written, and rounded weights whose cost no row measures.
        """
        live = softmax_regression(self, pl_module)
        if getattr(trainer, "fast_dev_run", False):
            return
        if self.profile.weights is not None and not trainer.enable_validation:
            raise InputError(
                f"expected labelled data to judge what {self.profile.weights} weights cost, got no "
                "validation; give fit a validation loader, or choose another profile"
            )
        if self.path is not None and trainer.is_global_zero:
            check_writable(target_file(trainer, self.path, "model.onnx"))
        if not is_sharded(live.smx):
            with torch.random.fork_rng(devices=[]):
                refuse_untrained(live, self.profile)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export; see the class."""
        live = softmax_regression(self, pl_module)
        path = target_file(trainer, self.path, "model.onnx")
        sharded = is_sharded(live.smx)
        if getattr(trainer, "fast_dev_run", False) or not (trainer.is_global_zero or sharded):
            return
        model, training = detached_copy(live), live.training_summary()
        if not trainer.is_global_zero:  # its classes are in the copy
            return
        best = self._best_of_this_fit(trainer)
        if best:
            checkpoint = read_checkpoint(best)
            state = by_names_of(model, checkpoint.state_dict)
            model.load_state_dict(state, strict=live.strict_loading)
            training = checkpoint.training
        with torch.random.fork_rng(devices=[]):  # what follows fit draws as it would without
            rows = _validation_rows(trainer, live)
            needed = self.profile.weights is not None  # to measure what rounding costs
            data: Any = rows if needed else _sound(rows, model)
            self.export = export_copy(model, path, training, data, self.profile)
        rank_zero_info(printable(f"{self.export.path}: {self.export.report.verdict}"))

    def _best_of_this_fit(self, trainer: Trainer) -> str:
        """The best checkpoint's path, empty where this fit has left none."""
        best = _best(trainer)
        if not best:
            return ""
        stamp = _stamp(best)
        if stamp is None:
            said = f"found no best checkpoint at {best}, as it was removed"
        elif stamp == self._earlier:
            said = f"the best checkpoint {best} is of an earlier fit, and this one has left none"
        else:
            return best
        rank_zero_warn(
            f"{type(self).__name__} exports the weights as training left them: {said}; give each "
            "fit a ModelCheckpoint of its own, and keep its files until fit ends"
        )
        return ""


def _best(trainer: Trainer) -> str:
    return str(getattr(trainer.checkpoint_callback, "best_model_path", "") or "")


def _stamp(path: str) -> Stamp | None:
    """A file as it is now; ``None`` where there is none."""
    try:
        if is_url(path):  # of a ModelCheckpoint whose folder lies elsewhere
            files = get_filesystem(path)
            files.invalidate_cache()
            return Stamp(path, repr(files.info(path)))
        return Stamp(path, str(Path(path).stat().st_mtime_ns)) if path else None
    except OSError:
        return None


def _sound(rows: Rows | None, model: SoftmaxRegression) -> Any:
    """Without targets that only a step of its own understands."""
    if rows is None:
        return None
    x, y, weight = rows
    count = len(next(iter(x.values())) if isinstance(x, dict) else x)
    try:
        Targets.of(y, weight, model, count)
    except InputError:
        return x, None
    return rows


def _validation_rows(trainer: Trainer, model: SoftmaxRegression) -> Rows | None:
    """The first rows of the first validation loader, as the model sees them on this rank.

    ``None`` where there are none, or where the model unpacks no tensors x and y; x may be a dict of
    them.
    """
    loaders, limits = trainer.val_dataloaders, trainer.num_val_batches
    if isinstance(loaders, (list, tuple)):
        loaders = loaders[0] if loaders else None
    if loaders is None or not limits:
        return None
    parts: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
    weighted = False
    stage = trainer.state.stage
    trainer.validating = True  # which hooks may ask for
    try:
        for number, batch in enumerate(loaders):
            if number >= limits[0] or sum(len(y) for _, y, _ in parts) >= MOST_DATA_ROWS:
                break
            x, y, weight = _unpacked(model, fetched(trainer, batch))
            named = x if isinstance(x, dict) else {"": x}
            if {*map(type, (*named.values(), y))} != {Tensor}:
                return None
            weighted |= weight is not None
            ones = torch.ones(len(y)) if weight is None else torch.as_tensor(weight)
            cpu = {name: part.cpu() for name, part in named.items()}
            parts.append((cpu, class_indices(y).cpu(), ones.cpu().double()))
    finally:
        trainer.state.stage = stage
    if not parts:
        return None
    xs, ys, weights = zip(*parts, strict=True)
    rows = {name: torch.cat([x[name] for x in xs])[:MOST_DATA_ROWS] for name in xs[0]}
    given = rows if isinstance(x, dict) else rows[""]
    weight = torch.cat(weights)[:MOST_DATA_ROWS] if weighted else None
    return given, torch.cat(ys)[:MOST_DATA_ROWS], weight


def _unpacked(model: SoftmaxRegression, batch: Any) -> tuple[Any, Any, Any]:
    try:
        return parts_of(model, batch)
    except InputError:  # a step of its own reads them otherwise
        return None, None, None
