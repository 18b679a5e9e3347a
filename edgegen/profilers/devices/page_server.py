"""The web server of the page that measures: for this machine only by default, and for the one page with the token.

    GET  /, /page.js, ...  the page, and /ort/NAME, onnxruntime-web: the same for everybody, nothing of the user's
    POST /open             with the token: this page measures, any further one is refused; answers the key
    GET  /next             the commands for page.js that are due, as a list; waits for some seconds
    POST /said/WORKER      a line that a Web Worker answers; /ended/WORKER why it ended; /bye the page closes
    GET  /file/NAME        what is measured, and its inputs; POST /file/NAME an output that is expected

All from /next on needs the key. The files that are served are listed: no part of an address is ever used as a path.
"""

import functools
import io
import ipaddress
import json
import re
import secrets
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.connections import Server, Source, deadline, wait_until
from edgegen.profilers.devices.page import Page

HERE = Path(__file__).parents[1] / "runners"
STATIC = {f"/{name}": HERE / name for name in ("page.js", "page.css", "page_worker.js")} | {"/": HERE / "page.html"}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".wasm": "application/wasm"}
SCRIPT = {".js": "text/javascript", ".mjs": "text/javascript"}
LINE_LIMIT, FILE_LIMIT = 1 << 20, 256 << 20  # bytes of an answer, of an output
BLOCK = 1 << 16
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
        self.lock = threading.Lock()
        self.static = STATIC | {f"/ort/{name}": path for name, path in runtime.items()}
        handler = functools.partial(_Handler, self)
        try:
            self._http = Server(("0.0.0.0" if lan else "127.0.0.1", port), handler)
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
        """Whether a request is for this server: another site's name may point to it, but no number can be such a name.

        Ports may be forwarded.
        """
        name = re.sub(r":\d*$", "", host).strip("[]").lower()
        if name in ("localhost", "127.0.0.1"):
            return True
        own = socket.gethostname().lower()
        return self.lan and (_is_number(name) or name in (own, f"{own.partition('.')[0]}.local"))

    def take(self, name: str, content: bytes) -> bool:
        """Keeps an output that is expected; False where none is, or where it is here already."""
        with self.lock:
            if self.outputs.get(name, b"") is not None:
                return False
            self.outputs[name] = content
            return True

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> "PageServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _HttpError(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgegen", ""

    def __init__(self, server: PageServer, *connection: Any) -> None:
        self.page_server = server
        super().__init__(*connection)

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.source = Source(self.connection)
        self.rfile = io.BufferedReader(self.source)

    def handle_one_request(self) -> None:
        self.source.until = deadline()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, action: Any) -> None:
        try:
            if not self.page_server.knows(self._only("Host")):
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
            is_expected = self.page_server.outputs.get(name, b"") is None
            if not is_expected or not self.page_server.take(name, self._body(FILE_LIMIT)):
                raise _HttpError(404, "this output was not asked for")
        elif address := re.fullmatch(r"/(said|ended)/(\d{1,9})", self.path):
            channel = page.channels.get(int(address[2]))
            if channel is None:
                raise _HttpError(404, "no such worker")
            text = self._body(LINE_LIMIT).decode(errors="replace")
            if address[1] == "ended":
                channel.fail(text)
            elif not channel.answer(text or "{}"):
                raise _HttpError(429, "more answers than there were commands")
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

    def _only(self, name: str) -> str:
        """The value of a header that may be there once."""
        values = self.headers.get_all(name, [""])
        if len(values) > 1:
            raise _HttpError(400, f"{len(values)} headers {name}")
        return str(values[0])

    def _name(self, place: str) -> str:
        return unquote(self.path.removeprefix(place)) if self.path.startswith(place) else ""

    def _body(self, limit: int) -> bytes:
        text = self._only("Content-Length")
        if "Transfer-Encoding" in self.headers or not text.isascii() or not text.isdigit():
            raise _HttpError(411, "a Content-Length is missing")
        if len(text) > len(str(limit)) or int(text) > limit:
            raise _HttpError(413, f"more than {limit} bytes")
        self.source.until = deadline(int(text))
        body = self.rfile.read(int(text))
        if len(body) < int(text):
            raise ConnectionAbortedError
        return body

    def _send(self, body: bytes, kind: str, *, code: int = 200) -> None:
        wait_until(self.connection, deadline(len(body)))
        self._head(code, kind, len(body))
        self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        try:
            source = path.open("rb")
        except OSError as e:
            raise _HttpError(404, f"{path.name} is not there any more") from e
        with source:
            nbytes = path.stat().st_size
            until = deadline(nbytes)
            wait_until(self.connection, until)
            self._head(200, (TYPES | SCRIPT).get(path.suffix, "application/octet-stream"), nbytes)
            while block := source.read(BLOCK):
                wait_until(self.connection, until)
                self.wfile.write(block)

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
