"""What killed processes have left is removed; what others may still write is not."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from smx_lightning.processes import drafts
from smx_lightning.processes.drafts import Draft
from smx_lightning.processes.files import written_whole

WRITER = """
import sys, time
from smx_lightning.processes.files import written_whole
with written_whole(sys.argv[1]) as draft:
    draft.write_text("half")
    print(draft, flush=True)
    time.sleep(600)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer(tmp_path):
    """A living process that writes tmp_path/other; its draft."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "other")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_drafts_of_killed_processes_are_removed_and_those_of_living_ones_stay(writer, tmp_path):
    process, draft = writer
    with written_whole(tmp_path / "file") as own:
        own.write_text("one")
    assert os.path.exists(draft)  # noqa: PTH110
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(draft)  # noqa: PTH110
    with written_whole(tmp_path / "file") as own:
        own.write_text("two")
    assert names(tmp_path) == ["file"]


def test_a_draft_of_another_thread_stays(tmp_path):
    with written_whole(tmp_path / "slow") as draft:
        draft.write_text("slow")
        with ThreadPoolExecutor(1) as pool, written_whole(tmp_path / "own") as own:
            own.write_text("own")
            pool.submit(_write, tmp_path / "fast", "fast").result()
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["fast", "own", "slow"]


def _write(path, text):
    with written_whole(path) as draft:
        draft.write_text(text)


def test_only_what_is_surely_left_behind_is_removed(tmp_path):
    draft = Draft(tmp_path, 0o666)
    here, random = draft.path.name[5:13], "0123456789abcdef"
    elsewhere = "0" * 8
    assert here != elsewhere
    draft.path.unlink()
    draft.release()
    old = time.time() - drafts.QUIET - 60

    def left(name, age=0.0):
        path = tmp_path / name
        path.write_text("content")
        os.utime(path, (old, old) if age else None)
        return path

    removed = [left(f".smx-{here}-{random}.tmp"), left(f".smx-{elsewhere}-{random}.tmp", age=old)]
    kept = [
        left(f".smx-{elsewhere}-f{random[1:]}.tmp"),  # another machine may be writing it
        left(f".smx-{here}-{random}.tmp.txt", age=old),
        left(f"smx-{here}-{random}.tmp", age=old),
        left(f".smx-{here}-{random[1:]}.tmp", age=old),
        left(f".smx-{here}-{random.upper()}.tmp", age=old),
        left(".model.onnx.0123abcd.tmp", age=old),
    ]
    victim = left("victim")
    link, pipe, folder, at = (tmp_path / f".smx-{here}-{k}{random[1:]}.tmp" for k in "1234")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    folder.mkdir()
    (folder / "content").write_text("mine")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(at))
    kept += [link, pipe, folder, at, victim]
    foreign = left(f".smx-{here}-5{random[1:]}.tmp", age=old)
    if os.geteuid() == 0:  # nobody else can give a file away
        os.chown(foreign, 12345, 12345)
        kept.append(foreign)
    _write(tmp_path / "file", "text")
    assert not any(path.exists() for path in removed)
    assert all(os.path.lexists(path) for path in kept)
    assert victim.read_text() == "content"
    assert (folder / "content").read_text() == "mine"


def test_where_no_locks_are_known_only_old_drafts_are_removed(tmp_path, monkeypatch):
    def unknown(descriptor, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(drafts.fcntl, "flock", unknown)
    draft = Draft(tmp_path, 0o666)
    draft.release()
    _write(tmp_path / "file", "text")
    assert names(tmp_path) == [draft.path.name, "file"]
    old = time.time() - drafts.QUIET - 60
    os.utime(draft.path, (old, old))
    _write(tmp_path / "file", "text")
    assert names(tmp_path) == ["file"]


def test_a_name_that_is_taken_is_not_written_through(tmp_path, monkeypatch):
    """Somebody who could guess the draft's name has planted a link to a victim."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    guesses = iter(["0" * 16, "1" * 16, "2" * 16])
    monkeypatch.setattr(drafts.secrets, "token_hex", lambda size: next(guesses))
    for digit in "01":
        (tmp_path / f".smx-{drafts._tag()}-{digit * 16}.tmp").symlink_to(victim)
    _write(tmp_path / "file", "text")
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("precious", "text")


@pytest.mark.parametrize("paths", [1, 8])
def test_threads_never_meet(tmp_path, paths):
    """Also those that remove what they take for left while others have not locked theirs yet."""
    started = threading.Barrier(8)

    def write(thread):
        started.wait()
        for turn in range(25):
            _write(tmp_path / f"file{thread % paths}", f"{thread} {turn} " + "x" * 5000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert names(tmp_path) == [f"file{k}" for k in range(paths)]
    for path in tmp_path.iterdir():
        thread, turn, content = path.read_text().split()
        assert int(thread) % paths == int(path.name[4:])
        assert (int(turn) if paths == 8 else 24) == 24
        assert content == "x" * 5000


def test_processes_never_meet(tmp_path):
    script = (
        "import sys\nfrom smx_lightning.processes.files import written_whole\n"
        "for turn in range(100):\n"
        "    with written_whole(sys.argv[1]) as draft:\n"
        "        draft.write_text(sys.argv[2] * 5000)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "file"), digit],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for digit in "123"
    ]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    content = (tmp_path / "file").read_text()
    assert content in [digit * 5000 for digit in "123"]
    assert names(tmp_path) == ["file"]
