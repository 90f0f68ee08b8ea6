"""Files that are whole or absent, wherever a name leads: links, devices, other people's files."""

import contextlib
import itertools
import os
import socket
import stat
import subprocess
import sys

import pytest

from smx_lightning import InputError
from smx_lightning.processes.files import check_writable, written_whole

WRITE = """
import sys
from smx_lightning.processes.files import written_whole
with written_whole(sys.argv[1]) as draft:
    draft.write_text("new")
"""


def write(path, text="new"):
    with written_whole(path) as draft:
        draft.write_text(text)


def written_alone(path, **options):
    """The same by a process of its own; what came of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITE, path]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def everything(folder):
    """Kind, permissions, and content or target of all names below."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)  # noqa: PTH115
        found[str(path)] = (status.st_mode, status.st_rdev, content)
    return found


@contextlib.contextmanager
def mask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# Links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "links",
    [
        {"a": "target"},
        {"a": "b", "b": "c", "c": "target"},
        {"a": "deep/../b", "b": "./target"},
        {"a": "{here}/deep/b", "deep/b": "../target"},
        {"folder": "deep", "deep/b": "../target", "a": "folder/b"},
        {"a": "folder/../target", "folder": "deep/deeper"},
    ],
    ids=str,
)
def test_links_stay_and_their_target_is_written(tmp_path, links, exists):
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    for name, target in links.items():
        (tmp_path / name).symlink_to(target.format(here=tmp_path))
    # Where the last link leads, by the system's own word: what it opens is what must be replaced.
    if exists:
        (tmp_path / "a").write_text("old")
    before = everything(tmp_path)
    write(tmp_path / "a")
    after = everything(tmp_path)
    assert (tmp_path / "a").read_text() == "new"
    (changed,) = [path for path in after if after[path] != before.get(path)]
    assert after[changed][2] == b"new"
    kept = {path: found for path, found in before.items() if path != changed}
    assert kept == {path: found for path, found in after.items() if path != changed}


def test_links_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("absent/file")
    before = everything(tmp_path)
    with pytest.raises(InputError, match=r"expected .* to write"):
        write(tmp_path / "a")
    with pytest.raises(InputError, match=r"c, got: No such file or directory; choose a folder"):
        write(tmp_path / "c")
    assert everything(tmp_path) == before


# Permissions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("earlier", [0o600, 0o640, 0o644, 0o664, 0o444, 0o755, 0o4755, 0o604])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_kept(tmp_path, earlier, umask):
    path = tmp_path / "file"
    path.touch()
    path.chmod(earlier)
    (tmp_path / "link").symlink_to("file")
    with mask(umask):
        for name in ("file", "link"):
            with written_whole(tmp_path / name) as draft:
                assert stat.S_IMODE(draft.stat().st_mode) & 0o077 == 0  # nobody else reads along
                draft.write_text(name)
            assert stat.S_IMODE(path.stat().st_mode) == earlier & 0o777
            assert path.read_text() == name


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_a_new_file_has_the_permissions_of_any(tmp_path, umask):
    with mask(umask):
        write(tmp_path / "file")
        (tmp_path / "other").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "other")}
    assert modes == {0o666 & ~umask}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_root_leaves_a_file_to_its_owner(tmp_path, mode):
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    os.chown(path, 12345, 23456)
    write(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, mode)


def test_rights_of_a_group_are_not_handed_to_another(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o664)
    own = path.stat()

    def refused(descriptor, owner, group):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664  # its group is the same
    fstat = os.fstat

    def of_another_group(descriptor):
        values = list(fstat(descriptor))
        values[5] = own.st_gid + 1
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", of_another_group)
    monkeypatch.setattr(os.path, "samestat", lambda one, other: True)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


# What is no regular file ----------------------------------------------------------------------


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(kind, major, minor):
    def make(path):
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
        except PermissionError:  # not root: the system's own, which nobody but root could replace
            path.symlink_to("/dev/null")

    return make


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    "make", [fifo, unix_socket, device(stat.S_IFCHR, 1, 3), device(stat.S_IFBLK, 7, 250)]
)
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, make, linked):
    path = tmp_path / "special"
    make(path)
    if linked:
        (tmp_path / "link").symlink_to("special")
        path = tmp_path / "link"
    before = everything(tmp_path)
    for attempt in (write, check_writable):
        with pytest.raises(InputError, match=r"(special|link), which is no regular file; choose"):
            attempt(path)
    assert everything(tmp_path) == before


def test_what_takes_the_place_of_a_file_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "file"

    def disturbed():
        with written_whole(path) as draft:
            draft.write_text("new")
            os.mkfifo(path)

    with pytest.raises(InputError, match="file, which is no regular file"):
        disturbed()
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.is_fifo()


def test_what_takes_the_place_of_the_draft_is_not_moved(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def disturbed():
        with written_whole(tmp_path / "file") as draft:
            draft.unlink()
            draft.symlink_to(victim)

    with pytest.raises(InputError, match="its draft is gone"):
        disturbed()
    assert everything(tmp_path).keys() == {str(victim)}
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["/proc/self/fd/1", "/dev/fd/1", "stdout", "further"])
@pytest.mark.parametrize("onto", ["pipe", "file", "appended"])
def test_standard_output_is_refused_whatever_it_is(tmp_path, name, onto):
    """/dev/stdout is such a link; it is tried where it could not be lost."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "further").symlink_to("stdout")
    log = tmp_path / "log"
    log.write_text("what was printed before\n")
    given = name if name.startswith("/") else str(tmp_path / name)
    with log.open("w" if onto == "file" else "a") as file:
        before = everything(tmp_path)
        done = written_alone(given, stdout=subprocess.PIPE if onto == "pipe" else file)
    assert done.returncode == 1
    assert f"InputError: expected a file name to write to, got {given}, which is no" in done.stderr
    assert everything(tmp_path) == before


def test_the_names_of_devices_are_refused_before_anything_is_made():
    for name in ("/dev/null", "/dev/fd/2", "/proc/self/fd/0"):
        with pytest.raises(InputError, match=f"got {name}, which is no regular file"):
            check_writable(name)


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [*range(240, 256), 1])
def test_names_of_any_length(tmp_path, length):
    for suffix in {"", ".onnx"[: max(0, length - 1)]}:
        path = tmp_path / (("x" * length)[len(suffix) :] + suffix)
        write(path)
        assert path.read_text() == "new"
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_utf_8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/f\xf6lder \xff\n"
    os.mkdir(folder)  # noqa: PTH102
    for name in (b"m\xfcnchen", b"\xff" * 255, "\u00fc".encode() * 127, b"new\nline\x1b[31m"):
        write(os.fsdecode(folder + b"/" + name))
        with open(folder + b"/" + name) as file:  # noqa: PTH123
            assert file.read() == "new"
    assert len(os.listdir(folder)) == 4  # noqa: PTH208


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800", "a/\udfff\ud800"])
def test_names_that_no_system_has(tmp_path, name):
    for attempt in (write, check_writable):
        with pytest.raises(InputError, match="expected a file name to write to, got '"):
            attempt(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


# Interruptions --------------------------------------------------------------------------------


def calls_that_fail(monkeypatch, number):
    """Let the ``number``-th call to the system fail; the calls that were made."""
    made = []

    def failing(name, inner):
        def call(*args, **kwargs):
            made.append(name)
            if len(made) == number:
                raise OSError(5, "Input/output error")
            return inner(*args, **kwargs)

        return call

    # Of those after which a file could be lost; closing and unlinking is cleaning up.
    for name in ("open", "fsync", "fchown", "fchmod", "replace", "lstat", "fstat"):
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    return made


def test_whichever_call_fails_the_file_is_the_old_or_the_new(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", set()
    for number in itertools.count(1):
        path.write_text("old")
        with monkeypatch.context() as patch:
            made = calls_that_fail(patch, number)
            try:
                write(path)
                said = None
            except InputError as error:
                said = str(error)
        assert said is None or "Input/output error" in said
        assert path.read_text() in ({"old"} if said else {"new"}), (number, made)
        assert [found.name for found in tmp_path.iterdir()] == ["file"], (number, made)
        seen.update(made[number - 1 : number])
        if len(made) < number:
            break
    assert seen >= {"open", "fsync", "replace", "fchmod"}


ELSEWHERE = [FileNotFoundError(2, "none", "another"), BrokenPipeError(32, "")]


@pytest.mark.parametrize("error", ELSEWHERE)
def test_what_goes_wrong_elsewhere_is_not_said_of_the_file(tmp_path, error):
    with pytest.raises(type(error)) as caught, written_whole(tmp_path / "out"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_of_the_file(tmp_path):
    with (
        pytest.raises(InputError, match=r"expected to write .*out, got: no room"),
        written_whole(tmp_path / "out"),
    ):
        raise OSError(28, "no room")


@pytest.mark.parametrize("given", ["new/", "new//", "./new/"])
def test_the_name_of_a_folder_is_no_file_s(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"got the folder .*; add a name"), written_whole(given):
        pytest.fail("was reached")
    assert list(tmp_path.iterdir()) == []
