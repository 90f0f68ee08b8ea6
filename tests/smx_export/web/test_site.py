"""What smx-export web replaces, and what is there when it is killed half-way."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from smx_export import FileError
from smx_export.web import site
from smx_export.web.manifest import MANIFEST
from smx_export.web.site import write_site

NAMES = ("app.js", "index.html", "model.json", "model.onnx")
STEPS = {"open", "os.chmod", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
STEPS |= {"os.scandir", "shutil.rmtree"}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Pages of a few bytes, which name their version: ``sidecar`` is that."""

    def contents(model, sidecar):
        return {name: f"{name} of {sidecar}".encode() for name in NAMES}

    monkeypatch.setattr(site, "_contents", contents)


def written(version, folder):
    return write_site("model", version, folder)


def version_in(folder):
    """The version of a page that is whole and nothing else, held against its manifest by hand."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    listed = json.loads(found.pop(MANIFEST))["sha256"]
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    assert sorted(found) == sorted(NAMES)
    (version,) = {content.decode().partition(" of ")[2] for content in found.values()}
    return version


def everything(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path)] = (kind, content)
    return found


def test_pages_follow_each_other(tmp_path):
    folder = tmp_path / "deep" / "page"
    for version in "abc":
        done = written(version, folder)
        assert version_in(folder) == version
        assert done.sizes == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["page"]


@pytest.mark.parametrize("given", [".", "", "../here"])
def test_the_current_folder_is_refused(tmp_path, monkeypatch, given):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileError, match="another folder than the current one"):
        written("a", given)
    written("a", "below")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["below"]
    assert version_in(tmp_path / "here" / "below") == "a"


def test_an_empty_folder_and_a_link_are_taken_with_their_permissions(tmp_path):
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("real")
    for version in "ab":
        written(version, tmp_path / "link")
        assert version_in(tmp_path / "real") == version
        assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "link").is_symlink()
    before = os.umask(0o027)
    try:
        written("a", tmp_path / "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750
    assert ((tmp_path / "new") / "index.html").stat().st_mode & 0o777 == 0o640


# What is not ours -----------------------------------------------------------------------------


def of_tensorflow(folder):
    folder.mkdir()
    (folder / "index.html").write_text("<script src=tf.js></script>")
    (folder / "model.json").write_text('{"format": "layers-model"}')
    (folder / "group1-shard1of1.bin").write_bytes(b"weights")


def of_tensorflow_with_our_names_alone(folder):
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text("mine")


def page(change):
    def make(folder):
        written("a", folder)
        change(folder)

    return make


def manifest(text):
    return page(lambda folder: (folder / MANIFEST).write_text(text))


def replaced_by_a_link(folder):
    (folder / "app.js").rename(folder.parent / "app.js")
    (folder / "app.js").symlink_to("../app.js")


def replaced_by_a_folder(folder):
    (folder / "app.js").unlink()
    (folder / "app.js").mkdir()
    (folder / "app.js" / "mine").write_text("mine")


def replaced_by_a_pipe(folder):
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def a_folder_beside(folder):
    (folder / "images").mkdir()
    (folder / "images" / "mine.png").write_text("mine")


def a_manifest_that_lists_what_is_outside(folder):
    (folder.parent / "mine.txt").write_text("mine")
    listed = json.loads((folder / MANIFEST).read_text())
    listed["sha256"]["../mine.txt"] = hashlib.sha256(b"mine").hexdigest()
    (folder / MANIFEST).write_text(json.dumps(listed))
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of_tensorflow, "expected an empty folder or an earlier page"),
        (of_tensorflow_with_our_names_alone, "expected an empty folder or an earlier page"),
        (page(lambda f: (f / MANIFEST).unlink()), "expected an empty folder or an earlier page"),
        *[
            (manifest(text), "expected an empty folder or an earlier page")
            for text in ("", "{", "[]", '{"sha256": []}', '{"sha256": {"app.js": 1}}', "1" * 5000)
        ],
        (manifest("[" * 100_000), "expected an empty folder or an earlier page"),
        (manifest(" " * (1 << 20) + "{}"), "expected an empty folder or an earlier page"),
        (manifest('{"sha256": {}}'), "got also app.js, index.html, model.json, model.onnx"),
        (page(lambda f: (f / "notes.txt").write_text("mine")), r"got also notes\.txt"),
        (page(lambda f: (f / ".htaccess").write_text("mine")), r"got also \.htaccess"),
        (page(a_folder_beside), "got also images"),
        (page(lambda f: (f / "index.html").write_text("mine")), r"got another index\.html"),
        (page(lambda f: (f / "model.json").write_text("{}")), r"got another model\.json"),
        (page(replaced_by_a_link), r"got another app\.js"),
        (page(replaced_by_a_folder), r"got another app\.js"),
        (page(replaced_by_a_pipe), r"got another model\.onnx"),
        (page(a_manifest_that_lists_what_is_outside), r"got also notes\.txt"),
        (lambda folder: folder.write_text("mine"), "expected a folder to write to, got the file"),
        (os.mkfifo, "expected a folder to write to, got the file"),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_refused_and_stays(tmp_path, make, said):
    folder = tmp_path / "page"
    make(folder)
    before = everything(tmp_path)
    with pytest.raises(FileError, match=said):
        written("b", folder)
    assert everything(tmp_path) == before


def test_what_is_missing_of_an_earlier_page_is_no_loss(tmp_path):
    written("a", tmp_path / "page")
    (tmp_path / "page" / "app.js").unlink()
    written("b", tmp_path / "page")
    assert version_in(tmp_path / "page") == "b"


@pytest.mark.parametrize("known", [True, False])
def test_what_is_put_there_at_the_last_moment_comes_back(tmp_path, monkeypatch, known):
    folder = tmp_path / "page"
    written("a", folder)
    exchange, late_by = site._exchanged, iter([1])

    def late(one, other):
        for _ in late_by:
            (folder / "notes.txt").write_text("mine")
        return exchange(one, other) if known else errno.ENOSYS

    monkeypatch.setattr(site, "_exchanged", late)
    with pytest.raises(FileError, match=r"got also notes\.txt"):
        written("b", folder)
    assert (folder / "index.html").read_text() == "index.html of a"
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_where_the_system_cannot_exchange_folders(tmp_path, monkeypatch, code):
    monkeypatch.setattr(site, "_exchanged", lambda one, other: code)
    for version in "abc":
        written(version, tmp_path / "page")
        assert version_in(tmp_path / "page") == version
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_disk_that_fails_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    written("a", tmp_path / "page")
    monkeypatch.setattr(site, "_exchanged", lambda one, other: errno.EIO)
    with pytest.raises(FileError, match="got: Input/output error; choose a folder"):
        written("b", tmp_path / "page")
    assert version_in(tmp_path / "page") == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


# Killed half-way ------------------------------------------------------------------------------


def child(job):
    """Run a job in a process of its own, which ends with it; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            job()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def killed_at(step, job):
    """Let a job's process end before its ``step``-th call to the disk; whether there was none."""

    def job_until():
        left = step

        def hook(event, args):
            nonlocal left
            if event in STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        job()

    _, status = os.waitpid(child(job_until), 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


@pytest.mark.parametrize("earlier", [True, False])
def test_killed_at_any_step_it_leaves_the_old_page_or_the_new(tmp_path, monkeypatch, earlier):
    """Every call that opens, makes, moves or removes; and the next page is written all the same."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # of power cuts, and slow
    folder, seen = tmp_path / "page", []
    for step in range(1, 400):
        if earlier:
            written("old", folder)
        elif folder.exists():
            shutil.rmtree(folder)
        written("beside", tmp_path / "other")  # removes what the one before has left
        assert {path.name for path in tmp_path.iterdir()} <= {"page", "other"}
        done = killed_at(step, lambda: written("new", folder))
        seen.append(version_in(folder) if folder.exists() else "none")
        if done:
            break
    before = "old" if earlier else "none"
    assert set(seen) == {before, "new"}
    # At one moment, and for good.
    assert seen == sorted(seen, key=[before, "new"].index)
    assert len(seen) > 10


def test_killed_at_any_time_it_leaves_the_old_page_or_the_new(tmp_path):
    folder, delays = tmp_path / "page", random.Random(0)

    def for_ever():
        while True:
            for version in "ab":
                written(version, folder)

    written("a", folder)
    for _ in range(12):
        pid = child(for_ever)
        time.sleep(delays.uniform(0.01, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert version_in(folder) in "ab"
    written("c", folder)
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_threads_that_write_one_page_do_not_meet(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: written(str(k), tmp_path / "page"), range(40)))
    assert int(version_in(tmp_path / "page")) in range(40)
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_page_that_is_looked_at_before_it_goes_is_nobody_elses_to_remove(tmp_path, monkeypatch):
    """It has a draft's name then; another writer beside it sweeps what killed ones have left."""
    check = site.check_replaceable
    written("old", tmp_path / "page")
    (tmp_path / "seen").mkdir()

    def swept_meanwhile(folder, named=None):
        if named == tmp_path / "page":
            monkeypatch.setattr(site, "check_replaceable", check)
            written("beside", tmp_path / "other")
            (tmp_path / "seen" / version_in(folder)).touch()
        check(folder, named)

    monkeypatch.setattr(site, "check_replaceable", swept_meanwhile)
    written("new", tmp_path / "page")
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["old"]
    assert version_in(tmp_path / "page") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "page", "seen"]
