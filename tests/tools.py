"""Tools that a developer may lack and CI may not, and what a test may leave behind: nothing."""

import importlib
import os
from pathlib import Path

import pytest


def missing(what):
    """Skip where a tool is missing; in CI nothing may be."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


def needed(module):
    """A module of a tool, imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return missing(f"{module} ({error})")


def bearing(mark):
    """Processes with ``mark`` in their environment or command line, this one apart; no zombies."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:  # it has ended, or is someone else's
            continue
        if mark.encode() in told and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
