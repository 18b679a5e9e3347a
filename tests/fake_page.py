"""A page without a browser: speaks to the server as page.js does, and lies where a test wants it."""

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

from edgegen.profilers.devices.page_server import PageServer

FACTS = {
    "user_agent": "a test",
    "platform": None,
    "architecture": None,
    "model": None,
    "threads": 2,
    "cross_origin_isolated": True,
    "secure_context": True,
    "clock_step_ms": 0.005,
    "gpu": None,
    "gpu_is_fallback": None,
}
NUMBERS = {"load_ms": 1.0, "first_ms": 1.0, "threads": 1, "samples_ms": [1.0] * 30, "probe_ms": 7.0}

Line = Callable[[dict[str, Any]], str]


class FakePage:
    """Opens the page of `server`, and answers what it is asked; `line` makes of an answer what is sent."""

    def __init__(self, server: PageServer, *, line: Line = json.dumps, leave_at: str = "", hush_at: str = "") -> None:
        self.server, self.line, self.leave_at, self.hush_at = server, line, leave_at, hush_at
        self.shown: list[dict[str, Any]] = []
        self.workers: dict[int, dict[str, Any]] = {}
        self.key = ask(server, "POST", "/open", key=server.page.token, body=json.dumps(FACTS).encode())[1].decode()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._live)
        self.thread.start()

    def _live(self) -> None:
        while not self.done.is_set():
            for command in json.loads(ask(self.server, "GET", "/next", key=self.key)[1]):
                self._obey(**command)

    def _obey(self, name: str, worker: int = -1, line: str = "", **given: Any) -> None:
        if name == "start":
            self.workers[worker] = {"nonce": given["nonce"], "number": -1}
            self._say(worker, "ready")
        elif name == "line":
            self._say(worker, line.split("\t")[0].strip())
        elif name == "show":
            self.shown.append(given)
        elif name == "close":
            self._leave()

    def _say(self, worker: int, event: str) -> None:
        if event == self.leave_at:
            self._leave()
        elif event == self.hush_at:
            self.done.set()
        else:
            self.workers[worker]["number"] += 1
            facts = {**self.workers[worker], "event": event, **NUMBERS, "peak_rss_bytes": None, "cpu_ms": 0}
            ask(self.server, "POST", f"/said/{worker}", key=self.key, body=self.line(facts).encode())

    def _leave(self) -> None:
        ask(self.server, "POST", "/bye", key=self.key, body=b"")
        self.done.set()

    def close(self) -> None:
        self.done.set()
        self.thread.join()


def ask(
    server: PageServer,
    method: str,
    path: str,
    *,
    key: str = "",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes, dict[str, str]]:
    """One request: the status, what came, the headers. The path goes out as it is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body, {"Edgegen-Key": key, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()
