"""Which experiment a run belongs to: what decides the weights that it ends with.

How long it trains, on how many processes, and where it writes is not part of that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch.nn.modules.batchnorm import _NormBase
from torchmetrics import Metric

from smx_lightning.checkpoint.describing import DATA, RUN, UNSAID, Record
from smx_lightning.data.described import alone, described, hash_of, identified, name_of
from smx_lightning.preprocessing.standardization import Preprocessing

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

# With their type: 1 is one batch, 1.0 all of them.
TRAINER = (
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "limit_train_batches",
    "overfit_batches",
)
NAMED, SHOWN = 3, 60  # differences in a sentence, characters of a value


def fingerprint(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """Plain values that tell one experiment from another.

    Args:
        trainer: Its optimisers are new: nothing has been restored into them.
        model: Attached to it. Every process must call this.
    """
    return {
        "optimizer": alone([_optimizer(o) for o in trainer.optimizers]),
        "schedule": alone([_schedule(config) for config in trainer.lr_scheduler_configs]),
        **settings(trainer, model),
        "data": identified(_data(trainer)),
    }


def settings(trainer: Trainer, model: LightningModule) -> dict[str, Any]:
    """The parts of a fingerprint that are known before data and optimisers are there."""
    # Optimiser, schedule and data are parts of their own, read off what training will use; the
    # range of inputs, which a model learns from its data as it is fitted, decides no weight.
    apart = (*RUN, DATA, "input_range")
    record = getattr(model, "_smx_record", Record())
    hparams = {n: identified(v) for n, v in dict(model.hparams).items() if n[0] != "_"}
    hparams = {**record.identities, **hparams}
    hparams = {n: v for n, v in hparams.items() if n not in apart and UNSAID.get(n) != v}
    given: dict[str, Any] = {name: repr(getattr(trainer, name, None)) for name in TRAINER}
    given["seed_everything"] = os.environ.get("PL_GLOBAL_SEED")
    return {"model": name_of(type(model)), "hparams": hparams, "trainer": given}


def weights(model: LightningModule) -> dict[str, Any]:
    """What a run begins with, as far as the seed does not decide it: a part of a fingerprint.

    Parameters and buffers that training leaves as they are, and those that
    ``load_from_checkpoint`` brought. To be asked for before a checkpoint is restored.

    Args:
        model: On every process the same, none of it sharded yet.
    """
    fixed = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    began: dict[str, str] = {}
    for path, module in model.named_modules():
        record = getattr(module, "_smx_record", None)
        if isinstance(record, Record) and record.began_with is not None:
            began[path] = record.began_with
        if isinstance(module, (Preprocessing, _NormBase, Metric)):  # statistics, of whatever
            continue
        for name, buffer in module.named_buffers(path, recurse=False):
            if name.rpartition(".")[2] != "class_counts":
                fixed[name] = buffer
    told = {"frozen": hash_of(fixed) if fixed else None, "loaded": alone(list(began.values()))}
    found = {name: value for name, value in told.items() if value}
    return {"weights": found} if found else {}


def digest(experiment: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of an experiment, for names of files."""
    return hashlib.blake2b(_canonical(experiment).encode(), digest_size=4).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any], part: str = "") -> str:
    """In which settings two experiments differ, as ``l2 0.001 there, 0.5 here``; or nothing.

    Args:
        there: An experiment; where it is empty nothing is known, and nothing said.
        here: Another one.
        part: Look at this part of them only: ``optimizer``, say.
    """
    if not there:
        return ""
    both = [dict(_flat({k: v for k, v in one.items() if part in ("", k)})) for one in (there, here)]
    names = list(dict.fromkeys([*both[1], *both[0]]))
    found = [
        f"{name} {_shown(both[0].get(name, UNSAID.get(name)))} there, "
        f"{_shown(both[1].get(name, UNSAID.get(name)))} here"
        for name in names
        if _canonical(both[0].get(name)) != _canonical(both[1].get(name))
    ]
    more = len(found) - NAMED
    return "; ".join(found[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _optimizer(optimizer: torch.optim.Optimizer) -> Any:
    """Class and settings; those of the parameters' groups, and simple attributes (a ``tol``)."""
    own = {
        name: value
        for name, value in vars(optimizer).items()
        if not name.startswith("_") and isinstance(value, (bool, int, float, str))
    }
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    several = {"groups": groups} if len(groups) > 1 else groups[0]
    return identified({"class": name_of(type(optimizer)), **own, **several})


def _schedule(config: Any) -> Any:
    state = {"class": name_of(type(config.scheduler)), **config.scheduler.state_dict()}
    return identified({**state, "interval": config.interval, "frequency": config.frequency})


def _data(trainer: Trainer) -> Any:
    """The training data, asked for once more; random generators stay where they were."""
    source = trainer.fit_loop._data_source
    with isolate_rng(include_cuda=False):
        loaders = source.dataloader()
    data = described(loaders)
    if trainer.datamodule is not None and isinstance(data, dict):  # type: ignore[attr-defined]
        return {"module": name_of(type(trainer.datamodule)), **data}  # type: ignore[attr-defined]
    return data


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts under their dotted names; ``hparams`` and ``trainer`` say no more.

    Lists of dicts, such as an optimiser's groups, are numbered.
    """
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        value = dict(enumerate(value))
    if not (isinstance(value, Mapping) and value):
        yield name, value
        return
    for key, entry in value.items():
        inner = str(key) if name in ("", "hparams", "trainer") else f"{name}.{key}"
        yield from _flat(entry, inner)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _shown(value: Any) -> str:
    """Both ends of it, where it is long."""
    text = str(value)
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]}…{text[-half:]}"
