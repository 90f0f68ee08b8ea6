"""The parser: what it reads of YAML, what it prints as a configuration, how it complains."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import yaml
from jsonargparse import Namespace, set_loader
from jsonargparse import get_loader as loader_of
from lightning.pytorch.cli import LightningArgumentParser

from smx_lightning.checkpoint.bounded_yaml import load_yaml
from smx_lightning.cli.arguments import with_class_paths
from smx_lightning.cli.checkpoint import FROM_DATA
from smx_lightning.errors.text import one_line, shortened

LONGEST = 700  # characters of a complaint: it may quote what a file holds

_load = loader_of("yaml")


def bounded(text: str) -> Any:
    """What the parser makes of YAML, if it is not deeper or larger than settings are."""
    return with_class_paths(load_yaml(text, _load))


class Parser(LightningArgumentParser):
    """A parser that leaves out of a printed configuration what only the run can settle."""

    unsettled: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_loader("yaml", bounded, (yaml.YAMLError, ValueError))

    def dump(self, namespace: Namespace, *args: Any, **kwargs: Any) -> str:
        """As of every parser, without ``unsettled``, with sizes that were given by hand."""
        shown = namespace.clone()
        linked = (f"model.init_args.{name}" for name in FROM_DATA)
        for key in (*self.unsettled, *(key for key in linked if shown.get(key) is None)):
            shown.pop(key, None)
        return cast("str", super().dump(shown, *args, **{**kwargs, "skip_link_targets": False}))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with the usage and one sentence, in which what is quoted of files can be seen."""
        super().error(shortened(one_line(message), LONGEST), ex)
