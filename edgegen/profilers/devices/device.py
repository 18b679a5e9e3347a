"""What a device is: a place to put files, to start programs, and to ask what it is and how busy it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgegen.profilers.runners.programs import CPU
from edgegen.support.processes import Finished as Finished

NONCE = "{nonce}"


@dataclass(frozen=True)
class Command:
    """A program with its arguments, as the device names its files; `environment` is added to the device's own.

    The argument NONCE is replaced when the program is started. `memory_limit` in bytes is kept by a Linux host.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_limit: int | None = None

    def with_nonce(self, nonce: str) -> "Command":
        return replace(self, argv=tuple(nonce if word == NONCE else word for word in self.argv))


@dataclass(frozen=True)
class Busy:
    """Core-seconds up to now: that programs other than this one used there, and that a hypervisor kept from it."""

    used_s: float
    stolen_s: float


class Channel(Protocol):
    """A runner that was started, wherever it runs: a line to it, a line from it."""

    def send(self, line: str) -> None:
        """Raises BrokenPipeError when it is gone."""

    def receive(self, timeout_s: float) -> str:
        """Its next line, "" after the last. Raises TimeoutError."""

    def kill(self) -> None:
        """End it at once, where it runs."""

    def close(self) -> str:
        """Let it end by itself, within a moment; returns how it ended and its last output. May be called twice."""


class Device(Protocol):
    """Add one by a module in this folder and a registry line; tests/profilers/devices/test_devices.py covers it.

    Every method raises DeviceError where the device cannot be reached, or a file does not arrive as it was sent.
    """

    name: str
    traces: bool  # whether its runners obey "trace"
    providers: bool  # whether its runners take one of ONNX Runtime's, see `runner`

    def probe(self) -> dict[str, Any]:
        """What it is and in which state, see `host_info.probe`; unknown is None.

        Where "emulated" says by what, nothing is timed. Some also have "clock_step_ms", the smallest step of their
        clock, and "limits", what restricts them.
        """

    def put(self, path: Path, name: str) -> str:
        """A file under `name`, a/b for b in a new folder a, in the folder of this session; returns its path there."""

    def get(self, path: str, target: Path) -> None:
        """A file of the device's, to `target`."""

    def place(self, name: str) -> str:
        """Where the device may write a file of this name."""

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        """The runner of files of this form ("onnx", "pte", "mlpackage"), ready for the file `model` of the device's.

        `provider` is one of ONNX Runtime, see `programs.PROVIDERS`. Raises UsageError where there is none for the form.
        """

    def start(self, command: Command) -> Channel:
        """A program that speaks as runners/python_runner.py does."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Finished:
        """A program to its end. Raises DeviceError, and ends it, when it takes longer."""

    def busy(self) -> Busy | None:
        """None where the system does not say."""

    def fetch(self) -> None:
        """Download to this machine what measuring there needs; nothing else does."""

    def close(self) -> None:
        """Remove what was put there."""
