"""YAML that is not deeper or larger than settings are; what names its own parts again is counted.

A few lines of anchors can stand for a billion values, and deep nesting exhausts the stack of the
parser, which ends the process. So the events are looked at first, which takes neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from smx_lightning.checkpoint.plain import DEEPEST
from smx_lightning.errors.unreadable import reason

MOST_NODES = 100_000


def check_yaml(text: str) -> None:
    """Complain about a text whose nodes lie too deep, are too many, or hold themselves.

    Raises:
        yaml.YAMLError: Then, and where it is no YAML.
    """
    sizes: dict[str, int] = {}  # of what an anchor stands for, aliases in it counted
    opened: list[tuple[str | None, int]] = []  # anchors of the collections around, and where
    total = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in opened):
                raise yaml.YAMLError(f"expected values that end, got *{event.anchor} in itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(opened) > DEEPEST or total > MOST_NODES:
            raise yaml.YAMLError(
                f"expected at most {MOST_NODES:,} values, up to {DEEPEST} deep, got more"
            )


def load_yaml(text: str, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """Plain values of a YAML text; nothing in it is made or called.

    Args:
        text: The text.
        load: What makes values of it, if it is not deeper or larger than settings are.

    Raises:
        yaml.YAMLError: As :func:`check_yaml` does, and where a value is not of the kind that it is
            marked as, which PyYAML comes upon in several ways.
    """
    check_yaml(text)
    try:
        return load(text)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(
            f"expected values of the kinds they say, got: {reason(error)}"
        ) from error
