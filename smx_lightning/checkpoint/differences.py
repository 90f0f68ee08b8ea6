"""What two descriptions differ in that decides the course of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smx_lightning.checkpoint.optimizers import Description, in_words, said

HOW_NOT_WHAT = ("foreach", "fused", "capturable", "differentiable")  # same steps, other kernels
WHEN_NOT_WHAT = {"smx_lightning.optim.ExactSolver": ("tol",)}  # when to stop, on the same way


def difference(saved: Any, present: Any) -> tuple[str, str] | None:
    """What two descriptions differ in that a run's course depends on, each in words.

    Args:
        saved: A description or ``None``.
        present: Likewise.
    """
    if not isinstance(saved, dict) or not isinstance(present, dict):
        return None if saved == present else (in_words(saved), in_words(present))
    one, other = _course(saved), _course(present)
    if one == other:
        return None
    if saved.get("class_path") == present.get("class_path") and one[1] != other[1]:
        names = [n for n in {**one[1], **other[1]} if one[1].get(n) != other[1].get(n)]
        return _only(saved, names), _only(present, names)
    return in_words(saved), in_words(present)


def _course(description: Description) -> tuple[Any, dict[str, Any], Any]:
    path, init_args = description.get("class_path"), description.get("init_args")
    aside = (*HOW_NOT_WHAT, *WHEN_NOT_WHAT.get(str(path), ()))
    arguments = init_args.items() if isinstance(init_args, dict) else ()
    return path, {n: said(v) for n, v in arguments if n not in aside}, description.get("groups")


def _only(description: Description, names: Iterable[str]) -> str:
    """The same of what two descriptions differ in."""
    _, arguments, _ = _course(description)
    told = ", ".join(f"{name}={arguments[name]!r}" for name in names if name in arguments)
    return f"{str(description['class_path']).rpartition('.')[2]}({told})"
