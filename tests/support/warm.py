"""What a fork of a process that has imported everything is spared, so that a fuzz reads many files.

A command spends nearly all its time where no file has a say: the parser of ``smx-lightning`` is
made of signatures, and the process with limits in which an ONNX file is run begins with a new
interpreter. :func:`prepare` imports all, and makes that parser once. After :func:`shorten`, in a
fork, the command takes the parser, and the process with limits is a fork as well: it runs the same
:func:`smx_export.targets.limited.main`, is asked over the same pipes, and is given the same limits
of time and memory. All that looks at a file is the code of the readers. What is not tried in this
way is how an interpreter starts; commands that are not shortened try that.
"""

import gc
import importlib
import inspect
import io
import os
import subprocess
import sys
import threading
from contextlib import redirect_stdout, suppress
from types import SimpleNamespace
from unittest.mock import patch

from smx_export.targets import limited

IMPORTED = [  # what commands import once they run
    "encodings.ascii",
    "encodings.cp437",
    "smx_export.__main__",
    "smx_export.artifact.describe",
    "smx_export.artifact.sidecar",
    "smx_export.commands.options",
    "smx_export.convert",
    "smx_export.parity.comparison",
    "smx_export.predict",
    "smx_export.targets.onnxruntime_",
    "smx_export.targets.selftest",
    "smx_lightning.data.labels",
]
CRASHED = 1  # an interpreter's code after an exception
GIVEN = len(inspect.signature(limited.main).parameters)


class _Made(BaseException):
    """A command line, right after its parser was made."""


def prepare():
    """Import what is needed, and make the parser; the command line that has it."""
    from smx_lightning.cli import SmxCLI, main

    for name in IMPORTED:
        importlib.import_module(name)

    def stop(self, *_):
        raise _Made(self)

    for command in ("fit", "test", "predict"):  # jsonargparse keeps the parsers of classes
        with redirect_stdout(io.StringIO()), suppress(SystemExit):
            main([command, "--data=NpzDataModule", "--data.path=x", "--print_config"])
    with patch.object(SmxCLI, "parse_arguments", stop):
        try:
            main([])
        except _Made as made:
            (cli,) = made.args
    gc.collect()
    gc.freeze()  # or each fork copies what it only looks at
    return cli


def shorten(cli):
    """Let a command in this process, a fork, take the parser, and fork in place of starting."""
    kind = type(cli)
    kind.__new__ = staticmethod(lambda *_, **__: cli)
    kind.setup_parser = lambda *_: None
    limited.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedRuntime})


class ForkedRuntime:
    """The process that a ``LimitedSession`` starts, as a fork of this one.

    Args:
        command: What it would be started with; it ends with what ``limited.main`` is given.
    """

    def __init__(self, command, **_):
        questions, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _answer(command[-GIVEN:], questions[0], answers[1])
        with suppress(PermissionError, ProcessLookupError):  # whoever is first
            os.setpgid(self.pid, self.pid)
        os.close(questions[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(questions[1], "wb"), os.fdopen(answers[0], "rb")
        self.returncode, self._lock = None, threading.Lock()

    def wait(self):
        """Its exit code, once it has ended."""
        with self._lock:
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _answer(arguments, questions, answers):
    code = CRASHED
    try:
        os.setpgid(0, 0)
        os.dup2(questions, 0)
        os.dup2(answers, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        gc.freeze()  # what closes when it is collected may not close a number taken anew
        os.closerange(3, 1024)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        limited.main(*arguments)
        code = 0
    finally:
        os._exit(code)
