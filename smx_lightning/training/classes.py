"""A model with other classes than before: those that stay keep their rows, names and order.

The rows W_k and b_k of a class that goes are dropped; what all others share changes no prediction.
Those of a new class begin at zero, or, where rows of it are at hand, where they alone are best
beside the others (:mod:`smx_lightning.optim.steps.beside`). Training then moves all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smx_lightning.activations import SOFTMAX
from smx_lightning.checkpoint.describing import DATA, LIVE, RUN
from smx_lightning.errors import InputError, checks
from smx_lightning.errors.class_weight import class_weights
from smx_lightning.errors.targets import check_targets, is_soft
from smx_lightning.optim.steps.beside import row_beside
from smx_lightning.training.evaluating import evaluating
from smx_lightning.training.rows import labelled

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Model = TypeVar("Model", bound="SoftmaxRegression")
MOST_ENTRIES = 2**24  # of the rows that new classes begin with: 128 MB in float64
OF_CLASSES = ("smx.0.", "class_counts")  # whose sizes are those of the classes


def places(before: Sequence[Any], after: Sequence[Any]) -> list[int | None]:
    """Where each class was; ``None`` of a new one."""
    known = {name: k for k, name in enumerate(before)}
    return [known.get(name) for name in after]


def moved(rows: Tensor, where: Sequence[int | None]) -> Tensor:
    """Rows (classes, …) of the classes in their new places; zero for new ones."""
    answer = rows.new_zeros(len(where), *rows.shape[1:])
    for k, place in enumerate(where):
        if place is not None:
            answer[k] = rows[place]
    return answer


def begun(
    weight: Tensor,
    bias: Tensor,
    new: Sequence[int],
    x: Tensor,
    y: Tensor,
    weights: Tensor | None,
    *,
    l2: float,
    intercept: bool = True,
) -> None:
    """Begin new classes' rows in place, each where it is best beside those that were there before.

    Args:
        weight: (classes, features) float64.
        bias: (classes,) float64.
        new: Which classes these are.
        x: (rows, features), as the linear layer sees them.
        y: (rows,) labels or (rows, classes) distributions.
        weights: (rows,) or ``None``.
        l2: Weight of the penalty.
        intercept: Whether there are biases.
    """
    old = [k for k in range(len(bias)) if k not in {*new}]
    others = torch.logsumexp(x.double() @ weight[old].T + bias[old], 1)
    for k in new:
        wanted = y == k if y.ndim == 1 else y[:, k]
        row = row_beside(x, others, wanted, weights, l2=l2, intercept=intercept)
        weight[k], bias[k] = row[:-1], row[-1]


@torch.no_grad()
def with_classes(
    model: Model,
    class_names: Iterable[str],
    batches: Iterable[Any] | None = None,
    **kwargs: Any,
) -> Model:
    """A new model of the same kind whose classes are these; the given one stays as it is.

    Those that it knows come first, in its order, then the new ones in the order given. Everything
    else is as it was: features, statistics, schema, penalty, class weights by name, optimiser. A
    threshold stays with its two classes.

    Args:
        model: The model, trained or not.
        class_names: All classes that are wanted, at least 2; at least one of them known.
        batches: Rows of all of them with labels in the order of the answer's ``class_names``, as
            ``unpack`` reads them; new classes begin at zero without, and where the activation is
            not softmax. The first ones count, up to 2²⁴ entries.
        kwargs: Arguments of a subclass that no plain value stands for, a backbone for instance.

    Raises:
        InputError: For names that are not at least 2 different ones, and where none is known; for
            a subclass whose sizes are not those of its arguments; and for rows that are not finite.
    """
    wanted = _wanted(class_names)
    kept = [name for name in model.class_names if name in wanted]
    if not kept:
        raise InputError(
            f"expected at least one class that the model knows, of {', '.join(model.class_names)}, "
            f"got {', '.join(wanted)}; make a new model for other classes"
        )
    names = [*kept, *(name for name in wanted if name not in kept)]
    where = places(model.class_names, names)
    made = _made(model, names, where, kwargs)
    _load(model, made, where)
    new = [k for k, place in enumerate(where) if place is None]
    if batches is not None and new and made._smx_activation == SOFTMAX:
        weight, bias = (p.detach().double().cpu() for p in (made.linear.weight, made.linear.bias))
        begun(weight, bias, new, *_rows(made, batches), l2=made.l2)
        made.linear.weight.copy_(weight)
        made.linear.bias.copy_(bias)
    return made


def _wanted(class_names: Iterable[str]) -> list[str]:
    """At least 2 different names."""
    if not isinstance(class_names, Iterable):
        raise InputError(
            f"expected the names of all classes that are wanted, got {class_names!r}; give them as "
            "a list"
        )
    names = [class_names] if isinstance(class_names, str) else [*class_names]
    return checks.names_of(names, checks.at_least("num_classes", len(names), 2))


def _made(
    model: Model, names: list[str], where: Sequence[int | None], given: Mapping[str, Any]
) -> Model:
    """A model of the same arguments but for the classes."""
    weights = model.class_weight
    if isinstance(weights, list):
        weights = class_weights(
            {n: weights[k] for n, k in zip(names, where, strict=True) if k is not None}, names
        )
    threshold = model.threshold if names == [*model.class_names] else None
    own: dict[str, Any] = {
        "num_classes": len(names),
        "class_names": names,
        "class_weight": weights,
        "threshold": threshold,
        "optimizer": model._optimizer,
        "lr_scheduler": model._lr_scheduler,
    }
    saved = {n: v for n, v in model.hparams.items() if n not in (*RUN, DATA)}
    made = _called(model, {**saved, **own, **given})
    if [*made.class_names] != names:  # a subclass has others, or counts them by itself
        raise InputError(
            f"expected a {type(model).__name__} of the classes {', '.join(names)}, got one of "
            f"{', '.join(made.class_names)}; let it take num_classes and class_names, or give the "
            "argument that says them, with_classes(…, name=…)"
        )
    # What had been set later, and what a subclass takes no argument for.
    live = {name: getattr(model, name) for name in LIVE}
    for name, value in {**live, "class_weight": weights, "threshold": threshold}.items():
        setattr(made, name, value)
    made._optimizer, made._lr_scheduler, made.lr = model._optimizer, model._lr_scheduler, model.lr
    return made.to(device=model.device, dtype=model.linear.weight.dtype)


def _called(model: Model, arguments: Mapping[str, Any]) -> Model:
    """The model's class, called with those of the arguments that it takes.

    Raises:
        InputError: Where one is needed that no plain value stands for.
    """
    parameters = inspect.signature(type(model)).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in several]
    for name in (*needed, *model._smx_record.identities):
        if name not in arguments:
            raise InputError(
                f"expected plain arguments of {type(model).__name__}, got {name}, which no plain "
                f"value stands for; give it once more, with_classes(…, {name}=…)"
            )
    names = {p.name for p in parameters}
    return type(model)(**{n: v for n, v in arguments.items() if takes_any or n in names})


def _load(model: Model, made: Model, where: Sequence[int | None]) -> None:
    """The model's parameters and buffers, those of the classes in their new places."""
    state = {
        name: moved(value, where) if name.startswith(OF_CLASSES) else value
        for name, value in model.state_dict().items()
    }
    own = made.state_dict()
    others = [n for n, v in state.items() if n in own and own[n].shape != v.shape]
    if others:
        raise InputError(
            f"expected parameters of other sizes in the layer of the classes alone, got "
            f"{', '.join(others)}, whose places for the new classes nobody knows; make a new "
            f"{type(model).__name__}, and give it the weights that stay"
        )
    made.load_state_dict(state)
    made.train(model.training)


def _rows(model: SoftmaxRegression, batches: Iterable[Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows as the linear layer sees them, y and weights of the first batches, on the CPU."""
    parts: list[tuple[Tensor, ...]] = []
    entries = 0
    with evaluating(model):
        for batch in batches:
            x, y, weight = labelled(model, batch, "batches of new classes")
            check_targets(y.cpu(), model.num_classes, "batches of new classes")
            x = move_data_to_device(x, model.device)
            x = model.preprocessing(model.checked_features(x))
            c = torch.ones(len(y)) if weight is None else weight
            # A loader may fill its buffers anew.
            parts.append(tuple(part.detach().to("cpu", copy=True) for part in (x, y, c)))
            entries += x.numel()
            if entries >= MOST_ENTRIES:
                break
    if not sum(len(y) for _, y, _ in parts):
        raise InputError(
            "expected rows of the new classes, got batches without any; leave batches out to begin "
            "at zero"
        )
    if any(is_soft(y) for _, y, _ in parts):  # labels beside them are distributions, too
        parts = [(x, _soft(y, model.num_classes), c) for x, y, c in parts]
    x, y, c = (torch.cat(some) for some in zip(*parts, strict=True))
    if not x.isfinite().all():
        raise InputError(
            "expected finite features in the batches of new classes, got NaN or infinity; remove "
            "or impute such rows"
        )
    return x, y, c


def _soft(y: Tensor, num_classes: int) -> Tensor:
    """Distributions (rows, classes) of labels or distributions."""
    return y.double() if is_soft(y) else torch.nn.functional.one_hot(y, num_classes).double()
