"""A copy of a live model that a trainer, an autograd graph and other processes are left out of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchmetrics import Metric

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.errors.inputs import Range, checked, in_tuples
from smx_lightning.processes.sharding import is_sharded, whole_smx

if TYPE_CHECKING:
    from collections.abc import Sequence


def detached_copy(
    model: SoftmaxRegression,
    input_shape: Sequence[int] | None = None,
    input_range: Range | None = None,
) -> SoftmaxRegression:
    """The model as it is exported: a detached copy in eval mode, float32, on the CPU.

    Where its classes are spread over processes, each of them must call this.
    """
    # The copy leaves the trainer behind, and with it data and loggers; and what counts metrics,
    # which would take longer to copy than all the rest.
    memo: dict[int, Any] = {id(model._trainer): None, id(model._fabric): None}
    memo |= {id(model._smx_metrics): None, id(model.tallies): {}}
    memo |= off_graph(model)
    if is_sharded(model.smx):
        memo |= {id(model.device_mesh): None, id(model.smx): whole_smx(model.smx)}
        memo |= {id(m.process_group): None for m in model.modules() if isinstance(m, Metric)}
    detached = copy.deepcopy(model, memo)
    if input_shape is not None:
        detached.input_shape = _other_shape(detached, input_shape)
    if input_range is not None:
        told = (model.input_shape, model.input_dtype, input_range)
        wanted = in_tuples(checked(*told)[2])
        if detached.input_range not in (None, wanted):
            raise InputError(
                f"expected the input range that the model knows, {detached.input_range}, got "
                f"{input_range if isinstance(input_range, dict) else tuple(input_range)}; "
                "leave it out"
            )
        detached.input_range = wanted
    exported = detached.cpu().float().eval()
    for name, parameter in exported.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"expected finite weights, got NaN or infinity in {name}; train the model again, "
                "with a lower learning rate or standardised features"
            )
    return exported.requires_grad_(False)


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` was given, of what it made; any other as it is."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def _other_shape(model: SoftmaxRegression, given: Any) -> Any:
    """Another shape of a model's inputs; of several that of each."""
    if not isinstance(model.input_shape, Mapping):
        return shape_of(given)
    if not isinstance(given, Mapping) or given.keys() != model.input_shape.keys():
        raise InputError(
            f"expected input_shape as a dict of the inputs {', '.join(model.input_shape)}, got "
            f"{given!r}; leave it out, or give the shape of each"
        )
    return in_tuples(checked(given, model.input_dtype, None)[0])


def shape_of(given: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input, if it is one."""
    try:
        shape = tuple(int(size) for size in given)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"expected input_shape as the lengths of one input, such as (3, 32, 32), got {given!r}"
            "; put a single one in brackets, (64,)"
        )
    return shape


def off_graph(module: nn.Module) -> dict[int, Any]:
    """A memo for ``deepcopy`` with the tensors that steps stored on the module, detached.

    deepcopy refuses tensors of an autograd graph, which steps keep in lists and dictionaries, too.
    """
    memo: dict[int, Any] = {}
    todo: list[Any] = [vars(part) for part in module.modules()]
    seen = set(map(id, todo))
    while todo:
        kept = todo.pop()
        for value in kept.values() if isinstance(kept, dict) else kept:
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
            elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
                seen.add(id(value))
                todo.append(value)
    return memo
