"""What devices behind a shell have in common: a POSIX shell runs there, and only the connection to it differs."""

import re
import secrets
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceError
from edgegen.profilers.devices.device import NONCE, Busy, Command, Finished
from edgegen.profilers.devices.host import NO_CORE_ML, PYTHON_RUNNER, busy_of
from edgegen.profilers.devices.host_info import describe
from edgegen.profilers.runners import programs, toolchain
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.runners.toolchain import NoProgramError, Program
from edgegen.profilers.timing.process import Pipes
from edgegen.support.processes import finish
from edgegen.support.storage import sha256_of, storage_errors

FOLDER = re.compile(r"/.*/edgegen\.\w+")
SHORT_S, TRANSFER_S = 30.0, 600.0  # for a question, for a file
MOST_FILE = 1 << 32  # bytes of a file that a device sends: outputs of the largest networks, and traces
# One round trip: each part after a line of its own, empty where the system does not have it.
QUESTIONS = {
    "arch": "uname -m",
    "system": "uname -sr",
    "threads": "nproc --all || sysctl -n hw.ncpu",  # without --all it says OMP_NUM_THREADS where that is set
    "cpuinfo": "cat /proc/cpuinfo || sysctl machdep.cpu.brand_string",
    "meminfo": "cat /proc/meminfo",
    "loadavg": "cat /proc/loadavg",
    # Android's own
    "model": "getprop ro.product.model",
    "soc": "getprop ro.soc.model",
    "release": "getprop ro.build.version.release",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
}


class ShellDevice(ABC):
    """Everything lies in one folder there, which `close` removes. The shell there never interprets text of a user's."""

    name: str
    python: str
    traces = True
    providers = True

    def __init__(self) -> None:
        self.folder: str | None = None
        self.programs: dict[str, Command] = {}  # by form, up to NONCE
        self.c_library: set[str] = set()  # what lies there of one

    @abstractmethod
    def shell(self, script: str) -> list[str]:
        """The command of this machine that runs `script` in the device's shell."""

    @abstractmethod
    def folder_script(self) -> str:
        """The script that makes a new folder there, which only we write to, and prints its path: .../edgegen.XXXXXX"""

    @abstractmethod
    def explain(self, stderr: str) -> str:
        """The message for a connection that failed, with what would help."""

    def probe(self) -> dict[str, Any]:
        mark = secrets.token_hex(8)
        script = "; ".join(f"echo {mark}; {{ {question}; }} 2>/dev/null" for question in QUESTIONS.values())
        done = self._sh(f"{script}; echo {mark}")
        parts = done.stdout.split(f"{mark}\n")[1:]
        if len(parts) != len(QUESTIONS) + 1:
            raise DeviceError(f"{self.name}: the device's shell did not answer as one does: {done.stdout[:80]!r}")
        return describe(dict(zip(QUESTIONS, parts, strict=False)))

    def place(self, name: str) -> str:
        if self.folder is None:
            answer = self._sh(self.folder_script())
            folder = answer.stdout.strip()
            if not FOLDER.fullmatch(folder):  # it is removed at the end: the device's word is not enough
                raise DeviceError(f"{self.name}: no folder for our files there: {answer.stderr.strip() or folder}")
            self.folder = folder
        return f"{self.folder}/{name}"

    def put(self, path: Path, name: str) -> str:
        there = self.place(name)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    self.put(file, str(Path(name, file.relative_to(path))))
            return there
        if "/" in name:
            self._sh(f"mkdir -p {shlex.quote(str(Path(there).parent))}")
        with path.open("rb") as source:
            done = self._call(self.shell(f"cat > {shlex.quote(there)}"), TRANSFER_S, stdin=source)
        if done.code or self._sha256(there) != sha256_of(path):
            raise DeviceError(f"{self.name}: {name} did not arrive as it was sent: {done.stderr.strip()[-200:]}")
        return there

    def get(self, path: str, target: Path) -> None:
        expected = self._sha256(path)
        with storage_errors(target), target.open("wb") as file:
            command = self.shell(f"cat {shlex.quote(path)}")
            finish(command, name=self.name, timeout_s=TRANSFER_S, output=file, most=MOST_FILE)
        if sha256_of(target) != expected:
            target.unlink()
            raise DeviceError(f"{self.name}: {Path(path).name} did not come as it lies there")

    def start(self, command: Command) -> Pipes:
        pid = self.place(f"{secrets.token_hex(4)}.pid")
        return Pipes(self.shell(self._script(command, pid)), end_there=lambda: self._kill(pid))

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Finished:
        pid = self.place(f"{secrets.token_hex(4)}.pid")
        try:
            return self._call(self.shell(self._script(Command(tuple(argv)), pid)), timeout_s)
        except DeviceError:
            self._kill(pid)
            raise

    def busy(self) -> Busy | None:
        return busy_of(self._sh("cat /proc/stat 2>/dev/null").stdout)

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        system = self._system()
        if form == "mlpackage":
            programs.check_provider(form, provider)
            if not system.startswith("Darwin"):
                raise DeviceError(NO_CORE_ML)
            return self._in_python(model)
        try:
            program = programs.program(form, system, provider)
        except NoProgramError as e:
            if form != "onnx" or provider != CPU or not self._has_python():
                raise
            return self._in_python(model, e.why)
        if form not in self.programs:
            self.programs[form] = self._put_program(program, system)
        there = self.programs[form]
        return Command((*there.argv, *program.words, model), there.environment)

    def close(self) -> None:
        if self.folder is not None:
            self._sh(f"rm -rf {shlex.quote(self.folder)}")
            self.folder = None
            self.programs.clear()
            self.c_library.clear()

    def fetch(self) -> None:
        system = self._system()
        if system in (toolchain.ARM64, toolchain.this_system()):
            programs.fetch(system)

    def _system(self) -> str:
        return self._sh("uname -sm").stdout.strip()

    def _has_python(self) -> bool:
        return bool(self._sh(f"command -v {shlex.quote(self.python)}").stdout.strip())

    def _in_python(self, model: str, *words: str) -> Command:
        return Command((self.python, self.put(PYTHON_RUNNER, PYTHON_RUNNER.name), NONCE, model, *words))

    def _put_program(self, program: Program, system: str) -> Command:
        """The runner with its libraries and the C library that it was compiled for: the device's is not used."""
        c_library = toolchain.c_library(system)
        for path in program.libraries:
            self.put(path, path.name)
        for name, path in c_library.items():
            if name not in self.c_library:
                self.put(path, name)
                self.c_library.add(name)
        runner = self.put(program.runner, program.runner.name)
        if not c_library:
            self._sh(f"chmod 700 {shlex.quote(runner)}")
            return Command((runner, NONCE), {"LD_LIBRARY_PATH": self.place("")})
        loader = self.place(toolchain.LOADERS[system])
        self._sh(f"chmod 700 {shlex.quote(loader)}")
        return Command((loader, "--library-path", self.place(""), runner, NONCE))

    def _script(self, command: Command, pid: str) -> str:
        """The shell writes its process number to the file `pid` and becomes the program."""
        words = [f"{name}={value}" for name, value in command.environment.items()]
        program = shlex.join(["env", *words, *command.argv] if words else list(command.argv))
        return f"echo $$ > {shlex.quote(pid)}; exec {program}"

    def _kill(self, pid: str) -> None:
        self._sh(f"kill -9 $(cat {shlex.quote(pid)}) 2>/dev/null; true")

    def _sha256(self, path: str) -> str:
        words = shlex.quote(path)
        digest = re.match(
            r"\\?([0-9a-f]{64}) ", self._sh(f"{{ sha256sum {words} || shasum -a 256 {words}; }} 2>/dev/null").stdout
        )
        if digest is None:
            raise DeviceError(f"{self.name}: no file {path} there, or no sha256sum")
        return digest[1]

    def _sh(self, script: str) -> Finished:
        """A short script: the mark that is printed last shows that the shell reached its end."""
        mark = secrets.token_hex(8)
        done = self._call(self.shell(f"{script}\necho; echo {mark}"), SHORT_S)
        text, end, _ = done.stdout.rpartition(f"\n{mark}\n")
        if not end:
            raise DeviceError(f"{self.name}: {self.explain(done.stderr)}")
        return Finished(done.code, text, done.stderr)

    def _call(self, argv: Sequence[str], timeout_s: float, *, stdin: Any = subprocess.DEVNULL) -> Finished:
        return finish(argv, name=self.name, timeout_s=timeout_s, stdin=stdin)
