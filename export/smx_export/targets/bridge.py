"""An HTTP server on 127.0.0.1 through which Python asks a JavaScript worker one thing at a time.

The worker posts its last answer and the reply is its next question, which may take a while to come:
an empty reply after ``POLL`` seconds says ask again, because fetch gives up on a silent server.
A message is one line of JSON, then raw bytes.

Traps: a browser opens connections that it does not use yet, so the server needs threads, and they
must be daemons, or Python waits for them at its end, before anything can end the browser. A path is
a key of ``files``, never a place on the disk.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

POLL = 20.0  # seconds; the fetch of node and of Chromium gives up after 300
MIME = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Bridge(ThreadingHTTPServer):
    """Serves within a ``with`` block.

    Args:
        files: What may be fetched, by path.

    Attributes:
        url: The worker posts here.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.questions: Queue[bytes] = Queue()
        self.answers: Queue[bytes] = Queue()
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> Bridge:
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.questions.put(b"")  # lets go the thread that waits for one
        self.shutdown()
        self.server_close()

    def ask(self, question: Mapping[str, Any], data: bytes) -> None:
        """Hand the worker its next question."""
        self.questions.put(json.dumps(question).encode() + b"\n" + data)

    def answer(self, seconds: float) -> tuple[dict[str, Any], bytes] | None:
        """The worker's answer and its bytes, or ``None`` where it takes longer."""
        with contextlib.suppress(Empty):
            head, _, data = self.answers.get(timeout=seconds).partition(b"\n")
            return json.loads(head), data
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a process that ends breaks its connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection
    server: Bridge

    def do_GET(self) -> None:
        path = self.server.files.get(self.path)
        if path is None:
            self._reply(404, b"", "text/plain")
        else:
            self._reply(200, path.read_bytes(), MIME[path.suffix])

    def do_POST(self) -> None:
        answer = self.rfile.read(int(self.headers["Content-Length"]))
        if answer:
            self.server.answers.put(answer)
        try:
            question = self.server.questions.get(timeout=POLL)
        except Empty:
            question = b""
        self._reply(200, question, "application/octet-stream")

    def _reply(self, status: int, body: bytes, mime: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", mime)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        """Say nothing."""
