"""Hooks of the model that do their work although a subclass overrides them without ``super()``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Hook = TypeVar("Hook", bound=Callable[..., Any])


def joined(when: Literal["before", "behind"]) -> Callable[[Hook], Hook]:
    """Of a hook of ours: its work is done before, or behind, that of a subclass's override."""

    def marked(hook: Hook) -> Hook:
        hook.joined = when  # type: ignore[attr-defined]
        return hook

    return marked


def join_overrides(cls: type[SoftmaxRegression]) -> None:
    """Let each hook that a new subclass overrides do the work of ours as well."""
    for name, ours in vars(cls._smx_hooks.kind).items():
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
