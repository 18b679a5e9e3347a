"""A real browser without a window, started by edgegen."""

import contextlib
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest
from browser_parts import layers, needs_browser, right
from onnx import TensorProto, helper
from small_nets import scaling
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices import browser, chromium
from edgegen.profilers.devices.browser import HeadlessDevice
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.files.profile import connect, profile_files, runners_of
from edgegen.profilers.schema import read
from edgegen.profilers.timing import protocol
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.2, timeout_seconds=60.0, warm_seconds=0.0)


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
    monkeypatch.setattr("edgegen.profilers.files.profile.PROFILES", {"quick": FEW})


@needs_browser
@pytest.mark.devices
def test_files_are_measured_in_a_browser_with_one_and_two_threads(
    tmp_path: Path, quick: None, in_process: None
) -> None:
    files = [layers(tmp_path / "ein Netz.onnx"), layers(tmp_path / "beside.onnx", beside=True)]
    given = ["--device", "browser", "--threads", "1,2", "-o", str(tmp_path / "out.json")]
    done = CliRunner().invoke(app, ["profile", *map(str, files), *given])
    assert done.exit_code == 0, done.exception
    measured = read(tmp_path / "out.json")
    assert [one.config.threads_actual for one in measured.results] == [1, 2, 1, 2]
    for one in measured.results:
        right(one)
        assert one.peak_rss_bytes is None
    assert set(measured.target) > set(HostDevice().probe())
    assert measured.target["cross_origin_isolated"]
    assert measured.others_cores is not None
    assert measured.target["user_agent"] in done.stdout
    assert str(tmp_path) not in json.dumps(measured.to_json())
    assert left() == []


@needs_browser
@pytest.mark.devices
def test_a_gpu_in_software_has_no_latency(tmp_path: Path, in_process: None) -> None:
    device = HeadlessDevice("webgpu", flags=("--use-webgpu-adapter=swiftshader",))
    measured = profile_files([layers(tmp_path / "net.onnx")], device, options=FEW, progress=Silent())
    (one,) = measured.results
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
        busy = began()
        assert device.browser is not None
        device.browser.process.send_signal(signal.SIGKILL)
        device.browser.process.wait()
        return busy

    monkeypatch.setattr(device, "busy", dies)
    with pytest.raises(DeviceError, match="the browser ended with -9"):
        profile_files([layers(tmp_path / "net.onnx")], device, options=FEW, progress=Silent())
    assert left() == []


@needs_browser
@pytest.mark.devices
def test_weights_beside_a_file_reach_the_browser_under_their_name(tmp_path: Path, in_process: None) -> None:
    files = [scaling(tmp_path / "a" / "net.onnx", 1.0), scaling(tmp_path / "b" / "net.onnx", 2.0)]
    names = ["a-net.onnx", "b-net.onnx"]
    measured = profile_files(files, HeadlessDevice("wasm"), names=names, options=FEW, progress=Silent()).results
    assert [record.verdict.reasons for record in measured if not record.numerics.passed] == []


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
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    with contextlib.closing(HeadlessDevice("wasm")) as device, pytest.raises(DeviceError, match=message):
        device.probe()
    (ours,) = (tmp_path / "t").iterdir()
    assert [path.name for path in ours.iterdir()] == ["lock.edgegen"]


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
        runners = runners_of(device)
    assert runners[".onnx"] == f"onnxruntime-web {browser.VERSION} on wasm"
    assert runners[".pte"] == "no: a .pte does not run in a browser; .onnx files do"


def left() -> list[str]:
    """Processes of browsers that this test's process started: all are gone, within a moment."""
    for _ in range(50):
        mine = psutil.Process(os.getpid()).children(recursive=True)
        names = [
            process.info["name"] for process in psutil.process_iter(["name", "cmdline"]) if _is_ours(process, mine)
        ]
        if not names:
            return []
        time.sleep(0.1)
    return names


def _is_ours(process: psutil.Process, mine: list[psutil.Process]) -> bool:
    return "chrom" in (process.info["name"] or "") and process in mine
