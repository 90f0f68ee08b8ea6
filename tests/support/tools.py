"""Tools that a developer may lack and CI may not, and what a test may leave behind: nothing."""

import importlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from smx_export.targets import NotInstalled, target

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]


def missing(what):
    """Skip where a tool is missing; in CI nothing may be."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")


def needed(module):
    """A module of a tool, imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return missing(f"{module} ({error})")


def installed(name):
    """The target of a name."""
    found = target(name)
    try:
        found.version()
    except NotInstalled as error:
        missing(str(error))
    return found


def left(mark, patience=2.0):
    """Processes with ``mark`` in environment or command line that do not end by themselves."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if pid == os.getpid() or mark.encode() not in told:  # a zombie tells nothing
                continue
            ending = os.pidfd_open(pid)
        except OSError:  # it has ended, or is someone else's
            continue
        if not select.select([ending], [], [], patience)[0]:
            found.append(pid)
        os.close(ending)
    return found


def run_alone(script, *arguments):
    """What a script prints in a process of its own, where nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
    )
    return done.stdout
