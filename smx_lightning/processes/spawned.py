"""What models and callbacks have found in processes that Lightning started, for their caller.

With ``ddp_spawn``, ``ddp_fork`` and ``ddp_notebook`` a Trainer trains copies in processes of their
own, and its launcher brings back weights, metrics and the path of the best checkpoint. Here the
rest follows, by the two methods that Lightning has for it: attributes that are named in
``brought_back``, and the Trainer's progress. No hook of ours runs in the caller's process, so the
launcher's class is extended, for every Trainer.
"""

from __future__ import annotations

import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from smx_lightning.errors import InputError

KEY = "smx_lightning"  # in what the launcher sends, where the file is
BROUGHT_BACK = "brought_back"  # of a class: names of attributes
WITH_STATE = (ModelCheckpoint, EarlyStopping)  # Lightning's, whose users look at it
LOGGERS: dict[type, tuple[str, ...]] = {  # with another number they log elsewhere
    CSVLogger: ("_version", "_experiment"),  # a new one removes what was logged
    TensorBoardLogger: ("_version",),
}
REFUSED = f"{InputError.__module__}.{InputError.__qualname__}: "  # as tracebacks begin the sentence


def holders(trainer: Trainer) -> Iterator[tuple[Any, Any]]:
    """What has something to bring back, each with its place in a Trainer."""
    for name, module in trainer.lightning_module.named_modules():
        if hasattr(type(module), BROUGHT_BACK):
            yield name, module
    of_kind: Counter[str] = Counter()
    for other in (*trainer.callbacks, *trainer.loggers):  # type: ignore[attr-defined]
        kind = f"{type(other).__module__}.{type(other).__qualname__}"
        if _names(other) or isinstance(other, WITH_STATE):
            yield (kind, of_kind[kind]), other
        of_kind[kind] += 1


def written(trainer: Trainer) -> str:
    """Write what was found into a file; parts of the module are named in it, and not copied.

    A file, as Lightning's for the weights: a pipe that nobody reads yet holds no more than 64 KiB.
    """
    found = {place: _found(holder) for place, holder in holders(trainer)}
    path = Path(tempfile.mkdtemp()) / "found"
    with path.open("wb") as file:
        _Pickler(file, trainer.lightning_module).dump((found, _progress(trainer)))
    return str(path)


def has_ours(trainer: Trainer) -> bool:
    """Whether a model of ours is trained; all other trainings are Lightning's alone."""
    return any(hasattr(type(m), BROUGHT_BACK) for m in trainer.lightning_module.modules())


def restore(trainer: Trainer, path: str) -> None:
    """Inverse of :func:`written`, in the process that started the others; removes the file."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            found, progress = _Unpickler(stream, trainer.lightning_module).load()
    finally:
        file.unlink()
        file.parent.rmdir()
    trainer.lightning_module.trainer = trainer  # as after training in this process
    for place, holder in holders(trainer):
        if place in found:
            _take(holder, found[place])
    if trainer.state.fn == TrainerFn.FITTING:
        for loop, values in zip(_loops(trainer), progress, strict=True):
            vars(loop).update(values)


def _names(holder: Any) -> tuple[str, ...]:
    """The attributes that are brought back."""
    own: tuple[str, ...] = getattr(type(holder), BROUGHT_BACK, ())
    return own or LOGGERS.get(type(holder), ())


def _found(holder: Any) -> dict[str, Any]:
    if isinstance(holder, WITH_STATE):
        return holder.state_dict()
    return {name: getattr(holder, name) for name in _names(holder)}


def _take(holder: Any, found: dict[str, Any]) -> None:
    if not isinstance(holder, WITH_STATE):
        for name, value in found.items():
            setattr(holder, name, value)
        return
    if "dirpath" in found:  # Lightning forgets the best score where it was another one
        holder.dirpath = found["dirpath"]  # type: ignore[union-attr]
    holder.load_state_dict(found)


def _loops(trainer: Trainer) -> list[Any]:
    fit = trainer.fit_loop
    epoch = fit.epoch_loop
    return [fit, epoch, epoch.automatic_optimization, epoch.manual_optimization]


def _progress(trainer: Trainer) -> list[dict[str, Any]]:
    """Of each loop, how many epochs, batches and steps it has done."""
    return [{n: v for n, v in vars(loop).items() if _counts(n)} for loop in _loops(trainer)]


def _counts(name: str) -> bool:
    return name.endswith("_progress") or name == "_batches_that_stepped"


def _parts(module: LightningModule) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """Modules, parameters and buffers, by names that are theirs in every process."""
    yield from ((f"module {name}", part) for name, part in module.named_modules())
    yield from ((f"tensor {name}", part) for name, part in module.named_parameters())
    yield from ((f"tensor {name}", part) for name, part in module.named_buffers())


class _Pickler(pickle.Pickler):
    """Names parts of a module, and takes tensors to the CPU: their caller may have no other."""

    def __init__(self, file: Any, module: LightningModule) -> None:
        super().__init__(file)
        self._names = {id(part): name for name, part in _parts(module)}

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor) and obj.device.type != "cpu":
            return obj.detach().cpu().__reduce_ex__(4)  # type: ignore[no-untyped-call]
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, module: LightningModule) -> None:
        super().__init__(file)
        self._parts = dict(_parts(module))

    def persistent_load(self, pid: str) -> Any:
        return self._parts[pid]


def extend_launcher() -> None:
    """Let Lightning's launcher bring back what ours have found, and refuse in one sentence."""
    kind = _MultiProcessingLauncher
    if hasattr(kind.launch, "__wrapped__"):
        return
    collect, recover, launch = kind.get_extra_results, kind.update_main_process_results, kind.launch

    @wraps(collect)
    def collected(self: Any, trainer: Trainer) -> dict[str, Any]:
        told: dict[str, Any] = collect(self, trainer)
        return {**told, KEY: written(trainer)} if has_ours(trainer) else told

    @wraps(recover)
    def recovered(self: Any, trainer: Trainer, extra: dict[str, Any]) -> None:
        recover(self, trainer, extra)
        if KEY in extra:
            restore(trainer, extra[KEY])

    @wraps(launch)
    def launched(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return launch(self, function, *args, **kwargs)
        except ProcessRaisedException as error:
            said = str(error).rstrip().rpartition("\n")[2]
            if said.startswith(REFUSED):
                raise InputError(said.removeprefix(REFUSED)) from error
            raise

    kind.get_extra_results = collected  # type: ignore[method-assign]
    kind.update_main_process_results = recovered  # type: ignore[method-assign]
    kind.launch = launched  # type: ignore[method-assign]
