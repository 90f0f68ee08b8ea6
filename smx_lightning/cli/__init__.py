"""The command line: ``smx-lightning fit``, ``validate``, ``test`` and ``predict``."""

from typing import TYPE_CHECKING, Any

from smx_lightning.cli.program import main

if TYPE_CHECKING:
    from smx_lightning.cli.commands import SmxCLI

__all__ = ["SmxCLI", "main"]


def __getattr__(name: str) -> Any:
    """SmxCLI, with torch, where it is asked for."""
    if name != "SmxCLI":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smx_lightning.cli.commands import SmxCLI

    return SmxCLI
