"""`edgegen serve-bench` with a browser that somebody else started, as a phone's is."""

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser_parts import layers, needs_browser, right
from helpers import command, environment
from typer.testing import CliRunner

from edgegen.cli.main import app
from edgegen.profilers.devices import chromium
from edgegen.profilers.schema import Profile, read


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
            if measured := re.search(r"http://\S+#\S+\n", self.stderr):
                return measured[0].strip()
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
    measured = read(tmp_path / "said/out.json")
    assert [record.config.threads_actual for record in measured.results] == [1, 2]
    for record in measured.results:
        right(record)
    assert cells[0] == "net.onnx, 1 thread"
    assert "net.onnx, 2 threads" in served.stdout
    assert measured.target["cross_origin_isolated"]
    assert measured.target["cpu"] is None
    assert refused == []


@needs_browser
@pytest.mark.devices
def test_an_insecure_origin_has_one_thread_and_says_so(tmp_path: Path) -> None:
    layers(tmp_path / "net.onnx")
    """By an address of this machine that is not its loopback: 192.0.2.7 is nobody's (RFC 5737)."""
    flags = ("--host-resolver-rules=MAP 192.0.2.7 127.0.0.1",)
    with serving(tmp_path, "--lan", "--threads", "2", "--json") as served, phone(tmp_path, *flags) as page:
        _, _, rest = served.address.removeprefix("http://").partition(":")
        page.goto(f"http://192.0.2.7:{rest}")
        page.get_by_text("Done. This page can be closed.").wait_for(timeout=120_000)
        assert "insecure" in page.locator("#notes").inner_text()
        assert served.process.wait(timeout=30) == 0, served.stderr
    assert "browsers call the address insecure: one thread" in served.stderr
    measured = Profile.model_validate_json(served.stdout)
    (record,) = measured.results
    assert record.config.threads_actual == 1
    assert "2 threads were asked, 1 ran: an insecure context" in " ".join(record.verdict.reasons)
    assert "adb reverse tcp:" in record.verdict.reasons[-1]
    assert measured.target["secure_context"] is False
    assert measured.target["gpu"] is None
    assert measured.target["clock_step_ms"] > 0.05


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
