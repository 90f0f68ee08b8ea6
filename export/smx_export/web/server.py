"""A page on this machine alone: a browser here gets the files of one folder, and nothing else.

A page of somebody else's in the same browser can send requests to any port of this machine, and by
a name of its own that leads here (DNS rebinding) also read the answers. So the ``Host`` that the
browser was told to ask must be this machine's own name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from smx_export.errors import FileError

INDEX = "index.html"
MARKERS = ("model.json", INDEX)  # a folder that holds them is a site
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
THREADS = 32  # at most; a browser opens about six connections
PATIENCE = 10.0  # seconds that a connection may be silent
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
POLICY = (  # that of page/index.html, and what only a header can say
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {  # of every answer
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder on this machine alone while the context lasts; gives the URL.

    Args:
        folder: What to serve. Links in it that lead out of it are not followed.
        port: A free one by default.

    Raises:
        FileError: Where the folder is no site, or the port is taken.
    """
    if not all((Path(folder) / name).is_file() for name in MARKERS):
        raise FileError(f"expected a page at {folder}, found none; write one with smx-export web")
    try:
        server = _Server(folder, port)
    except (OSError, OverflowError) as error:
        raise FileError(
            f"expected port {port} to be free, got: {error}; choose another, or 0 for any"
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A thread a connection, but not more than ``THREADS``."""

    daemon_threads = True
    request_queue_size = THREADS

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._free = BoundedSemaphore(THREADS)
        super().__init__(("127.0.0.1", port), _Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in LOOPBACK}
        if self.server_port == 80:
            self.hosts |= set(LOOPBACK)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or say at once that all are busy."""
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a browser that leaves early is no error, and reports what it misses."""


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of files, with the types that browsers insist on; nothing is logged."""

    server: _Server
    server_version, sys_version = "smx-export", ""
    timeout = PATIENCE
    error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN, "Expected a Host of this machine")
            return
        names = _names(self.path)
        if names is None:
            self.send_error(HTTPStatus.BAD_REQUEST, "Expected a plain path")
            return
        path = self.server.folder.joinpath(*names)
        # Unlike Path.is_dir it does not raise on names that are too long.
        if names[-1] and _is_within(path, self.server.folder) and os.path.isdir(path):  # noqa: PTH112
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)  # paths in the page are relative
            self.send_header("Location", f"/{quote('/'.join(names))}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path = path if names[-1] else path / INDEX
        content = _content(path) if _is_within(path, self.server.folder) else None
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse  # noqa: N815 (http.server's)

    def end_headers(self) -> None:
        """With those of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Print nothing."""


def _names(target: str) -> list[str] | None:
    """The names in a request's path, the last of them empty for a folder's; ``None`` of odd ones.

    Odd is what no page asks for, and what file systems read in ways of their own: dots alone, empty
    names, backslashes, slashes and control characters in a name, bytes that are no UTF-8.
    """
    path = target.partition("?")[0]
    if not path.startswith("/") or not path.isascii():
        return None
    try:
        names = [unquote_to_bytes(name).decode("utf-8") for name in path[1:].split("/")]
    except UnicodeDecodeError:
        return None
    odd = any(not name or name.strip(".") == "" for name in names[:-1]) or (
        names[-1] != "" and names[-1].strip(".") == ""
    )
    text = "".join(names)
    return None if odd or not text.isprintable() or "\\" in text or "/" in text else names


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path stays in a folder, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


def _content(path: Path) -> bytes | None:
    """Of a regular file; ``None`` of anything else, and nothing is waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
