"""One live process a file: whoever died holds nothing, whoever lives is left alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from smx_lightning.processes import lock
from smx_lightning.processes.lock import STALE, Lock, Process, started

LOOK = (
    "import os, sys, time; from pathlib import Path; "
    "from smx_lightning.processes.lock import Lock\n"
    "path = Path(sys.argv[1])\n"
)
HOLD = LOOK + "print(Lock(path).acquire(), flush=True)\n"


def started_python(code, *arguments, **options):
    """A process that runs ``code``, whose output can be read."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


@contextmanager
def running(code, *arguments):
    """The same, ended with all that it has started."""
    process = started_python(code, *arguments, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".last.lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock of ``path``."""
    with running(HOLD + "time.sleep(60)", path) as process:
        assert process.stdout.readline() == "None\n"
        yield process


@pytest.fixture
def lock_free_disk(monkeypatch):
    """A disk whose system knows no locks."""

    def refused(descriptor, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "lockf", refused)


def owned_by(path, **changes):
    """A lock's file as another process would have left it."""
    owner = replace(Process.this(None), **changes)
    path.write_text(json.dumps(asdict(owner)))
    return owner


def test_a_lock_is_held_once_and_leaves_nothing_behind(path):
    first, second = Lock(path), Lock(path)
    assert first.acquire() is None
    assert second.acquire().pid == os.getpid()
    assert second.held()
    second.release()  # which has nothing
    assert first.held()
    first.release()
    assert not first.held()
    assert not path.exists()
    assert second.acquire() is None
    second.release()


def test_a_living_process_is_named_and_a_dead_one_is_not_waited_for(path, holder):
    ours = Lock(path)
    assert ours.held()
    owner = ours.acquire()
    assert (owner.pid, owner.host) == (holder.pid, Process.this(None).host)
    holder.kill()
    while started(holder.pid) is not None:  # a zombie from then on: nobody has waited for it
        time.sleep(0.01)
    assert not ours.held()
    assert ours.acquire() is None
    ours.release()


def test_looking_at_a_lock_does_not_lose_one_s_own(path):
    ours = Lock(path)
    assert ours.acquire() is None
    assert Lock(path).held()
    asked = started_python(LOOK + "print(Lock(path).held())", path)
    assert asked.communicate()[0] == "True\n"
    ours.release()


def test_worker_processes_of_a_killed_one_hold_nothing(path):
    fork = "os.write(1, f'{os.fork()}\\n'.encode())\ntime.sleep(60)"  # each line in one piece
    with running(HOLD + fork, path) as process:
        assert process.stdout.readline() == "None\n"
        assert {process.stdout.readline(), process.stdout.readline()} >= {"0\n"}
        os.kill(process.pid, signal.SIGKILL)
        while started(process.pid) is not None:
            time.sleep(0.01)
        ours = Lock(path)
        assert ours.acquire() is None
        ours.release()


@pytest.mark.parametrize("locks", [True, False])
def test_a_process_that_got_a_dead_one_s_id_is_not_it(path, locks, request):
    if not locks:
        request.getfixturevalue("lock_free_disk")
    owned_by(path, pid=os.getppid(), started=started(os.getppid()) - 1)
    ours = Lock(path)
    assert not ours.held()
    assert ours.acquire() is None
    ours.release()


def test_without_locks_the_process_itself_is_looked_for(path, lock_free_disk):
    owner = owned_by(path, pid=os.getppid(), started=started(os.getppid()))
    ours = Lock(path)
    assert ours.held()
    assert ours.acquire() == owner
    ended = subprocess.Popen(["true"])
    ended.wait()
    owned_by(path, pid=ended.pid, started=1)
    assert ours.acquire() is None
    ours.release()


@pytest.mark.whole
@pytest.mark.parametrize("locks", [True, False])
def test_another_host_lives_as_long_as_its_heart_beats(path, locks, request):
    if not locks:
        request.getfixturevalue("lock_free_disk")
    owner = owned_by(path, host="elsewhere", machine="another boot", pid=1)
    ours = Lock(path)
    assert ours.held()
    assert ours.acquire() == owner
    past = time.time() - STALE - 1
    os.utime(path, (past, past))
    assert not ours.held()
    assert ours.acquire() is None
    assert json.loads(path.read_text())["pid"] == os.getpid()
    ours.release()


@pytest.mark.whole
@pytest.mark.parametrize(("job", "taken"), [("4711", True), ("4712", False), (None, False)])
def test_the_same_job_takes_over_from_the_host_that_it_was_on(path, job, taken):
    owned_by(path, host="elsewhere", machine="another boot", run="4711")
    ours = Lock(path, job)
    assert (ours.acquire() is None) == taken
    ours.release()


def test_a_heart_beats_now_and_then(path, monkeypatch):
    ours = Lock(path)
    ours.beat()  # which has no heart yet
    assert ours.acquire() is None
    os.utime(path, (0, 0))
    ours.beat()
    assert path.stat().st_mtime == 0
    monkeypatch.setattr(lock, "BEAT", 0.0)
    ours.beat()
    assert time.time() - path.stat().st_mtime < 60
    path.unlink()  # by the user
    ours.beat()
    ours.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 1}', b"\xff\x00", b"null"])
def test_whatever_stands_in_the_file_the_kernel_knows_better(path, content):
    path.write_bytes(content)
    ours = Lock(path)
    assert not ours.held()
    assert ours.acquire() is None
    ours.release()


def contend(path, barrier, answers):
    barrier.wait(60)
    ours = Lock(path)
    answers.put(ours.acquire() is None)
    barrier.wait(60)
    ours.release()


@pytest.mark.whole
def test_of_many_at_once_one_gets_it(path, forkserver):
    for stale in (False, True):
        if stale:
            owned_by(path, pid=2**22, started=1)
        barrier, answers = forkserver.Barrier(5), forkserver.Queue()
        contenders = [
            forkserver.Process(target=contend, args=(path, barrier, answers)) for _ in range(5)
        ]
        for process in contenders:
            process.start()
        assert sorted(answers.get(timeout=60) for _ in range(5)) == [False] * 4 + [True]
        for process in contenders:
            process.join()
    assert not path.exists()


def test_threads_of_one_process_exclude_each_other(path):
    answers = []

    def attempt():
        answers.append(Lock(path).acquire() is None)

    ours = Lock(path)
    assert ours.acquire() is None
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert answers == [False]
    ours.release()


def test_looking_and_taking_at_once_do_not_hinder_each_other(path):
    path.touch()
    with running(LOOK + "print(flush=True)\nwhile True: Lock(path).held()", path) as process:
        process.stdout.readline()
        for _ in range(30):
            ours = Lock(path)
            assert ours.acquire() is None
            ours.release()
            path.touch()
