"""A model that is a part of somebody's module, its host, as one model that can be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smx_export.artifact.check import first_line
from smx_export.graph.arrays import as_rows, inputs_of, parts_of_data, tensors_of
from smx_export.graph.detached import copied, off_graph, shape_of, uncompiled
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.errors.inputs import FLOAT, checked, in_tuples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from smx_export.graph.arrays import Data

WRAPPED = "._orig_mod"  # of a part that torch.compile has wrapped
BLOCK = 1024  # rows at a time
FAR = 1e4  # deviations: where answers are clipped or replaced, if anywhere


def composed(
    host: nn.Module,
    head: str,
    input_shape: Sequence[int] | None = None,
    data: Data | None = None,
) -> SoftmaxRegression:
    """Host and head as one SoftmaxRegression, whose ``features`` are what the host feeds its head.

    Args:
        host: A module whose ``forward`` ends with ``return self.head(…)``; it is not changed.
        head: Name of the part, as in ``named_modules()``.
        input_shape: Shape of one input of the host; that of its ``example_input_array`` by default.
            That example may hold integers, or be a dict that ``forward`` takes by name.
        data: Inputs, or (inputs, labels), to compare the two on besides generated ones.

    Returns:
        A detached copy in eval mode, for :func:`smx_export.export_onnx` and ``check_parity``.

    Raises:
        InputError: Where the part is no SoftmaxRegression, the shape is not known or not that of
            the host's inputs, or ``forward`` answers something else than the head does.
    """
    named = host.named_modules(remove_duplicate=False)
    parts = {name.removesuffix(WRAPPED): uncompiled(part) for name, part in named if name}
    if not isinstance(parts.get(head), SoftmaxRegression):
        found = [name for name, part in parts.items() if isinstance(part, SoftmaxRegression)]
        raise InputError(
            f"expected the name of a SoftmaxRegression in {type(host).__name__}, got {head!r}; "
            f"there are: {', '.join(found) or 'none'}"
        )
    shape, dtype = _inputs(host, input_shape)
    whole, body = _detached(host), _detached(host)
    inner = body.get_submodule(head)
    for part in [*body.modules()]:  # a host may know it by more than one name
        for name, child in part.named_children():
            if child is inner:
                setattr(part, name, nn.Identity())
    model = _joined(body, inner, f"{type(host).__qualname__}.{head}", type(host).__module__)
    model.input_shape, model.input_dtype = shape, dtype
    model.schema = model.feature_names = None  # of what the host makes, not of what it is given
    given, *_ = parts_of_data(data)
    if dtype != FLOAT:
        probes, own = _examples(host), None if given is None else as_rows(given, model)
    else:
        probes, own = _probes(shape), inputs_of(data, shape)
    rows = 0 if own is None else len(own)
    blocks = (tensors_of(own[i : i + BLOCK]) for i in range(0, rows, BLOCK))  # type: ignore[index]
    for x in (*probes, *blocks):
        _check_same(whole, model, head, x)
    return model


def _inputs(host: nn.Module, given: Any) -> tuple[Any, Any]:
    """Shape and dtype of the host's inputs, as a SoftmaxRegression tells them.

    Integers, and several inputs, are known by an example alone.
    """
    example: Any = getattr(host, "example_input_array", None)
    several = isinstance(example, Mapping)
    if given is None and not isinstance(example, (Tensor, Mapping)):
        raise InputError(
            f"expected the shape of one input of {type(host).__name__}, got none; give it with "
            "input_shape=(…), or set example_input_array"
        )
    parts = dict(example) if several else {"": example}
    if not all(isinstance(part, Tensor) for part in parts.values()):
        return shape_of(given), FLOAT
    known = {name: FLOAT if x.is_floating_point() else x.dtype for name, x in parts.items()}
    if not several:
        shape = shape_of(parts[""].shape[1:] if given is None else given)
        return shape, checked(shape, known[""], None)[1]
    shape, dtype, _ = checked(
        {name: tuple(x.shape[1:]) for name, x in parts.items()} if given is None else given,
        known,
        None,
    )
    return in_tuples(shape), dtype


def _examples(host: nn.Module) -> Iterator[Any]:
    """The host's own example, a row of it alone, and its rows in turn.

    What other integers it takes is not known.
    """
    example: Any = host.example_input_array

    def of_rows(at: list[int] | slice) -> Any:
        if isinstance(example, Mapping):
            return {name: part[at] for name, part in example.items()}
        return example[at]

    count = len(next(iter(example.values())) if isinstance(example, Mapping) else example)
    yield from (of_rows(slice(None)), of_rows(slice(1)), of_rows([*range(count)][::-1] * 2))


def _detached(host: nn.Module) -> nn.Module:
    """A float32 copy in eval mode on the CPU, which leaves the trainer behind."""
    memo = off_graph(host)
    for part in host.modules():
        memo |= {id(getattr(part, name, None)): None for name in ("_trainer", "_fabric")}
    return copied(host, memo).cpu().float().eval()


def _joined(body: nn.Module, head: Any, name: str, module: str) -> SoftmaxRegression:
    """``head`` with ``body`` in front of its own features."""
    kind: type[SoftmaxRegression] = type(head)
    features = kind.features
    own = "body"
    while hasattr(head, own):  # of a subclass with a part of that name
        own = f"host_{own}"

    def behind_body(self: Any, *x: Tensor, **named: Tensor) -> Tensor:
        return features(self, getattr(self, own)(*x, **named))

    head.__class__ = type(
        name, (kind,), {"features": behind_body, "__module__": module, "__qualname__": name}
    )
    head.add_module(own, body)
    joined: SoftmaxRegression = head
    return joined


def _probes(shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Inputs in 0..1, around 0, far away, and a row alone."""
    generator = torch.Generator().manual_seed(0)
    yield torch.rand(2, *shape, generator=generator)
    around = torch.randn(8, *shape, generator=generator)
    yield from (around, around[:1], FAR * around)


@torch.no_grad()
def _check_same(whole: nn.Module, model: SoftmaxRegression, head: str, x: Any) -> None:
    """Complain where the host's answer is not the very tensor that its head returned."""
    host, calls = type(whole).__name__, []
    hook = whole.get_submodule(head).register_forward_hook(
        lambda _, __, answer: calls.append((answer, answer.clone()))
    )
    try:
        expected = whole(**x) if isinstance(x, Mapping) else whole(x)
    except Exception as error:  # of whatever the host is made of
        raise InputError(
            f"expected {host} to answer inputs of shape {_shapes(x)}, got "
            f"{type(error).__name__}: {first_line(error)}; give the shape of one input with "
            "input_shape=(…), and let forward take any finite numbers"
        ) from error
    finally:
        hook.remove()
    if not isinstance(expected, torch.Tensor):
        got = type(expected).__name__
    elif len(calls) == 1 and expected is calls[0][0] and _equal(*calls[0]):
        got = "" if _answers_alike(model, x, expected) else "another answer without it"
    else:
        got = f"something else of shape {tuple(expected.shape)}"
        got += f", and {len(calls)} calls of it" * (len(calls) != 1)
    if got:
        raise InputError(
            f"expected {host}.forward to answer with the log-probabilities of {head!r}, got {got}; "
            f"let forward end with return self.{head}(…)"
        )


def _shapes(x: Any) -> str:
    if isinstance(x, Mapping):
        return ", ".join(f"{name} {tuple(part.shape)}" for name, part in x.items())
    return str(tuple(x.shape))


def _answers_alike(model: SoftmaxRegression, x: Any, expected: Tensor) -> bool:
    try:
        return torch.allclose(model(x), expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    except Exception:  # of what came instead of features
        return False


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit: what is written over the answer is another one."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
