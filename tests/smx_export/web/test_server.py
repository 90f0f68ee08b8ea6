"""What the page's server answers, and to whom: asked as an attacker would, byte by byte."""

import os
import re
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from smx_export import FileError
from smx_export.web import server
from smx_export.web.server import HEADERS, POLICY, serve
from smx_export.web.site import PAGE

PAGE_TEXT, SECRET = b"<p>the page</p>", b"the secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with files, folders, links and a pipe in it, and a secret beside it."""
    root = tmp_path_factory.mktemp("served")
    folder = root / "page"
    for path in (folder, folder / "inner", folder / "bare"):
        path.mkdir()
    for path in (folder, folder / "inner"):
        (path / "index.html").write_bytes(PAGE_TEXT)
    (folder / "model.json").write_bytes(b"{}")
    for name in ("app.js", "a b.mjs", "x.wasm", "x.css", "x.svg", "model.onnx", "plain", "ü.js"):
        (folder / name).write_bytes(PAGE_TEXT)
    (folder / "bare" / "hidden-name.txt").write_bytes(SECRET)
    (root / "secret").mkdir()
    (root / "secret" / "index.html").write_bytes(SECRET)
    (root / "pageant").write_bytes(SECRET)  # a name that begins as the folder's does
    (folder / "out.txt").symlink_to(root / "secret" / "index.html")
    (folder / "ant").symlink_to("../pageant")
    (folder / "outer").symlink_to(root / "secret")
    (folder / "deep").symlink_to("inner")
    (folder / "in.js").symlink_to("app.js")
    (folder / "loop").symlink_to("loop")
    (folder / "devices").symlink_to("/dev")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="module")
def port(folder):
    with serve(folder) as url:
        yield urlsplit(url).port


def talk(port, request, patience=20):
    """What the server answers to some bytes: (status, headers, body); status 0 for nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(request)
        answer = b""
        while received := connection.recv(1 << 16):
            answer += received
    if not answer.startswith(b"HTTP/"):
        return 0, {}, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [line.partition(": ")[::2] for line in lines]
    assert len(dict(headers)) == len(headers)
    return int(status.split()[1]), dict(headers), body


def get(port, path, host=None, method="GET", more=""):
    host = f"127.0.0.1:{port}" if host is None else host
    return talk(port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode("latin-1"))


@pytest.mark.parametrize(
    "host", ["localhost:{}", "LocalHost:{}", "127.0.0.1:{}", "[::1]:{}", "  localhost:{}  "]
)
def test_this_machine_s_own_names_are_answered(port, host):
    assert get(port, "/", host.format(port))[::2] == (200, PAGE_TEXT)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{}", "evil.example", "localhost", "127.0.0.1", "localhost:1", "127.0.0.1:80",
        "localhost.evil.example:{}", "127.0.0.1.nip.io:{}", "evil.localhost:{}", "localhost.:{}",
        "user@localhost:{}", "localhost:{}@evil.example", "evil.example, localhost:{}", "",
        "0.0.0.0:{}", "127.0.0.2:{}", "::1:{}", "[::]:{}", "2130706433:{}", " ", "localhost:0{}",
        "\xff:{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/absent", "/%00"])
def test_other_names_of_this_machine_are_refused(port, host, path):
    """As a page of evil.example would ask, whose name leads to 127.0.0.1 meanwhile."""
    status, _, body = get(port, path, host.format(port))
    assert (status, PAGE_TEXT in body) == (403, False)


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost:{}\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost:{}\r\n\r\n",
        "GET / HTTP/1.1\r\nX-Forwarded-Host: localhost:{}\r\nHost: evil.example\r\n\r\n",
        "GET /\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_requests_without_one_host_are_refused(port, request_):
    status, _, body = talk(port, request_.format(port).encode())
    assert PAGE_TEXT not in body
    assert status == 403 or body.startswith(b"403 ")  # HTTP/0.9 has no status


FILES = {
    "/": "text/html; charset=utf-8",
    "/index.html": "text/html; charset=utf-8",
    "/?query=1": "text/html; charset=utf-8",
    "/inner/": "text/html; charset=utf-8",
    "/deep/index.html": "text/html; charset=utf-8",
    "/app.js": "text/javascript; charset=utf-8",
    "/in.js": "text/javascript; charset=utf-8",
    "/a%20b.mjs": "text/javascript; charset=utf-8",
    "/%C3%BC.js": "text/javascript; charset=utf-8",
    "/x.wasm": "application/wasm",
    "/x.css": "text/css; charset=utf-8",
    "/x.svg": "image/svg+xml",
    "/model.onnx": "application/octet-stream",
    "/plain": "application/octet-stream",
}


@pytest.mark.parametrize("path", FILES)
def test_files_are_answered_with_their_types(port, path):
    status, headers, body = get(port, path)
    assert (status, body, headers["Content-Type"]) == (200, PAGE_TEXT, FILES[path])
    status, head, body = get(port, path, method="HEAD")
    assert (status, body) == (200, b"")
    assert head["Content-Length"] == headers["Content-Length"] == str(len(PAGE_TEXT))


ODD = [
    "/%00", "/index.html%00", "/index.html%00.js", "/a\x00b", "/%0d%0aSet-Cookie:x", "/%7f", "/%1b",
    "/../secret/index.html", "/inner/../index.html", "/%2e%2e/secret/index.html", "/.", "/./",
    "/..%2fsecret/index.html", "/inner%2findex.html", "/..\\secret", "/..%5csecret", "/a%5cb",
    "/inner//index.html", "/%ff", "/%c3", "/\xfc.js", "/%ed%a0%80", "/...", "/.../index.html",
    "index.html", "*", "http://localhost/index.html", "http://evil.example/", "/%e2%80%ae",
    "/\x7f", "/\x1bindex.html",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_odd_paths_are_refused(port, path, method):
    status, _, body = get(port, path, method=method)
    assert status == 400
    assert PAGE_TEXT not in body
    assert SECRET not in body


@pytest.mark.parametrize(
    "path",
    [
        "/out.txt", "/ant", "/outer", "/outer/", "/outer/index.html", "/devices/null", "/loop",
        "/bare/", "/pipe", "/absent", "/absent/", "/index.html/", "/inner/absent", "/%2500",
        "/%zz", "/" + 300 * "x", "/" + 5000 * "x/", "/index.html;x", "/C:/index.html", "/~root/",
    ],
)  # fmt: skip
def test_nothing_else_is_answered(port, path):
    """No listing, nothing outside the folder, no pipe, and none is waited for."""
    status, _, body = get(port, path)
    assert (status, body) == (404, b"404 Not Found\n")


@pytest.mark.parametrize(
    ("path", "to"),
    [("/inner", "/inner/"), ("/deep", "/deep/"), ("/inner?x=1", "/inner/"), ("/bare", "/bare/")],
)
def test_a_folder_s_page_has_a_slash(port, path, to):
    status, headers, body = get(port, path)
    assert (status, headers["Location"], body) == (301, to, b"")


@pytest.mark.parametrize(
    "path", ["//evil.example", "//evil.example/inner", "//inner", "//inner/.."]
)
def test_nobody_is_sent_elsewhere(port, path):
    status, headers, _ = get(port, path)
    assert status in (400, 404) or headers["Location"] == "/inner/"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(port, method):
    status, _, body = get(port, "/", method=method, more="Content-Length: 0\r\n")
    assert (status, body) == (405, b"405 Method Not Allowed\n")


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "__init__", "G\xcbT"])
def test_methods_of_no_page_are_refused(port, method):
    status, _, body = get(port, "/", method=method)
    assert status in (400, 501)
    assert PAGE_TEXT not in body


@pytest.mark.parametrize(
    ("path", "host", "method"),
    [
        ("/", None, "GET"), ("/", None, "HEAD"), ("/absent", None, "GET"), ("/%00", None, "GET"),
        ("/", "evil.example", "GET"), ("/inner", None, "GET"), ("/", None, "POST"),
        ("/", None, "TRACE"), ("/<script>alert(1)</script>", None, "GET"),
    ],
)  # fmt: skip
def test_every_answer_says_what_a_browser_may_do(port, path, host, method):
    _, headers, body = get(port, path, host, method)
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"<script>" not in body
    assert headers.get("Content-Type", "").startswith("text/") or not body


def test_the_policy_is_the_page_s_own():
    """With what only a header can say; in a browser all pages of test_web.py run under it."""
    (own,) = re.findall(r'Policy" content="([^"]+)"', (PAGE / "index.html").read_text())
    assert f"{own}; frame-ancestors 'none'" == POLICY
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert not re.search(r"'unsafe-(inline|eval)'|\*|https?:|data:", POLICY)


def busy_threads(before):
    return [thread for thread in threading.enumerate() if thread not in before]


def test_so_many_connections_and_no_more(folder):
    """Those that say nothing hold a thread each; the next are told so, and later ones answered."""
    before = threading.enumerate()
    with serve(folder) as url, ExitStack() as stack:
        port = urlsplit(url).port
        for _ in range(server.THREADS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        until = time.monotonic() + 20
        while len(busy_threads(before)) < server.THREADS + 1 and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                assert connection.recv(100).startswith(b"HTTP/1.0 503 ")
        assert len(busy_threads(before)) == server.THREADS + 1  # and the one that accepts
        stack.close()
        while len(busy_threads(before)) > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert get(port, "/")[0] == 200


def test_silent_connections_are_closed(folder, monkeypatch):
    monkeypatch.setattr(server._Handler, "timeout", 0.2)
    with serve(folder) as url:
        port = urlsplit(url).port
        for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: "):
            assert talk(port, said)[::2] == (0, b"")


def test_where_there_is_no_page_or_no_port(folder, tmp_path):
    with pytest.raises(FileError, match="expected a page at"), serve(tmp_path):
        pass
    with serve(folder) as url:
        port = urlsplit(url).port
        with pytest.raises(FileError, match=f"expected port {port} to be free"):
            serve(folder, port).__enter__()
    with pytest.raises(FileError, match="expected port 70000 to be free"):
        serve(folder, 70000).__enter__()


def test_only_this_machine_is_listened_to(port):
    listening = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if local.endswith(f":{port:04X}") and state == "0A":
                listening.append(local)
    assert listening == [f"0100007F:{port:04X}"]
