"""SIGTERM or Ctrl-C while a command has children: after two seconds no process and no temporary folder is left."""

import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from browser_parts import layers, needs_browser
from helpers import TINY, command, environment
from small_nets import SIGNATURE, Net, sigmoid

WITHIN_S, START_S = 2.0, 240.0
MARK = "EDGEGEN_OF_THIS_TEST"  # in the environment of all that a command starts, whoever its parent is
CHILD, SERVICE, RUNNER, BROWSER = (
    "edgegen.support.isolation",
    "edgegen.support.service",
    "_runner",  # in Python or C++
    "--headless",
)


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


class Running:
    """A command with temporary folders of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        # A short name: that of a browser's socket has some 100 characters.
        self.mark, self.temporary = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="t"))
        variables = {MARK: self.mark, "TMPDIR": str(self.temporary)}
        self.family: list[psutil.Process] = []  # a browser's processes write over their environment
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command(*arguments),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env=environment() | variables,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell passes "ignored" on
        )

    def processes(self) -> list[psutil.Process]:
        """All that live, the command itself among them, and not the guardian, which ends last."""
        ours = [process for process in {*psutil.process_iter(), *self.family} if self._is_ours(process)]
        return [process for process in ours if "edgegen.support.guardian" not in command_line(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            is_ours = process in self.family or process.environ().get(MARK) == self.mark
            return is_ours and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _folders(self) -> list[Path]:
        """Those of edgegen and of a browser, not the caches of torch and onnxruntime, which are for the next start."""
        return [path for path in self.temporary.iterdir() if not path.name.startswith((".ses", "torchinductor_"))]

    def has(self, word: str) -> bool:
        """Whether a process with this word in its command line runs."""
        return any(word in command_line(process) for process in self.processes())

    def wait_for(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + START_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self._fail("it did not get there")
            time.sleep(0.02)

    def _fail(self, why: str) -> NoReturn:
        left = self.processes()
        files = self._folders()
        self.log.seek(0)
        log = self.log.read()
        self.log.close()
        commands = [command_line(process)[:200] for process in left]
        for process in left:
            process.kill()
        self.process.wait()
        shutil.rmtree(self.temporary)
        pytest.fail(f"{why}: {log}\n{commands}\n{files}")

    def end(self, number: signal.Signals, within_s: float = WITHIN_S) -> int:
        """The exit code; all is gone by then, or the test has failed."""
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        end = time.monotonic() + within_s
        while self.process.poll() is None or self.processes() or self._folders():
            if time.monotonic() > end:
                self._fail(f"left after {within_s} s")
            time.sleep(0.02)
        self.log.seek(0)
        assert "Traceback" not in self.log.read()
        self.log.close()
        shutil.rmtree(self.temporary)
        return self.process.returncode


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nets.py with a factory and its signature, and net_onnx_fp32.onnx."""
    from edgegen.artifacts.build import build, unchecked
    from edgegen.artifacts.target import Target
    from edgegen.formats.manifest import write_manifest
    from edgegen.program.one_step import OneStep

    folder = tmp_path_factory.mktemp("place")
    made = build(
        OneStep(Net()).eval(),
        SIGNATURE,
        name="net",
        target=Target.parse("onnx-fp32"),
        folder=folder,
        seed=0,
        metadata={},
    ).artifact
    write_manifest(folder, [made], SIGNATURE, lineage={}, parity=unchecked([made]))
    (folder / "nets.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(1, 1, 3, padding=1).eval()\n")
    rows = 'name = "{}"\nshape = ["batch_size", 1, 8, 8]\nrole = "{}"\n'
    signature = "[[inputs]]\n" + rows.format("x", "noise") + "[[outputs]]\n" + rows.format("y", "image")
    (folder / "net.toml").write_text(signature)
    return folder


EXPORT = ("export", "nets.py:net", "--signature", "net.toml", "--to", "coreml-fp16,executorch", "-o", "out")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("sample", "net_onnx_fp32.onnx"), SERVICE),
        (("profile", "net_onnx_fp32.onnx", "--profile", "full"), RUNNER),
        (EXPORT, CHILD),
    ],
)
def test_sigterm_leaves_nothing(arguments: tuple[object, ...], word: str, place: Path) -> None:
    running = Running(place, *arguments)
    running.wait_for(lambda: running.has(word))
    assert running.end(signal.SIGTERM) in (143, -signal.SIGKILL)  # the second where a vendor's code held it up


def test_an_interrupted_profile_ends_at_once(tmp_path: Path) -> None:
    """While many workers are starting: none of those that wait for their turn is started any more."""
    names = [sigmoid(tmp_path / f"net{number}.onnx").name for number in range(8)]
    running = Running(tmp_path, "profile", *names)
    running.wait_for(lambda: "starting" in (tmp_path / "log").read_text() or running.has(RUNNER))
    assert running.end(signal.SIGINT, 6.0) == 130


def test_a_killed_export_leaves_nothing(place: Path) -> None:
    """Of Core ML and ExecuTorch, by kill -9, which the command itself never hears of."""
    running = Running(place, *EXPORT)
    running.wait_for(lambda: running.has(CHILD))
    assert running.end(signal.SIGKILL) == -signal.SIGKILL


@needs_browser
@pytest.mark.devices
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_browser(tmp_path: Path, number: signal.Signals) -> None:
    running = Running(tmp_path, "profile", layers(tmp_path / "net.onnx"), "--device", "browser", "--profile", "full")
    running.wait_for(lambda: running.has(BROWSER))
    assert running.end(number) in (143, -signal.SIGKILL)


@pytest.mark.slow
def test_sigterm_in_the_stages_with_children(tmp_path: Path) -> None:
    """One run that is ended in each of them and goes on, with Core ML among its files."""
    artifacts = '[export]\nartifacts = ["onnx-fp32", "coreml-fp16", "coreml-w8", "onnx-w8a8"]\n'
    (tmp_path / "tiny.toml").write_text(TINY + artifacts)
    for stage, word in (("export", CHILD), ("quantize", CHILD), ("verify", SERVICE), ("profile", RUNNER)):
        running = Running(tmp_path, "run", "tiny.toml")
        stages = tmp_path / "runs" / "tiny" / stage
        running.wait_for(
            lambda stages=stages, running=running, word=word: any(stages.glob("*.partial")) and running.has(word)
        )
        assert running.end(signal.SIGTERM) in (143, -signal.SIGKILL)
        assert list(stages.glob("*.partial")), "it was over before it was ended"
    last = subprocess.run(
        command("run", "tiny.toml"), cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert last.returncode == 0, last.stderr
