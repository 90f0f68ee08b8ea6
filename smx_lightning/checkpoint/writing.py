"""How checkpoints get to the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from smx_lightning.checkpoint.integrity import with_hashes
from smx_lightning.processes.files import written_whole

NAME = re.compile(r"(last|finished)-[0-9a-f]{8}\.ckpt")  # of Recovery's files


class WholeFileIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent: written beside their target, flushed to disk, moved."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint``; what was at ``path`` stays until the new one is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft, draft.open("wb") as file:
            try:
                torch.save(with_hashes(checkpoint), file)
            except RuntimeError as error:  # torch hides the system's complaint behind its own
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
