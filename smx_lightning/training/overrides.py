"""What a subclass overrides: hooks without ``super()``, and one of two methods that go together."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lightning.pytorch import LightningModule

from smx_lightning.activations import SOFTMAX, Activation, activation_of
from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Hook = TypeVar("Hook", bound=Callable[..., Any])


def know_activation(model: SoftmaxRegression, activation: Activation) -> None:
    """Give a model its activation, for others as ``activation`` where that name is still free.

    Raises:
        InputError: Where a subclass overrides one of ``forward`` and ``scores`` alone: of softmax
            the loss is of what the former answers, of others of what the latter does.
    """
    model._smx_activation = activation
    if not hasattr(model, "activation"):  # a subclass may have one of hidden layers
        model.activation = activation
    if activation != SOFTMAX:
        _check_scores(model)


def check_activation(model: SoftmaxRegression, value: Any) -> None:
    """Complain about another member that a model is to become after it was made.

    Raises:
        InputError: For one; anything else is an attribute of a subclass's own.
    """
    try:
        other = activation_of(value)
    except InputError:
        return
    if other != vars(model).get("_smx_activation", other):
        raise InputError(
            f"expected a model to keep activation={model._smx_activation.spec!r}, as its layers, "
            f"loss and metrics are made for it, got {other.spec!r}; make another model, or "
            f"load_from_checkpoint(…, activation={other.spec!r})"
        )


def _check_scores(model: SoftmaxRegression) -> None:
    kind, ours = type(model), model._smx_hooks.kind
    own = {n for n in ("forward", "head", "scores") if getattr(kind, n) is not getattr(ours, n)}
    if own and ("scores" not in own or len(own) == 1):
        there, missing = sorted(own)[0], "forward" if "scores" in own else "scores"
        raise InputError(
            f"expected {kind.__name__}, which has its own {there}, to have its own {missing}(x) "
            f"too, as the loss of activation={model._smx_activation.spec!r} is one of scores, got "
            f"none; add it, or override features(x) in place of {there}"
        )


def joined(when: Literal["before", "behind"]) -> Callable[[Hook], Hook]:
    """Of a hook of ours: its work is done before, or behind, that of a subclass's override."""

    def marked(hook: Hook) -> Hook:
        hook.joined = when  # type: ignore[attr-defined]
        return hook

    return marked


def join_overrides(cls: type[LightningModule], base: type[LightningModule]) -> None:
    """Let each hook of a base that a new subclass overrides do the work of the base's as well."""
    for name, ours in vars(base).items():
        when, override = getattr(ours, "joined", None), getattr(cls, name)
        if when is not None and override is not ours and not hasattr(override, "does_both"):
            setattr(cls, name, _both(ours, override, ours_first=when == "before"))


def _both(ours: Callable[..., Any], override: Hook, *, ours_first: bool) -> Hook:
    """A hook that does the work of two, and is the override to whoever looks."""
    hooks = (ours, override) if ours_first else (override, ours)

    @wraps(override)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = [hook(self, *args, **kwargs) for hook in hooks]
        return next((answer for answer in answers if answer is not None), None)

    both.does_both = True  # type: ignore[attr-defined]
    return both  # type: ignore[return-value]
