"""``smx-lightning``, and ``python -m smx_lightning``: the command line, where torch is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from smx_lightning.errors.extras import NotInstalled, training_needed

BAD_INPUT = 2  # as the exit codes of smx_lightning.cli.commands, which needs torch


def main(args: Sequence[str] | None = None) -> int:
    """Run :func:`smx_lightning.cli.main`, or say what to install for it; the exit code."""
    try:
        with training_needed():
            from smx_lightning.cli import main as run
    except NotInstalled as error:
        print(f"smx-lightning: {error}", file=sys.stderr)
        return BAD_INPUT
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
