"""Commands, each in a fork of one process that has all imported, within limits of time and memory.

``python fenced.py`` takes a job a line, JSON, and answers likewise; :class:`Fence` asks it.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import warm

SECONDS, MEMORY = 2.0, 1 << 30  # what reading a file may take
PATIENCE = 60.0  # seconds that it may take on a machine that is busy with others
UNCAUGHT = 99


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Its exit code; negative, a signal's.
        out: What it printed.
        err: Likewise, on stderr.
        cpu: Seconds that it computed, with what it started.
    """

    code: int
    out: str
    err: str
    cpu: float


class Fence:
    """The process that forks, within a ``with`` block."""

    def __enter__(self):
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (root, root / "export"))),
                "OMP_NUM_THREADS": "1",
                "PYTHONWARNINGS": "ignore",
            },
        )
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def run(self, reader, *arguments, cwd, memory=MEMORY, short=False):
        """One command: a name in ``READERS``, and what it is given; ``short`` as warm.py has it."""
        job = {"reader": reader, "arguments": list(map(str, arguments)), "cwd": str(cwd)}
        self._process.stdin.write(json.dumps({**job, "memory": memory, "short": short}) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


# In the process ----------------------------------------------------------------------------------


def _library(read):
    """A reader of the library as a command: a refusal is its one sentence."""

    def command(arguments):
        from smx_export import FileError
        from smx_lightning import InputError

        try:
            read(*arguments)
        except (InputError, FileError) as error:
            print(f"library: {' '.join(str(error).split())!r}", file=sys.stderr)
            return 2
        return 0

    return command


def _export(arguments):
    from smx_export.__main__ import main

    return main(arguments)


def _lightning(arguments):
    from smx_lightning.cli import main

    sys.argv = ["smx-lightning", *arguments]
    return main(arguments)


def _npz(path):
    from smx_lightning.data import NpzDataModule

    return NpzDataModule(path).splits


def _rows(path):
    from smx_lightning.data import NpzDataModule

    return NpzDataModule(path).all_inputs()


def _idx(path):
    from smx_lightning.data import IdxDataModule

    return IdxDataModule(path).splits


def _sidecar(path):
    from smx_export.artifact.sidecar import write_sidecar

    return write_sidecar(path)


def _hparams(checkpoint, path):
    from smx_lightning import SoftmaxRegression

    return SoftmaxRegression.load_from_checkpoint(checkpoint, hparams_file=path)


READERS = {
    "smx-export": _export,
    "smx-lightning": _lightning,
    **{f.__name__[1:]: _library(f) for f in (_npz, _rows, _idx, _sidecar, _hparams)},
}


def _serve():
    import torch

    torch.set_num_threads(1)
    cli = warm.prepare()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(_forked(json.loads(line), cli)._asdict()) + "\n")
        answers.flush()


def _forked(job, cli):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            _run(job, cli, out, err)
        ending = os.pidfd_open(pid)
        ready = select.select([ending], [], [], PATIENCE)[0]
        os.close(ending)
        if not ready:
            os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it has left behind
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, *said, used.ru_utime + used.ru_stime)


def _run(job, cli, out, err):
    code = UNCAUGHT
    try:
        os.setsid()
        os.chdir(job["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
        if job["short"]:
            warm.shorten(cli)
        code = READERS[job["reader"]](job["arguments"])
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


if __name__ == "__main__":
    _serve()
