"""A real browser without a window: started by edgegen, and opened by somebody else as a phone's would be."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import device_parts
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import command, environment
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.errors import DeviceError, UsageError
from edgegen.profilers import browser, chromium, protocol
from edgegen.profilers.browser import HeadlessDevice
from edgegen.profilers.host import HostDevice
from edgegen.profilers.protocol import ProfileOptions
from edgegen.profilers.result import Profile, read
from edgegen.profiling import connect, profile_files, runners_of
from edgegen.progress import Silent

REASON = device_parts.no_browser()
needs_browser = pytest.mark.skipif(REASON is not None, reason=f"{REASON}")
FEW = ProfileOptions(min_runs=3, max_seconds=0.2, timeout_seconds=60.0, warm_seconds=0.0)
SIZE = 256


def layers(path: Path, *, beside: bool = False) -> Path:
    """Three layers of numbers, some milliseconds of work; `beside`: their weights in a file of their own."""
    numbers = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((numbers.standard_normal((SIZE, SIZE)) / SIZE**0.5).astype(np.float32), f"w{index}")
        for index in range(3)
    ]
    nodes, last = [], "sample"
    for index in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [last := f"t{index}"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE, SIZE]) for name in ("sample", last)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data")
    return path


def test_the_browser_is_found_by_name_or_its_absence_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "google-chrome"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "APPS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.find_browser() == str(program)
    monkeypatch.setenv(chromium.VARIABLE, "no-such-browser")
    with pytest.raises(DeviceError, match=r"no program no-such-browser \(EDGEGEN_BROWSER\): apt install chromium"):
        chromium.find_browser()
    monkeypatch.delenv(chromium.VARIABLE)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="no Chromium, Chrome or Edge on this machine: apt install chromium"):
        chromium.find_browser()


def test_onnxruntime_web_is_of_the_pinned_version_or_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetch = r"`edgegen devices browser --fetch` downloads it \(needs npm\): onnxruntime-web 1.30.0"
    with pytest.raises(DeviceError, match=f"no onnxruntime-web in .*web; {fetch}"):
        HeadlessDevice("wasm").probe()
    package = tmp_path / "edgegen/web/node_modules/onnxruntime-web"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.0.0"}')
    with pytest.raises(DeviceError, match=f"is 1.0.0; {fetch}"):
        browser.runtime("wasm")


def test_a_backend_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="--device browser:cuda: there are browser:wasm and browser:webgpu"):
        connect("browser:cuda")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PROFILES", {"quick": FEW})
    monkeypatch.setattr("edgegen.profiling.PROFILES", {"quick": FEW})


@needs_browser
@pytest.mark.devices
def test_files_are_measured_in_a_browser_with_one_and_two_threads(
    tmp_path: Path, quick: None, in_process: None
) -> None:
    files = [layers(tmp_path / "ein Netz.onnx"), layers(tmp_path / "beside.onnx", beside=True)]
    given = ["--device", "browser", "--threads", "1,2", "-o", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, ["profile", *map(str, files), *given])
    assert done.exit_code == 0, done.exception
    found = read(tmp_path / "out.json")
    assert [one.config.threads_actual for one in found.results] == [1, 2, 1, 2]
    for one in found.results:
        right(one)
        assert one.peak_rss_bytes is None
    assert set(found.target) > set(HostDevice().probe())
    assert found.target["cross_origin_isolated"]
    assert found.others_cores is not None
    assert found.target["user_agent"] in done.stdout
    assert str(tmp_path) not in json.dumps(found.to_json())
    assert left() == []


@needs_browser
@pytest.mark.devices
def test_a_gpu_in_software_has_no_latency(tmp_path: Path, in_process: None) -> None:
    device = HeadlessDevice("webgpu", flags=("--use-webgpu-adapter=swiftshader",))
    found = profile_files([layers(tmp_path / "net.onnx")], device, options=FEW, progress=Silent())
    (one,) = found.results
    assert one.numerics.passed
    assert one.config.runtime == f"onnxruntime-web {browser.VERSION} on webgpu"
    assert one.latency is None
    assert not one.verdict.performance_valid
    assert "numbers only: a GPU in software" in one.verdict.reasons[0]
    assert left() == []


@needs_browser
@pytest.mark.devices
def test_a_browser_that_dies_ends_the_measuring(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HeadlessDevice("wasm")
    began = device.busy

    def dies() -> Any:
        found = began()
        assert device.browser is not None
        device.browser.process.send_signal(signal.SIGKILL)
        device.browser.process.wait()
        return found

    monkeypatch.setattr(device, "busy", dies)
    with pytest.raises(DeviceError, match="the browser ended with -9"):
        profile_files([layers(tmp_path / "net.onnx")], device, options=FEW, progress=Silent())
    assert left() == []


@needs_browser
@pytest.mark.devices
def test_a_file_that_fails_in_the_browser_says_why(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["sample", "size"], ["out"])],
        "g",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [helper.make_tensor("size", TensorProto.INT64, [1], [3])],
    )
    path = tmp_path / "reshape.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    (one,) = profile_files([path], HeadlessDevice("wasm"), options=FEW, progress=Silent()).results
    assert one.verdict.status == "failed"
    assert "ended: Error: " in one.verdict.reasons[0]
    assert "eshape" in one.verdict.reasons[0]


@pytest.mark.parametrize(
    ("program", "message"),
    [("#!/bin/sh\necho no display >&2\nexit 3\n", "ended with 3: no display"), ("", "cannot be run")],
)
@needs_browser
def test_a_browser_that_does_not_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, message: str
) -> None:
    """An empty file stands for one of another processor."""
    (tmp_path / "browser").write_text(program)
    (tmp_path / "browser").chmod(0o755)
    (tmp_path / "t").mkdir()
    monkeypatch.setenv(chromium.VARIABLE, str(tmp_path / "browser"))
    monkeypatch.setattr(chromium.tempfile, "tempdir", str(tmp_path / "t"))
    with contextlib.closing(HeadlessDevice("wasm")) as device, pytest.raises(DeviceError, match=message):
        device.probe()
    assert list((tmp_path / "t").iterdir()) == []


def test_a_browser_that_does_not_want_to_end_is_ended_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its main process goes politely; a child that heeds nothing stays behind without a parent."""
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\n(trap '' TERM HUP; sleep 600) &\necho $! > \"$0.pid\"\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv(chromium.VARIABLE, str(program))
    made = chromium.Browser("http://localhost:1/#token")
    pid = tmp_path / "browser.pid"
    for _ in range(100):
        if pid.exists() and pid.read_text().strip():
            break
        time.sleep(0.05)
    made.close()
    assert not made.folder.exists()
    assert not psutil.pid_exists(int(pid.read_text()))


@needs_browser
@pytest.mark.devices
def test_inputs_of_other_kinds_are_made_in_the_browser(tmp_path: Path, in_process: None) -> None:
    """Half floats, whole numbers, and truth: their sum."""
    kinds = {
        "half": TensorProto.FLOAT16,
        "count": TensorProto.INT64,
        "small": TensorProto.INT32,
        "is": TensorProto.BOOL,
    }
    inputs = [helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in kinds.items()]
    casts = [helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT) for name in kinds]
    total = helper.make_node("Sum", [f"{name}_f" for name in kinds], ["out"])
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([*casts, total], "g", inputs, [output])
    path = tmp_path / "kinds.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    (one,) = profile_files([path], HeadlessDevice("wasm"), options=FEW, progress=Silent()).results
    assert [tensor.dtype for tensor in one.artifact.inputs] == ["float16", "int64", "int32", "bool"]
    assert one.numerics.passed, one.verdict


@needs_browser
@pytest.mark.devices
def test_a_browser_says_what_runs_there() -> None:
    device = HeadlessDevice("wasm")
    with contextlib.closing(device):
        assert device.probe()["threads"] == psutil.cpu_count()
        found = runners_of(device)
    assert found[".onnx"] == f"onnxruntime-web {browser.VERSION} on wasm"
    assert found[".pte"] == "no: a .pte does not run in a browser; .onnx files do"


@dataclass
class Served:
    """`edgegen serve-bench`, started in a folder; what it says goes to files beside it."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def address(self) -> str:
        """What it printed to be opened."""
        for _ in range(300):
            if found := re.search(r"http://\S+#\S+\n", self.stderr):
                return found[0].strip()
            time.sleep(0.1)
        pytest.fail(f"no address: {self.stderr}")


@contextlib.contextmanager
def serving(files: Path, *options: str) -> Iterator[Served]:
    folder = files / "said"
    folder.mkdir()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        given = command("serve-bench", files, *options)
        process = subprocess.Popen(
            given,
            stdout=out,
            stderr=err,
            env=environment(),
            cwd=folder,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell hands down "ignored"
        )
        try:
            yield Served(process, folder)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def phone(tmp_path: Path, *flags: str) -> Iterator[Any]:
    """A page of a browser that somebody else started."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as made:
        context = made.chromium.launch_persistent_context(
            tmp_path / "phone",
            executable_path=chromium.find_browser(),
            headless=True,
            args=["--disable-gpu", *flags],
            viewport={"width": 390, "height": 844},
        )
        yield context.pages[0]
        context.close()


@needs_browser
@pytest.mark.devices
def test_a_page_that_somebody_opens_measures_and_shows_the_result(tmp_path: Path) -> None:
    layers(tmp_path / "net.onnx")
    with serving(tmp_path, "--threads", "1,2", "-o", "out.json") as served, phone(tmp_path) as page:
        refused = []
        page.on("requestfailed", lambda request: refused.append(request.url))
        page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
        address = served.address
        page.goto(address)
        second = page.context.new_page()
        second.goto(address)
        second.get_by_text("already opened in another page").wait_for()
        page.get_by_text("Done. This page can be closed.").wait_for(timeout=120_000)
        cells = page.locator("tbody td").all_text_contents()
        assert page.url == address.partition("#")[0], "the token does not stay in the address bar"
        assert served.process.wait(timeout=30) == 0, served.stderr
    found = read(tmp_path / "said/out.json")
    assert [one.config.threads_actual for one in found.results] == [1, 2]
    for one in found.results:
        right(one)
    assert cells[0] == "net.onnx, 1 thread"
    assert "net.onnx, 2 threads" in served.stdout
    assert found.target["cross_origin_isolated"]
    assert found.target["cpu"] is None
    assert refused == []


@needs_browser
@pytest.mark.devices
def test_an_insecure_origin_has_one_thread_and_says_so(tmp_path: Path) -> None:
    layers(tmp_path / "net.onnx")
    flags = ("--host-resolver-rules=MAP phone.test 127.0.0.1",)
    with serving(tmp_path, "--lan", "--threads", "2", "--json") as served, phone(tmp_path, *flags) as page:
        _, _, rest = served.address.removeprefix("http://").partition(":")
        page.goto(f"http://phone.test:{rest}")
        page.get_by_text("Done. This page can be closed.").wait_for(timeout=120_000)
        assert "insecure" in page.locator("#notes").inner_text()
        assert served.process.wait(timeout=30) == 0, served.stderr
    assert "browsers call the address insecure: one thread" in served.stderr
    found = Profile.model_validate_json(served.stdout)
    (one,) = found.results
    assert one.config.threads_actual == 1
    assert "2 threads were asked, 1 ran: an insecure context" in " ".join(one.verdict.reasons)
    assert "adb reverse tcp:" in one.verdict.reasons[-1]
    assert found.target["secure_context"] is False
    assert found.target["gpu"] is None
    assert found.target["clock_step_ms"] > 0.05


@needs_browser
@pytest.mark.devices
def test_a_page_that_is_closed_leaves_no_result(tmp_path: Path) -> None:
    layers(tmp_path / "net.onnx")
    with serving(tmp_path, "--profile", "full", "-o", "out.json") as served, phone(tmp_path) as page:
        page.goto(served.address)
        page.get_by_text("timing").wait_for(timeout=60_000)
        page.close()
        assert served.process.wait(timeout=60) == 6
    assert served.stderr.splitlines()[-1] == "error: the page was closed"
    assert not (tmp_path / "said/out.json").exists()


@needs_browser
def test_ctrl_c_before_any_page_ends_it(tmp_path: Path) -> None:
    layers(tmp_path / "net.onnx")
    with serving(tmp_path) as served:
        assert served.address.startswith("http://localhost:")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(timeout=30) == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no .onnx file in "),
        (["--backend", "cuda"], "--backend cuda: there are wasm and webgpu"),
        (["--threads", "0"], "--threads 0: give whole numbers from 1"),
        (["-o", "no/such/folder/x.json"], "no folder no/such/folder"),
    ],
)
def test_wrong_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    if arguments:
        layers(tmp_path / "net.onnx")
    done = CliRunner().invoke(app, ["serve-bench", str(tmp_path), *arguments])
    assert message in str(done.exception)
    assert done.exception.exit_code == 2  # type: ignore[union-attr]


def right(one: Any) -> None:
    assert one.numerics.passed
    assert one.numerics.snr_db > 100
    assert one.latency is not None
    assert one.config.runtime == f"onnxruntime-web {browser.VERSION} on wasm"


def left() -> list[str]:
    """Processes of browsers that this test's process started: all are gone, within a moment."""
    for _ in range(50):
        mine = psutil.Process(os.getpid()).children(recursive=True)
        found = [one.info["name"] for one in psutil.process_iter(["name", "cmdline"]) if _is_ours(one, mine)]
        if not found:
            return []
        time.sleep(0.1)
    return found


def _is_ours(one: psutil.Process, mine: list[psutil.Process]) -> bool:
    return "chrom" in (one.info["name"] or "") and one in mine
