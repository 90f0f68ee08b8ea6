"""The command line: ``smx-lightning fit``, ``validate``, ``test`` and ``predict``."""

from smx_lightning.cli.commands import SmxCLI, main

__all__ = ["SmxCLI", "main"]
