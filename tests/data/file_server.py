"""An HTTP server on the loopback that misbehaves as it is told, one request after the other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUOTA_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>"
    b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. '
    b"Please try accessing the file again later.</p></body></html>"
)
WARNING_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    b'<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t">'
    b"</form></body></html>"
)


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's script says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server: FileServer = self.server.owner
        path = self.path.partition("?")[0]
        server.asked.append((path, self.headers.get("Range"), self.headers.get("If-Range")))
        steps = server.script.get(path, [missing])
        (steps.pop(0) if len(steps) > 1 else steps[0])(self)

    def log_message(self, *_):
        pass

    def answer(self, status: int, content: bytes, length: int | None = None, **headers: str):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


class Http(ThreadingHTTPServer):
    """Clients that hang up are no news."""

    daemon_threads = True
    owner: "FileServer"

    def handle_error(self, *_):
        pass


Step = Callable[[Handler], None]


@dataclass
class FileServer:
    """What it is told to do, and what it was asked for."""

    url: str
    script: dict[str, list[Step]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """set at the end: who stalls, stops"""

    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.asked]


@contextmanager
def serving() -> Iterator[FileServer]:
    http = Http(("127.0.0.1", 0), Handler)
    server = http.owner = FileServer(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        thread.join(timeout=10)
        http.server_close()


def whole(content: bytes, tag: str = '"1"', **headers: str) -> Step:
    """The file, or the part of it that is asked for, if it is still the same."""

    def step(handler: Handler) -> None:
        begin = handler.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
        if not begin or handler.headers.get("If-Range", tag) != tag:
            handler.answer(200, content, ETag=tag, **headers)
            return
        start, end = int(begin), len(content)
        extent = f"bytes {start}-{end - 1}/{end}"
        handler.answer(206, content[start:], ETag=tag, Content_Range=extent, **headers)

    return step


def cut(content: bytes, after: int, tag: str = '"1"') -> Step:
    """The head of the file, and the connection is gone."""
    return lambda handler: handler.answer(200, content[:after], len(content), ETag=tag)


def stalling(content: bytes, after: int, tag: str = '"1"') -> Step:
    """The head of the file, and no more."""

    def step(handler: Handler) -> None:
        handler.answer(200, content[:after], len(content), ETag=tag)
        handler.wfile.flush()
        handler.server.owner.released.wait(20)

    return step


def status(code: int, **headers: str) -> Step:
    """An error."""
    return lambda handler: handler.answer(code, b"no", **headers)


def page(content: bytes) -> Step:
    """A page, as if it were the file."""
    kind = "text/html; charset=utf-8"
    return lambda handler: handler.answer(200, content, ETag='"p"', Content_Type=kind)


missing = status(404)
