"""Many classes: each process holds some rows of W and b, under Lightning's ModelParallelStrategy.

Of T processes in the ``tensor_parallel`` dimension each holds about K / T classes of W (K, d),
b (K,), their gradients and the optimiser's state, and computes its columns of the log-probabilities
(batch, K) for the same batch. The processes of the ``data_parallel`` dimension see different rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, loss_parallel, parallelize_module
from torchmetrics import Metric

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression


def is_sharded(smx: nn.Module) -> bool:
    """Whether its parameters are spread over processes."""
    return any(isinstance(parameter, DTensor) for parameter in smx.parameters())


def shard(model: SoftmaxRegression) -> None:
    """Spread ``model.smx`` over the processes of its device mesh; all begin as rank zero does.

    Metrics are merged over the data-parallel processes only: the others have seen the same rows.

    Raises:
        InputError: For an activation other than softmax, where other parameters are trained, a
            process would get no class, or checkpoints would become directories.
    """
    mesh = model.device_mesh
    if mesh is None or is_sharded(model.smx):
        return
    if not isinstance(model.smx[1], nn.LogSoftmax):
        raise InputError(
            f"expected activation='softmax' where classes are sharded, got {model.smx[1]}, which "
            "needs all scores of a row in one place; take strategy='ddp'"
        )
    own = {id(parameter) for parameter in model.smx.parameters()}
    others = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in own]
    if others:
        raise InputError(
            "expected no trained parameters besides the linear layer's where classes are sharded, "
            f"got {others[0]}; freeze it with requires_grad_(False), or take strategy='ddp'"
        )
    parts = mesh["tensor_parallel"].size()
    if math.ceil(model.num_classes / parts) * (parts - 1) >= model.num_classes:
        raise InputError(  # torch's loss_parallel would wait for ever
            f"expected at least one class a process, got {model.num_classes} classes in {parts} "
            "equal parts; lower tensor_parallel_size"
        )
    strategy = model.trainer.strategy
    if getattr(strategy, "_save_distributed_checkpoint", False):
        raise InputError(
            "expected checkpoints of one file, got a strategy that writes directories, as it does "
            "by default; take Trainer(strategy=ModelParallelStrategy("
            f"data_parallel_size={mesh['data_parallel'].size()}, tensor_parallel_size={parts}, "
            "save_distributed_checkpoint=False)), or --trainer.strategy ModelParallelStrategy "
            "--trainer.strategy.save_distributed_checkpoint false"
        )
    model.to(strategy.root_device)
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor.detach(), 0)
    parallelize_module(
        model.smx, mesh["tensor_parallel"], {"0": ColwiseParallel(use_local_output=False)}
    )
    if mesh["data_parallel"].size() > 1:
        fully_shard(model.smx, mesh=mesh["data_parallel"])
    for module in model.modules():
        if isinstance(module, Metric):
            module.process_group = data_group(model)


def data_group(model: SoftmaxRegression) -> dist.ProcessGroup | None:
    """The processes that see other rows than this one, and it; ``None``, where these are all."""
    mesh = model.device_mesh
    return None if mesh is None else mesh["data_parallel"].get_group()


@contextmanager
def parallel_loss(active: bool) -> Iterator[None]:
    """Where ``active``: log-softmax, nll_loss and their gradients run on sharded classes.

    Only for :func:`torch.nn.functional.nll_loss`: the gradient of another loss would be wrong.
    """
    if not active:
        yield
        return
    context = loss_parallel()
    context.__enter__()
    try:
        yield
    finally:  # which torch's own leaves out
        context.__exit__(None, None, None)


def whole(tensor: Tensor) -> Tensor:
    """The plain tensor that all processes hold together; itself, where it is plain."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process has; itself, where it is plain."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_smx(smx: nn.Sequential) -> nn.Sequential:
    """A plain copy of a sharded ``smx``, on the CPU; every process must call it."""
    linear = cast("nn.Linear", smx[0])
    empty = nn.Linear(linear.in_features, linear.out_features, device="meta")
    copy = nn.Sequential(empty, nn.LogSoftmax(dim=1))
    state = {name: whole(tensor).cpu() for name, tensor in smx.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    return copy
