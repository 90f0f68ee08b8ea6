"""The command line: ``smx-lightning fit``, ``validate``, ``test`` and ``predict``."""

from smx_lightning.cli.commands import main

__all__ = ["main"]
