"""An opener whose module has a `preload` without parameters."""

import time
from collections.abc import Callable

CALLS: list[str] = []


def preload() -> None:
    CALLS.append("preload")


def waiting(*, threads: int, unused: int) -> Callable[[], None]:
    assert CALLS == ["preload"]
    return lambda: time.sleep(0.001)
