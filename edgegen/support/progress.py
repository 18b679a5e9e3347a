"""Progress of long work on stderr: bars with rate and time left on a terminal, a line every 10 s elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from edgegen.support.printable import printable, printable_lines

PLAIN_EVERY_S = 10.0  # seconds between lines where there is no terminal


class Task(Protocol):
    def update(self, done: int, note: str = "") -> None: ...


class Progress(Protocol):
    """Receives the progress of long work."""

    def message(self, text: str) -> None: ...
    def task(self, label: str, total: int, *, start: int = 0) -> Any:
        """A context manager that gives a Task; `start` of `total` is already done, by an earlier run."""


class Silent:
    """Prints nothing: for tests, and for all processes but the first."""

    def message(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Task]:
        yield self

    def update(self, done: int, note: str = "") -> None:
        pass


class Plain:
    """Prints lines of text, readable in a log file."""

    def message(self, text: str) -> None:
        print(printable_lines(text), file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Task]:
        yield _PlainTask(label, total, start)


class _PlainTask:
    def __init__(self, label: str, total: int, start: int) -> None:
        self.label, self.total, self.start = label, total, start
        self.began = self.printed = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done < self.total and now - self.printed < PLAIN_EVERY_S:
            return
        self.printed = now
        rate = (done - self.start) / max(now - self.began, 1e-9)
        left = "" if done >= self.total or rate == 0 else f", {clock((self.total - done) / rate)} left"
        text = f"  {self.label} {done}/{self.total} ({100 * done // max(self.total, 1)} %) {rate:.3g}/s{left}"
        print(printable(f"{text}  {note}" if note else text), file=sys.stderr, flush=True)


class Bars:
    """Draws bars on a terminal, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def message(self, text: str) -> None:
        self.console.print(printable_lines(text), markup=False)

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Task]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.console) as bars:
            yield _BarTask(bars, label, total, start)


class _BarTask:
    def __init__(self, bars: Any, label: str, total: int, start: int) -> None:
        from rich.markup import escape

        self.bars, self.start, self.began, self.escape = bars, start, time.monotonic(), escape
        self.id = bars.add_task(escape(printable(label)), total=total, completed=start, rate="", note="")

    def update(self, done: int, note: str = "") -> None:
        rate = (done - self.start) / max(time.monotonic() - self.began, 1e-9)
        self.bars.update(self.id, completed=done, rate=f"{rate:.3g}/s", note=self.escape(printable(note)))


def progress() -> Progress:
    """Bars on a terminal, plain lines elsewhere."""
    if sys.stderr is None:  # closed by the caller
        return Silent()
    return Bars() if sys.stderr.isatty() else Plain()


@contextmanager
def heartbeat(progress: Progress, state: Callable[[], str], *, every_s: float = PLAIN_EVERY_S) -> Iterator[None]:
    """Says every `every_s` seconds what is being waited for, with the seconds so far; for work that tells nothing.

    `state` is called in another thread, and says nothing by "".
    """
    ended, began = threading.Event(), time.monotonic()

    def beat() -> None:
        while not ended.wait(every_s):
            if text := state():
                progress.message(f"  {text} ({clock(time.monotonic() - began)})")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def clock(seconds: float) -> str:
    """1:05, or 2:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
