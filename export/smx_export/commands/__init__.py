"""``smx-export``'s subcommands, one module each.

Each module offers ``add_parser(subparsers)``, which says its help and its arguments and sets
``run`` as their default; ``run(args)`` does the work, by the library's functions, and returns the
exit code. torch is imported only inside functions that need a checkpoint.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DONE, PARITY_FAILED, BAD_INPUT = 0, 1, 2  # exit codes
