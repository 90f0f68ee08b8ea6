"""Hooks of the model that do their work although a subclass overrides them without ``super()``."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Hook = Callable[..., Any]

# Hooks whose work is done although a subclass overrides them: first ours, or first its own.
BEFORE_AN_OVERRIDE = (
    *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_after_backward", "on_train_epoch_end", "on_train_end"),
    *("on_validation_start", "on_validation_epoch_end"),
    *("on_test_start", "on_test_epoch_end", "on_predict_start"),
)
BEHIND_AN_OVERRIDE = ("configure_model", "on_save_checkpoint", "on_load_checkpoint")


def join_overrides(cls: type[SoftmaxRegression]) -> None:
    """Let each hook that a new subclass overrides do the work of ours as well."""
    for name in (*BEFORE_AN_OVERRIDE, *BEHIND_AN_OVERRIDE):
        override, ours = getattr(cls, name), getattr(cls._base(), name)
        if override is ours or hasattr(override, "does_both"):
            continue
        hooks = (ours, override) if name in BEFORE_AN_OVERRIDE else (override, ours)
        setattr(cls, name, followed(*hooks))


def followed(first: Hook, then: Hook) -> Hook:
    """A hook that does the work of two."""

    @wraps(first)
    def both(self: Any, *args: Any, **kwargs: Any) -> Any:
        answers = first(self, *args, **kwargs), then(self, *args, **kwargs)
        return next((answer for answer in answers if answer is not None), None)

    both.does_both = True  # type: ignore[attr-defined]
    return both
