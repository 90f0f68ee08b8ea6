"""A runtime in a process of its own that may take only so much time and memory. No torch.

For files that nobody vouches for: a graph of a few bytes can go round for ever or ask for all the
memory there is, already while it is loaded. The process is
``smx_export.targets.limited NAME FILE SECONDS BYTES``. What it is asked and what it answers is a
line of JSON and then raw numbers: nothing that comes out of it is ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.check import first_line
from smx_export.artifact.rows import heard, told
from smx_export.targets import target
from smx_export.targets.base import Outputs, Session, Target
from smx_export.targets.process import crashed, end_group, python, search_path

try:
    import resource
except ImportError:  # on Windows, where time alone is limited
    resource = None  # type: ignore[assignment]

PER_BYTE = 8  # of the file: runtimes hold its weights several times
MOST_ANSWERED = 1 << 28  # bytes of one answer, which this process takes over
GRACE = 5.0  # seconds
NUMBERS = "biuf"  # kinds of dtype


class Limits(NamedTuple):
    """What a file that is run may take.

    Attributes:
        seconds: To load it and for its self-test; anew for every block of rows.
        memory: Bytes, and eight times the file's size; on Linux alone.
    """

    seconds: float = 60.0
    memory: int = 4 << 30


LIMITS = Limits()


class Limited(Target):
    """A runtime, of which each session is a process with limits.

    Args:
        name: The runtime's.
        limits: What it may take.
    """

    def __init__(self, name: str = "onnxruntime", limits: Limits = LIMITS) -> None:
        self._target, self.limits = target(name), limits
        self.name = name  # type: ignore[misc]

    def version(self) -> str:
        """See :class:`Target`."""
        return self._target.version()

    def check_takes(self, x: NDArray[np.generic]) -> None:
        """See :class:`Target`."""
        self._target.check_takes(x)

    def load(self, path: Path) -> LimitedSession:
        """See :class:`Target`."""
        return LimitedSession(self.name, path, self.limits)


class LimitedSession(Session):
    """A file, loaded by a runtime in a process of its own.

    Args:
        name: The runtime.
        path: The file.
        limits: What it may take.

    Raises:
        RuntimeError: Where it does not load the file, or takes more than it may.
    """

    def __init__(self, name: str, path: Path, limits: Limits) -> None:
        self._limits, self._late = limits, False
        self.renew()
        memory = limits.memory + PER_BYTE * path.stat().st_size
        arguments = [name, os.path.realpath(path), str(limits.seconds), str(memory)]
        self._process = subprocess.Popen(
            [*python(__name__), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # which may quote the file
            env={**os.environ, "PYTHONPATH": search_path(), "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            self._asked(b"")
        except BaseException:
            self.close()
            raise

    def run(self, x: NDArray[np.generic]) -> Outputs:
        """See :class:`Session`.

        Raises:
            RuntimeError: Where it answers with an error, or takes more than it may.
        """
        question = json.dumps([told(x.dtype), x.shape]).encode() + b"\n"
        head, data = self._asked(question + np.ascontiguousarray(x).tobytes())
        outputs, start = {}, 0
        for name, code, shape in head["outputs"]:
            dtype, count = np.dtype(code), math.prod(shape)
            outputs[name] = np.frombuffer(data, dtype, count, start).reshape(shape).copy()
            start += count * dtype.itemsize
        return outputs

    def renew(self) -> None:
        """Let it have all the time again."""
        self._left = self._limits.seconds

    def close(self) -> None:
        """See :class:`Session`."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # it has ended with a question on the way
                if pipe is not None:
                    pipe.close()
        end_group(self._process)

    def _asked(self, question: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer to a question, the first of which is to load the file."""
        timer, began = Timer(self._left, self._end), time.monotonic()
        timer.daemon = True
        timer.start()
        try:
            return self._answer(question)
        except (OSError, EOFError) as error:
            self._process.wait()
            raise RuntimeError(self._ended()) from error
        finally:
            timer.cancel()
            self._left = max(0.0, self._left - (time.monotonic() - began))

    def _answer(self, question: bytes) -> tuple[dict[str, Any], bytes]:
        asked, answers = (cast("IO[bytes]", p) for p in (self._process.stdin, self._process.stdout))
        asked.write(question)
        asked.flush()
        head = json.loads(_whole_line(answers))
        if "error" in head:
            raise RuntimeError(head["error"])
        size = sum(math.prod(s) * np.dtype(code).itemsize for _, code, s in head["outputs"])
        if size > MOST_ANSWERED:
            raise RuntimeError(f"its answer of {size:,} bytes is larger than {MOST_ANSWERED:,}")
        data = answers.read(size)
        if len(data) < size:
            raise EOFError
        return head, data

    def _end(self) -> None:
        self._late = True
        end_group(self._process)

    def _ended(self) -> str:
        if self._late:
            return f"took more than the {self._limits.seconds:g} s that it may"
        return crashed(self._process.returncode) or "ended without an answer"


def _whole_line(answers: IO[bytes]) -> bytes:
    line = answers.readline(1 << 20)
    if not line.endswith(b"\n"):
        raise EOFError
    return line


# In the process itself ---------------------------------------------------------------------------


def main(name: str, file: str, seconds: str, memory: str) -> None:
    """Load the file, and answer until nothing is asked any more."""
    limit_time(float(seconds))
    limit_memory(int(memory))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a runtime prints is no answer
    try:
        session = target(name).load(Path(file))
    except Exception as error:  # runtimes' exceptions share no base class
        return _tell(answers, {"error": first_line(error)})
    _tell(answers, {"outputs": []})
    while line := sys.stdin.buffer.readline():
        limit_time(float(seconds))
        code, shape = json.loads(line)
        dtype = heard(code)
        size = math.prod(shape) * dtype.itemsize
        x = np.frombuffer(sys.stdin.buffer.read(size), dtype).reshape(shape)
        try:
            outputs = numbers(session.run(x))
        except Exception as error:  # as above
            _tell(answers, {"error": first_line(error)})
            continue
        told = [(key, value.dtype.str, value.shape) for key, value in outputs.items()]
        _tell(answers, {"outputs": told}, outputs)
    return None


def numbers(answered: Outputs) -> Outputs:
    """The arrays that a runtime answered, if they are of numbers.

    Raises:
        TypeError: Where one is not.
    """
    outputs = {name: np.asarray(value) for name, value in answered.items()}
    for name, value in outputs.items():
        if value.dtype.kind not in NUMBERS:
            raise TypeError(f"{name} is {value.dtype}, no numbers")
    return outputs


def _tell(answers: IO[bytes], head: dict[str, Any], outputs: Outputs | None = None) -> None:
    answers.write(json.dumps(head).encode() + b"\n")
    for value in (outputs or {}).values():
        answers.write(np.ascontiguousarray(value).tobytes())
    answers.flush()
    limit_time(None)  # until something is asked again


def limit_time(seconds: float | None) -> None:
    """End this process after a while, or never, where the system can.

    Who started it ends it a little earlier and says why, but may be dead by then.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0 if seconds is None else seconds + GRACE)


def limit_memory(most: int) -> None:
    """Let this process, and what it starts, take no more bytes, where the system can see to it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    known = [limit for limit in (soft, hard, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
