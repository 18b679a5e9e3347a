"""A browser as a device: a page of ours runs files in onnxruntime-web, each in a Web Worker of its own.

`--device browser` starts one of this machine without a window; the page of `edgegen serve-bench` is opened by whoever
holds the phone. A fresh Web Worker is to a browser what a fresh process is elsewhere; onnxruntime-web comes from npm.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices import host_info
from edgegen.profilers.devices.chromium import Browser
from edgegen.profilers.devices.device import NONCE, Busy, Command, Finished
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.devices.page import Page, PageChannel, PageFacts
from edgegen.profilers.devices.page_server import PageServer
from edgegen.profilers.runners.programs import CPU
from edgegen.profilers.runners.toolchain import cache, called
from edgegen.support.progress import Progress, Task

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
LIBRARIES = {  # by backend: the library, and the WebAssembly that it asks for
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
FLAGS = {"wasm": ("--disable-gpu",), "webgpu": ("--enable-unsafe-webgpu",)}
# What only browsers report.
MORE = ("user_agent", "cross_origin_isolated", "secure_context", "clock_step_ms", "gpu", "gpu_is_fallback")
START_S = 60.0  # for a browser to open the page
SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "basic render")  # in the names of GPUs that are programs


def runtime(backend: str) -> dict[str, Path]:
    """The files of onnxruntime-web, by name. Raises DeviceError where they are not here or of another version."""
    package = _home() / "node_modules" / PACKAGE
    fetch = f"`edgegen devices browser --fetch` downloads it (needs npm): {PACKAGE} {VERSION}, 140 MB"
    try:
        installed = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError) as e:
        raise DeviceError(f"no {PACKAGE} in {_home()}; {fetch}") from e
    if installed != VERSION:
        raise DeviceError(f"{PACKAGE} in {_home()} is {installed}; {fetch}")
    return {name: package / "dist" / name for name in LIBRARIES[backend]}


def _home() -> Path:
    return cache() / "web"


class BrowserDevice:
    """The page of `server`, once a user has opened it, whom `invite` tells the address; the caller closes `server`."""

    traces = False
    providers = False

    def __init__(
        self, backend: str, server: PageServer | None = None, *, invite: Callable[[], object] = lambda: None
    ) -> None:
        self.name = "browser" if backend == "wasm" else f"browser:{backend}"
        self.backend, self.server, self.invite = backend, server, invite
        self.facts: PageFacts | None = None

    def probe(self) -> dict[str, Any]:
        facts = self._opened()
        known: dict[str, Any] = {
            "threads": facts.threads,
            "model": facts.model,
            "os": facts.platform,
            "arch": facts.architecture,
        }
        known["emulated"] = _software(facts) if self.backend == "webgpu" else None
        known["limits"] = self._limits(facts)
        return dict.fromkeys(host_info.probe()) | known | {name: getattr(facts, name) for name in MORE}

    def _limits(self, facts: PageFacts) -> str | None:
        if facts.cross_origin_isolated:
            return None
        if facts.secure_context:
            return "the page is not cross-origin isolated, by its browser: one thread, a coarse clock"
        port = self.serve().port
        return (
            "an insecure context (http from another machine): one thread, no WebGPU, a coarse clock; on Android "
            f"run `adb reverse tcp:{port} tcp:{port}` and open the address with localhost"
        )

    def wait(self, server: PageServer) -> PageFacts:
        self.invite()
        return server.page.wait()

    def serve(self) -> PageServer:
        assert self.server is not None, "given"
        return self.server

    def put(self, path: Path, name: str) -> str:
        self._opened()
        self.serve().files[name] = path
        return name

    def get(self, path: str, target: Path) -> None:
        content = self.serve().outputs.pop(path, None)
        if content is None:
            raise DeviceError(f"{self.name}: the page sent no {path}")
        target.write_bytes(content)

    def place(self, name: str) -> str:
        self._opened()
        self.serve().outputs[name] = None
        return name

    def runner(self, form: str, model: str, provider: str = CPU) -> Command:
        if form != "onnx":
            raise UsageError(f"a .{form} does not run in a browser; .onnx files do")
        return Command((self.backend, NONCE, model))

    def start(self, command: Command) -> PageChannel:
        self._opened()
        backend, nonce, model = command.argv
        files = self.serve().files
        weights = [name for name in (f"{model}.data",) if name in files]  # beside the model: above 2 GB
        about = {"backend": backend, "nonce": nonce, "model": model, "weights": weights, "wasm": LIBRARIES[backend][1]}
        return self.serve().page.start(about)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Finished:
        raise DeviceError(f"{self.name}: a page starts no programs")

    def busy(self) -> Busy | None:
        self.serve().page.check()
        return None

    def fetch(self) -> None:
        _home().mkdir(parents=True, exist_ok=True)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", _home())
        called("npm", "install", *options, f"{PACKAGE}@{VERSION}")

    def close(self) -> None:
        """The page stays open: it will show the results."""

    def _opened(self) -> PageFacts:
        """What the page reports of its browser, once it is open. Raises DeviceError where it was closed."""
        if self.facts is None:
            self.facts = self.wait(self.serve())
            if self.backend == "webgpu" and self.facts.gpu is None:
                why = "no GPU that it may use" if self.facts.secure_context else "its address is no secure context"
                raise DeviceError(f"no WebGPU in this browser: {why}")
        self.serve().page.check()
        return self.facts


class HeadlessDevice(BrowserDevice):
    """A browser of this machine, started when it is first needed."""

    def __init__(self, backend: str, *, flags: Sequence[str] = ()) -> None:
        super().__init__(backend)
        self.flags, self.stack = (*FLAGS[backend], *flags), ExitStack()
        self.browser: Browser | None = None

    def probe(self) -> dict[str, Any]:
        """What the browser reports, and what this machine does where that is known."""
        page = super().probe()
        return page | {name: value for name, value in host_info.probe().items() if value is not None}

    def serve(self) -> PageServer:
        if self.server is None:
            self.server = self.stack.enter_context(PageServer(runtime(self.backend)))
        return self.server

    def wait(self, server: PageServer) -> PageFacts:
        self.browser = Browser(server.address, flags=self.flags)
        self.stack.callback(self.browser.close)
        server.page.watch = self.browser.ended
        return server.page.wait(START_S)

    def busy(self) -> Busy | None:
        """Without the use of this program and of the browser."""
        self.serve().page.check()
        assert self.browser is not None, "started before"
        busy = HostDevice().busy()
        return busy and replace(busy, used_s=busy.used_s - self.browser.cpu_s())

    def close(self) -> None:
        self.stack.close()
        self.server = self.browser = self.facts = None


def _software(facts: PageFacts) -> str | None:
    """What computes in the place of a GPU."""
    name = facts.gpu or ""
    is_program = facts.gpu_is_fallback or any(word in name.lower() for word in SOFTWARE)
    return f"a GPU in software ({name})" if is_program else None


def connect(place: str) -> HeadlessDevice:
    """What `--device browser` and `--device browser:webgpu` name."""
    backend = place or "wasm"
    if backend not in LIBRARIES:
        raise UsageError(f"--device browser:{place}: there are browser:{' and browser:'.join(LIBRARIES)}")
    return HeadlessDevice(backend)


class PageProgress:
    """Progress on this machine's terminal, and on the page."""

    def __init__(self, page: Page, here: Progress) -> None:
        self.page, self.here = page, here

    def message(self, text: str) -> None:
        self.here.message(text)

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Task]:
        with self.here.task(label, total, start=start) as task:
            self.page.send("show", state=f"{label} ...", done=start, total=total)
            yield _PageTask(self.page, task, label, total)


class _PageTask:
    def __init__(self, page: Page, here: Task, label: str, total: int) -> None:
        self.page, self.here, self.label, self.total, self.shown = page, here, label, total, -1

    def update(self, done: int, note: str = "") -> None:
        self.here.update(done, note)
        if done != self.shown:  # not once a block: the page has a browser to share
            self.page.send("show", state=f"{self.label}: {done} of {self.total} {note}", done=done, total=self.total)
            self.shown = done
