"""One opened page of a browser: the commands for it, and the answers of its Web Workers."""

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from edgegen.errors import DeviceError
from edgegen.support.printable import printable
from edgegen.support.schema import Record

POLL_S = 5.0  # a page's question is answered after that long at the latest
SILENCE_S = 15.0  # without a sign of the page, until it counts as closed
LOOK_S = 0.2  # between two looks at whether it is still there
SHOWN = 400  # characters of a page's error message

MOST_PENDING = 8  # answers of a worker that nobody has read: to one command there is one

Text = Annotated[str, Field(max_length=600), AfterValidator(printable)]
Threads = Annotated[int, Field(ge=1, le=1 << 16)]
Step = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PageFacts(Record):
    """What a page reports of its browser. `clock_step_ms`: the smallest step of its clock; None: not known."""

    user_agent: Text
    platform: Text | None
    architecture: Text | None
    model: Text | None
    threads: Threads | None
    cross_origin_isolated: bool
    secure_context: bool
    clock_step_ms: Step | None
    gpu: Text | None
    gpu_is_fallback: bool | None


class Page:
    """The connection to one page: the first that sends `token` is accepted, and gets `key` for all later requests.

    `watch` says why the page cannot be open any more, "" while it may be: that our own browser ended, for example.
    """

    def __init__(self) -> None:
        self.token, self.key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.facts: PageFacts | None = None
        self.watch: Callable[[], str] = lambda: ""
        self.channels: dict[int, PageChannel] = {}
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._opened, self._left, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._seen = 0.0

    def open(self, facts_json: bytes) -> bool:
        """Accepts a page with its PageFacts; False for a second page. Raises DeviceError for invalid facts."""
        try:
            facts = PageFacts.model_validate_json(facts_json)
        except ValidationError as e:
            raise DeviceError(f"the page's description of its browser is invalid: {e.errors()[0]['msg']}") from e
        with self._lock:
            if self.facts is not None:
                return False
            self.facts = facts
        self.sign()
        self._opened.set()
        return True

    def wait(self, timeout_s: float | None = None) -> PageFacts:
        """Until a page was opened. Raises DeviceError when none comes."""
        began = time.monotonic()
        while not self._opened.wait(LOOK_S):
            if why := self.watch():
                raise DeviceError(why)
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise DeviceError(f"the page was not opened within {timeout_s:g} s")
        assert self.facts is not None, "set before the event"
        return self.facts

    def sign(self) -> None:
        """The page has just sent something."""
        self._seen = time.monotonic()

    def leave(self) -> None:
        """The page closes, or confirms that all is done."""
        self._left.set()

    def gone(self) -> str:
        """Why the page is not open any more, "" while it is."""
        if self._left.is_set():
            return "the page was closed"
        if self._opened.is_set() and time.monotonic() - self._seen > SILENCE_S:
            return f"no sign of the page for {SILENCE_S:g} s: closed, or the screen is off"
        return self.watch()

    def check(self) -> None:
        """Raises DeviceError when it is gone."""
        if why := self.gone():
            raise DeviceError(why)

    def send(self, name: str, **arguments: Any) -> None:
        """Queues a command of page.js."""
        self._commands.put({"name": name, **arguments})

    def next(self) -> list[dict[str, Any]]:
        """The commands that are due; [] after POLL_S without one."""
        commands = []
        with contextlib.suppress(queue.Empty):
            commands.append(self._commands.get(timeout=POLL_S))
            while True:
                commands.append(self._commands.get_nowait())
        return commands

    def close(self, text: str) -> None:
        """Sends the last command, and waits a moment for the page to confirm it."""
        if self._opened.is_set() and not self.gone():
            self.send("close", text=text)
            self._left.wait(2 * LOOK_S + 1.0)

    def start(self, about: Mapping[str, Any]) -> "PageChannel":
        """A new Web Worker. Raises DeviceError when the page is gone."""
        self.check()
        with self._lock:
            number = len(self.channels)
            channel = self.channels[number] = PageChannel(self, number)
        self.send("start", worker=number, **about)
        return channel


class PageChannel:
    """A Web Worker as `device.Channel`."""

    def __init__(self, page: Page, number: int) -> None:
        self.page, self.number, self.ended = page, number, ""
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def answer(self, line: str) -> bool:
        """Takes a line of the worker's, as the page forwards it; False for one too many."""
        if self.lines.qsize() >= MOST_PENDING:
            return False
        self.lines.put(line)
        return True

    def fail(self, why: str) -> None:
        """Takes the reason why the worker ended, as the page reports it."""
        self.ended = f"ended: {printable(' '.join(why.split())[:SHOWN]) or 'it did not say why'}"
        self.lines.put("")

    def send(self, line: str) -> None:
        if self.ended or self.page.gone():
            raise BrokenPipeError
        self.page.send("line", worker=self.number, line=line)

    def receive(self, timeout_s: float) -> str:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return self.lines.get(timeout=min(LOOK_S, left))
            if self.page.gone():
                return ""
        raise TimeoutError

    def kill(self) -> None:
        if not self.ended:
            self.page.send("end", worker=self.number)
            self.ended = self.page.gone() or "ended by edgegen"

    def close(self) -> str:
        self.kill()
        return self.ended
