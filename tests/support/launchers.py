"""Processes as launchers start them: none outlives its test, not even those that others started."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tools import ROOT, SUPPORT

SCRIPT = str(SUPPORT / "launched.py")
TAG = "SMX_TEST_RUN"  # an environment variable is inherited across sessions, a process group is not


class Finished(NamedTuple):
    """Exit code of a command; all that it printed, its children included."""

    code: int
    output: str


def script(*arguments):
    """The command that trains once, in one process."""
    return [sys.executable, SCRIPT, *map(str, arguments)]


def torchrun(*options, arguments=(), script=SCRIPT):
    """The command that trains under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, options)]
    return [*command, str(script), *map(str, arguments)]


def run(*commands, folder, environ=({},), timeout=120):
    """Run commands side by side until all have ended; ``environ`` has one dict a command.

    Raises:
        TimeoutError: With what they printed, where one is still running after ``timeout`` seconds.
    """
    tag = uuid.uuid4().hex
    common = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # a restarted group may find the old one's keys
        TAG: tag,
    }
    deadline = time.monotonic() + timeout
    logs = [folder / f"{tag}-{k}.log" for k in range(len(commands))]
    with ExitStack() as stack:
        stack.callback(bury, tag)
        started = []
        for command, log, extra in zip(commands, logs, environ, strict=True):
            started.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=common | extra,
                    stdin=subprocess.DEVNULL,
                    stdout=stack.enter_context(log.open("wb")),
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            stack.callback(started[-1].wait)  # after the kill: leaves no zombie
            stack.callback(started[-1].kill)
        try:
            for process in started:
                process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired as late:
            said = "\n".join(log.read_text(errors="replace") for log in logs)
            raise TimeoutError(f"still running after {timeout} s, having said:\n{said}") from late
        for pid in relatives(tag):  # some end a moment after those that started them
            wait_for(pid)
        if left := relatives(tag):
            raise AssertionError(f"left running: {left}")
    return [
        Finished(process.returncode, log.read_text(errors="replace"))
        for process, log in zip(started, logs, strict=True)
    ]


def relatives(tag):
    """The processes that inherited the tag, by id, and their commands."""
    mark = f"{TAG}={tag}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # ended meanwhile, or another user's
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def bury(tag):
    """Kill all processes that inherited the tag, and wait until they are gone."""
    while left := relatives(tag):
        for pid in left:
            wait_for(pid, signal.SIGKILL)


def wait_for(pid, number=None):
    """Wait until a process has ended, for 10 seconds; send it a signal first."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if number is not None:
                signal.pidfd_send_signal(handle, number)
            select.select([handle], [], [], 10)
        finally:
            os.close(handle)


# Two hosts ---------------------------------------------------------------------------------------

HOSTS = ("10.77.0.1", "10.77.0.2")


def ip(*arguments):
    subprocess.run(
        ["ip", *arguments], check=True, capture_output=True, text=True, timeout=20, env=os.environ
    )


def why_not_two_hosts():
    """Why this machine makes no network namespaces for us; ``None`` where it does."""
    if shutil.which("ip") is None:
        return "needs the command ip, of iproute2"
    try:
        with two_hosts() as names:
            for name in names:
                ip("netns", "exec", name, "true")
    except subprocess.CalledProcessError as error:
        return f"needs the right to make network namespaces: {error.stderr.strip()}"
    return None


@contextmanager
def two_hosts():
    """Two network namespaces, joined by a cable; answers their names."""
    names = [f"smx-{os.getpid()}-{k}" for k in range(2)]
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ends = ("type", "veth", "peer", "name", "cable", "netns", names[1])
        ip("-n", names[0], "link", "add", "cable", *ends)
        for name, address in zip(names, HOSTS, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield names
