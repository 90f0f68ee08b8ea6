"""A model that is a part of somebody's module, its host, as one model that can be shipped."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from smx_lightning import InputError, SoftmaxRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def composed(
    host: nn.Module, head: str, input_shape: Sequence[int] | None = None
) -> SoftmaxRegression:
    """Host and head as one SoftmaxRegression, whose ``features`` are what the host feeds its head.

    Args:
        host: A module whose ``forward`` ends with ``return self.head(…)``; it is not changed.
        head: Name of the part, as in ``named_modules()``.
        input_shape: Shape of one input of the host; that of its ``example_input_array`` by default.

    Returns:
        A detached copy in eval mode, for :func:`smx_export.export_onnx` and ``check_parity``.

    Raises:
        InputError: Where the part is no SoftmaxRegression, the shape is not known, or ``forward``
            answers something else than the head does.
    """
    parts = {name: part for name, part in host.named_modules() if name}
    if not isinstance(parts.get(head), SoftmaxRegression):
        found = [name for name, part in parts.items() if isinstance(part, SoftmaxRegression)]
        raise InputError(
            f"expected the name of a SoftmaxRegression in {type(host).__name__}, got {head!r}; "
            f"there are: {', '.join(found) or 'none'}"
        )
    example = getattr(host, "example_input_array", None)
    if input_shape is None and not isinstance(example, torch.Tensor):
        raise InputError(
            f"expected the shape of one input of {type(host).__name__}, got none; give it with "
            "input_shape=(…), or set example_input_array"
        )
    shape = tuple(input_shape if input_shape is not None else example.shape[1:])  # type: ignore[union-attr]
    whole = _detached(host)
    body = _detached(host)
    path, _, name = head.rpartition(".")
    inner = body.get_submodule(head)
    setattr(body.get_submodule(path), name, nn.Identity())
    model = _joined(body, inner, f"{type(host).__qualname__}.{head}", type(host).__module__)
    model.input_shape = shape
    _check_same(whole, model, type(host).__name__, head)
    return model


def _detached(host: nn.Module) -> nn.Module:
    """A float32 copy in eval mode on the CPU, which leaves the trainer behind."""
    memo: dict[int, Any] = {}
    for part in host.modules():
        memo |= {id(getattr(part, name, None)): None for name in ("_trainer", "_fabric")}
    return copy.deepcopy(host, memo).cpu().float().eval()


def _joined(body: nn.Module, head: Any, name: str, module: str) -> SoftmaxRegression:
    """``head`` with ``body`` in front of its own features."""
    kind: type[SoftmaxRegression] = type(head)
    features = kind.features

    def behind_body(self: Any, x: Tensor) -> Tensor:
        return features(self, self.body(x))

    head.__class__ = type(
        name, (kind,), {"features": behind_body, "__module__": module, "__qualname__": name}
    )
    head.add_module("body", body)
    joined: SoftmaxRegression = head
    return joined


@torch.no_grad()
def _check_same(whole: nn.Module, model: SoftmaxRegression, host: str, head: str) -> None:
    x = torch.rand(2, *model.input_shape, generator=torch.Generator().manual_seed(0))
    expected = whole(x)
    remedy = f"let forward end with return self.{head}(…)"
    if not isinstance(expected, torch.Tensor):
        raise InputError(
            f"expected {host}.forward to answer with the log-probabilities of {head!r}, got "
            f"{type(expected).__name__}; {remedy}"
        )
    try:
        same = torch.allclose(model(x), expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    except (
        AttributeError,
        RuntimeError,
        InputError,
        TypeError,
    ):  # of what came instead of features
        same = False
    if not same:
        raise InputError(
            f"expected {host}.forward to answer with the log-probabilities of {head!r}, got "
            f"something else of shape {tuple(expected.shape)}; {remedy}"
        )
