"""Completion of options by shells, which both programs offer by the library shtab.

It writes a script that holds all options, so that no program runs at each Tab.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from smx_lightning.errors import InputError

OPTIONS = ("--print-completion", "--print_completion")
SHELLS = ("bash", "zsh")


def shell_asked(given: Sequence[str]) -> str | None:
    """The shell for which arguments ask what makes it complete them, if they do.

    Raises:
        InputError: For another shell than those.
    """
    if not given or given[0].partition("=")[0] not in OPTIONS:
        return None
    shell = given[0].partition("=")[2] or (given[1] if len(given) > 1 else "none")
    if shell not in SHELLS:
        raise InputError(
            f"expected {OPTIONS[0]} with {' or '.join(SHELLS)}, got {shell}; name one of them"
        )
    return shell


def require_shtab() -> None:
    """Complain where the library is missing.

    Raises:
        InputError: It says how to install it.
    """
    if find_spec("shtab") is None:
        raise InputError(
            "expected shtab, which writes completions, got none; install it with pip install shtab"
        )
