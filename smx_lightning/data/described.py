"""Training data in a few words, by which data sets are told apart.

Nothing of a data set's own code runs: arrays are found among its attributes, and a few of their
rows are hashed. So no random number is drawn and no iterator moves; of data that computes its rows
only class and length are known.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, Subset

from smx_lightning.data.streams.rows import StreamedRows

WHOLE = 2**22  # bytes that are hashed whole; of more, as many or ROWS rows at most
ROWS = 256
COUNTED = 1000  # classes whose rows are counted

# What experiments call these, also those that began when the classes lay there.
CALLED = {
    "smx_lightning.data.sharing.EpochOrder": "smx_lightning.data.loading.EpochOrder",
    "smx_lightning.data.sharing.InOrder": "smx_lightning.data.loading._InOrder",
}

Column = Tensor | np.ndarray  # (rows, …) in memory


def described(loaders: Any) -> Any:
    """A plain dict of a loader, or a list of them; ``loaders`` is what Lightning takes."""
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.iterables
    return alone([_loader(loader) for loader in tree_leaves(loaders)])


def name_of(kind: Any) -> str:
    """Full name of a class or function; of a script's own the same in every kind of process."""
    module = str(getattr(kind, "__module__", "")).replace("__mp_main__", "__main__")
    name = f"{module}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
    return CALLED.get(name, name)


def array_in_words(value: Any) -> str | None:
    """Kind, dtype, shape and hash of an array or a tensor in memory; ``None`` of anything else."""
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        data = value.tobytes()
    else:
        return None
    dtype = str(value.dtype).removeprefix("torch.")
    hashed = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"of type {type(value).__name__}, {dtype} of shape {tuple(value.shape)}, hash {hashed}"


def identified(value: Any) -> Any:
    """``value`` of None, bool, int, float, str, list, dict; arrays by hash, others by type."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        return identified(value.item())
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, float):  # 1 and 1.0 are one setting
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, Mapping):
        return {str(name): identified(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [identified(entry) for entry in value]
    if isinstance(value, (os.PathLike, torch.dtype, torch.device)):
        return str(value)
    array = array_in_words(value)
    if array is not None:
        return array
    return name_of(value if hasattr(value, "__qualname__") else type(value))


def hash_of(tensors: Mapping[str, Any]) -> str:
    """A hash of named tensors: names, dtypes, shapes and rows, of large ones some rows."""
    columns = {name: _numbers(value) for name, value in sorted(tensors.items())}
    told = {
        name: [str(c.dtype), list(c.shape), _hash_of_rows(c[None] if c.ndim == 0 else c, None)]
        for name, c in columns.items()
        if c is not None
    }
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def alone(items: list[Any]) -> Any:
    """The item of a list that has only one."""
    return items[0] if len(items) == 1 else items


def _loader(loader: Any) -> dict[str, Any]:
    batches = getattr(loader, "batch_sampler", None)
    size = getattr(loader, "batch_size", None) or getattr(batches, "batch_size", None)
    sampler = getattr(loader, "sampler", None)
    known = {
        "loader": name_of(type(loader)),
        "batch_size": size if isinstance(size, int) else None,
        "order": None if sampler is None else name_of(type(sampler)),
        "seed": getattr(sampler, "seed", None),
    }
    return {**known, **_dataset(getattr(loader, "dataset", loader))}


def _dataset(dataset: Any) -> dict[str, Any]:
    if isinstance(dataset, ConcatDataset):
        return {"class": name_of(ConcatDataset), "parts": [_dataset(d) for d in dataset.datasets]}
    chosen: Tensor | None = None
    while isinstance(dataset, Subset):
        indices = torch.as_tensor(dataset.indices, dtype=torch.int64)
        chosen = indices if chosen is None else indices[chosen]
        dataset = dataset.dataset
    known: dict[str, Any] = {"class": name_of(type(dataset))}
    try:
        length = len(dataset)
    except (TypeError, NotImplementedError):  # a stream
        return known
    known["rows"] = length if chosen is None else len(chosen)
    if isinstance(dataset, StreamedRows):
        return {**known, **dataset.identity}
    for name, column in _columns(dataset, length).items():
        with suppress(RuntimeError, IndexError):  # a kind of tensor that cannot be indexed
            known[name] = _column(column, chosen)
    return known


def _columns(dataset: Any, length: int) -> dict[str, Column]:
    """Tensors and arrays among the attributes that have a row a sample."""
    held = dict(getattr(dataset, "__dict__", {}))
    if isinstance(dataset, (Tensor, np.ndarray)):
        held = {"values": dataset}
    for name, value in list(held.items()):  # a TensorDataset's are in a tuple
        if isinstance(value, (list, tuple)) and all(isinstance(v, Column) for v in value):
            held |= {f"{name}.{k}": part for k, part in enumerate(value)}
    found = {name: _numbers(v) for name, v in sorted(held.items()) if _length(v) == length}
    return {name: column for name, column in found.items() if column is not None}


def _length(value: Any) -> int | None:
    if isinstance(value, Column):
        return value.shape[0] if value.ndim else None
    return len(value) if isinstance(value, list) else None


def _numbers(value: Any) -> Column | None:
    """``value`` as a column of numbers in memory, where it is one."""
    if isinstance(value, list) and value and {type(v) for v in value} <= {bool, int, float}:
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "biufc" else None
    strided = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    return value.detach() if strided else None


def _column(column: Column, chosen: Tensor | None) -> dict[str, Any]:
    """Shape and dtype of a row, a hash of some rows, and how many there are of each class."""
    known: dict[str, Any] = {
        "shape": list(column.shape[1:]),
        "dtype": str(column.dtype).removeprefix("torch."),
        "hash of rows": _hash_of_rows(column, chosen),
    }
    if column.ndim == 1 and known["dtype"].lstrip("u").startswith("int"):
        labels = np.asarray(column if isinstance(column, np.ndarray) else column.cpu().numpy())
        labels = labels if chosen is None else labels[chosen.numpy()]
        if len(labels) and labels.min() >= 0 and labels.max() < COUNTED:
            known["counts"] = np.bincount(labels.astype(np.int64)).tolist()
    return known


def _hash_of_rows(column: Column, chosen: Tensor | None) -> str:
    """Of all rows where they are few, else of some that are spread over them evenly."""
    rows = len(column) if chosen is None else len(chosen)
    width = max(math.prod(column.shape[1:]) * column.dtype.itemsize, 1)
    most = rows if rows * width <= WHOLE else min(max(WHOLE // width, 1), ROWS)
    index = torch.arange(most) * max(rows - 1, 0) // max(most - 1, 1)
    index = index if chosen is None else chosen[index]
    if isinstance(column, Tensor):
        sample = column.index_select(0, index.to(column.device)).cpu().contiguous()
        data = sample.reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        data = column[index.numpy()].tobytes()
    return hashlib.blake2b(data, digest_size=8).hexdigest()
