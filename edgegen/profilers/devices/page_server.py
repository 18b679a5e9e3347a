"""The web server of the page that measures: for this machine only by default, and for the one page with the token.

    GET  /, /page.js, ...  the page, and /ort/NAME, onnxruntime-web: the same for everybody, nothing of the user's
    POST /open             with the token: this page measures, any further one is refused; answers the key
    GET  /next             the commands for page.js that are due, as a list; waits for some seconds
    POST /said/WORKER      a line that a Web Worker answers; /ended/WORKER why it ended; /bye the page closes
    GET  /file/NAME        what is measured, and its inputs; POST /file/NAME an output that is expected

All from /next on needs the key. The files that are served are listed: no part of an address is ever used as a path.
"""

import functools
import json
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.page import Page

HERE = Path(__file__).parents[1] / "runners"
STATIC = {f"/{name}": HERE / name for name in ("page.js", "page.css", "page_worker.js")} | {"/": HERE / "page.html"}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".wasm": "application/wasm"}
SCRIPT = {".js": "text/javascript", ".mjs": "text/javascript"}
LINE_LIMIT, FILE_LIMIT = 1 << 20, 256 << 20  # bytes of an answer, of an output
IDLE_S = 60.0  # until a connection on which nothing comes is closed
HEADERS = {
    # Both together: threads, and a clock of 5 us in place of 100 us.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer:
    """Serves while it is open (a context manager).

    The page may read `files`, by name, and write each of `outputs` once. `lan` serves all of this machine's networks.
    Raises UsageError for a port that is taken.
    """

    def __init__(self, runtime: Mapping[str, Path], *, lan: bool = False, port: int = 0) -> None:
        self.page, self.lan = Page(), lan
        self.files: dict[str, Path] = {}
        self.outputs: dict[str, bytes | None] = {}
        self.static = STATIC | {f"/ort/{name}": path for name, path in runtime.items()}
        handler = functools.partial(_Handler, self)
        try:
            self._http = ThreadingHTTPServer(("0.0.0.0" if lan else "127.0.0.1", port), handler)
        except (OSError, OverflowError) as e:
            raise UsageError(f"port {port} cannot be had: {getattr(e, 'strerror', None) or e}; give another") from e
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What a browser opens, the token in it."""
        return f"http://{lan_address() if self.lan else 'localhost'}:{self.port}/#{self.page.token}"

    def knows(self, host: str) -> bool:
        """Whether a request is for this server: another site's name may point to it. Ports may be forwarded."""
        return self.lan or host.partition(":")[0] in ("localhost", "127.0.0.1")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> "PageServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _HttpError(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgegen", ""
    timeout = IDLE_S

    def __init__(self, server: PageServer, *connection: Any) -> None:
        self.page_server = server
        super().__init__(*connection)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, action: Any) -> None:
        try:
            if not self.page_server.knows(self.headers.get("Host", "")):
                raise _HttpError(421, "this server has another name")
            action()
        except _HttpError as e:
            self.close_connection = True  # a body may be unread
            self._send(str(e).encode(), "text/plain", code=e.code)
        except (ConnectionError, TimeoutError):  # the page was closed: `Page.gone` reports it
            self.close_connection = True

    def _get(self) -> None:
        if self.path in self.page_server.static:
            self._send_file(self.page_server.static[self.path])
            return
        page = self._known()
        if self.path == "/next":
            self._send(json.dumps(page.next()).encode(), "application/json")
            page.sign()
            return
        path = self.page_server.files.get(self._name("/file/"))
        if path is None:
            raise _HttpError(404, "no such file")
        self._send_file(path)

    def _post(self) -> None:
        if self.path == "/open":
            self._open()
            return
        page = self._known()
        if self.path == "/bye":
            page.leave()
        elif self.path.startswith("/file/"):
            name = self._name("/file/")
            if self.page_server.outputs.get(name, b"") is not None:
                raise _HttpError(404, "this output was not asked for")
            self.page_server.outputs[name] = self._body(FILE_LIMIT)
        elif address := re.fullmatch(r"/(said|ended)/(\d{1,9})", self.path):
            channel = page.channels.get(int(address[2]))
            if channel is None:
                raise _HttpError(404, "no such worker")
            text = self._body(LINE_LIMIT).decode(errors="replace")
            channel.answer(text or "{}") if address[1] == "said" else channel.fail(text)
        else:
            raise _HttpError(404, "no such place")
        self._send(b"", "text/plain")

    def _open(self) -> None:
        page = self.page_server.page
        if not self._has(page.token):
            raise _HttpError(403, "Open the whole address that edgegen printed: the part after # is missing or old.")
        try:
            first = page.open(self._body(LINE_LIMIT))
        except DeviceError as e:
            raise _HttpError(400, str(e)) from e
        if not first:
            raise _HttpError(409, "This address was already opened in another page. Start edgegen again for a new one.")
        self._send(page.key.encode(), "text/plain")

    def _known(self) -> Page:
        page = self.page_server.page
        if page.facts is None or not self._has(page.key):
            raise _HttpError(403, "only the page that was opened first may do this")
        page.sign()
        return page

    def _has(self, secret: str) -> bool:
        return secrets.compare_digest(self.headers.get("Edgegen-Key", "").encode(), secret.encode())

    def _name(self, place: str) -> str:
        return unquote(self.path.removeprefix(place)) if self.path.startswith(place) else ""

    def _body(self, limit: int) -> bytes:
        text = self.headers.get("Content-Length", "")
        if not text.isascii() or not text.isdigit():
            raise _HttpError(411, "a Content-Length is missing")
        if len(text) > len(str(limit)) or int(text) > limit:
            raise _HttpError(413, f"more than {limit} bytes")
        body = self.rfile.read(int(text))
        if len(body) < int(text):
            raise ConnectionAbortedError
        return body

    def _send(self, body: bytes, kind: str, *, code: int = 200) -> None:
        self._head(code, kind, len(body))
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        try:
            source = path.open("rb")
        except OSError as e:
            raise _HttpError(404, f"{path.name} is not there any more") from e
        with source:
            nbytes = path.stat().st_size
            self._head(200, (TYPES | SCRIPT).get(path.suffix, "application/octet-stream"), nbytes)
            shutil.copyfileobj(source, self.wfile)

    def _head(self, code: int, kind: str, nbytes: int) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(nbytes)}.items():
            self.send_header(name, value)
        self.end_headers()

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a page reports its errors itself."""


def lan_address() -> str:
    """This machine's address in its network: that from which it would send to another (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that belongs to nobody (RFC 5737)
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
