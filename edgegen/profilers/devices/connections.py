"""Connections of a small web server that nobody can keep open: a limit for each address, and time limits in all."""

import io
import socket
import threading
import time
from collections import Counter
from http.server import ThreadingHTTPServer
from typing import Any

REQUEST_S, SLOWEST = 60.0, 50_000  # seconds for a request to come or its answer to go, and bytes a second beyond that
MOST_CONNECTIONS = 32  # at once from one address; a browser has six


class Server(ThreadingHTTPServer):
    """One thread a connection, and not more of them than MOST_CONNECTIONS for one address."""

    def __init__(self, *arguments: Any) -> None:
        self.connections: Counter[str] = Counter()
        self.counting = threading.Lock()
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self.counting:
            if self.connections[client_address[0]] >= MOST_CONNECTIONS:
                return False
            self.connections[client_address[0]] += 1
            return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.counting:
                self.connections[client_address[0]] -= 1


class Source(io.RawIOBase):
    """What comes on a connection, until a point in time: a byte a second is too slow for any request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.until = connection, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wait_until(self.connection, self.until)
        return self.connection.recv_into(buffer)


def wait_until(connection: socket.socket, until: float) -> None:
    """Has the connection's next operation end by then. Raises TimeoutError."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def deadline(nbytes: int = 0) -> float:
    """Until when a request or an answer with so many bytes must have gone."""
    return time.monotonic() + REQUEST_S + nbytes / SLOWEST
