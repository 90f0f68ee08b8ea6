"""A copy of a live model that a trainer, an autograd graph and other processes are left out of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn
from torchmetrics import Metric

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.errors.inputs import Range, checked, in_tuples
from smx_lightning.processes.sharding import is_sharded, whole_smx

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = TypeVar("Kind", bound=nn.Module)
COMPILED = "_torchdynamo_orig_callable"  # of a function that torch.compile made: what it was given


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
    detached = copied(model, memo)
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


def uncompiled(given: Any) -> Any:
    """What ``torch.compile`` was given, of what it made; anything else as it is.

    Of a module's own ``forward`` that is the module.
    """
    inner = getattr(given, "_orig_mod", None) or getattr(given, COMPILED, None)
    if inner is not None:
        return uncompiled(inner)
    owner = getattr(given, "__self__", None)
    return owner if isinstance(owner, nn.Module) and given.__name__ == "forward" else given


def copied(module: Kind, memo: dict[int, Any]) -> Kind:
    """A deep copy in which nothing is compiled: what was compiled belongs to the original.

    Args:
        module: It is not changed.
        memo: Of ``deepcopy``: by its id, what takes the place of an object.
    """
    for part in module.modules():  # a LightningModule keeps it where others forget it
        memo |= {id(part.__dict__.get("_compiled_call_impl")): None}
    found = copy.deepcopy(module, memo)
    for part in module.modules():
        for name, value in vars(part).items():
            if (inner := getattr(value, COMPILED, None)) is not None:
                _put_back(memo.get(id(part)), name, copy.deepcopy(inner, memo))
    for part in [*found.modules()]:
        for name, child in part.named_children():
            if child is not uncompiled(child):
                setattr(part, name, uncompiled(child))
    return found


def _put_back(part: nn.Module | None, name: str, inner: Any) -> None:
    """An attribute in place of a compiled one; what the class has anyway is left to it."""
    if part is None:  # something else has taken its place
        return
    if getattr(inner, "__func__", None) is getattr(type(part), name, ...):
        del vars(part)[name]
    else:
        vars(part)[name] = inner


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
