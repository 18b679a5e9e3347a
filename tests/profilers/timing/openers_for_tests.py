"""Openers that the worker imports in the tests: the folder of this file is put on sys.path, which workers inherit."""

import os
import time
from collections.abc import Callable
from pathlib import Path

preloaded: list[dict[str, object]] = []


def preload(**arguments: object) -> None:
    preloaded.append(arguments)


def logging(*, threads: int, file: str, label: str) -> Callable[[], None]:
    """Writes its label, its process and its threads at every inference."""

    def infer() -> None:
        with Path(file).open("a") as log:
            log.write(f"{label} {os.getpid()} {threads}\n")
        time.sleep(0.002)

    return infer


def only_preloaded(*, threads: int) -> Callable[[], None]:
    assert preloaded == [{}], "preload() was not called before the opener"
    return lambda: time.sleep(0.001)


def preloaded_with(*, threads: int, backend: str) -> Callable[[], None]:
    assert [{"backend": backend}] == preloaded, "preload() did not get the opener's arguments"
    return lambda: time.sleep(0.001)


def printing(*, threads: int) -> Callable[[], None]:
    """Prints by Python and, as C libraries do, straight to file descriptor 1."""
    print("hello from the opener")
    return lambda: (os.write(1, b'{"event": "block", "samples_ms": [-1.0]}\n'), time.sleep(0.001))[1]


def raising(*, threads: int, path: str) -> Callable[[], None]:
    raise ValueError(f"{path} is not a model")


def failing_later(*, threads: int, after: int) -> Callable[[], None]:
    left = [after]

    def infer() -> None:
        left[0] -= 1
        time.sleep(0.001)
        if left[0] < 0:
            os._exit(7)

    return infer


def aborting(*, threads: int) -> Callable[[], None]:
    return os.abort


def hanging(*, threads: int) -> Callable[[], None]:
    return lambda: time.sleep(600)


def closing_stdout(*, threads: int) -> Callable[[], None]:
    """A library that closes every file descriptor, the host's too."""
    return lambda: os.closerange(3, 64)


def filling(*, threads: int, megabytes: int) -> Callable[[], None]:
    held: list[bytes] = []
    return lambda: held.append(b"x" * (megabytes << 20)) if not held else time.sleep(0.001)


def computing(*, threads: int) -> Callable[[], int]:
    return lambda: sum(range(20_000))
