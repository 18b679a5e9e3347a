"""`edgegen tune` with real files, real times and planted rewrites, on this machine and on a board behind ssh."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from torch import fx

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuned_files import Tuning
from edgegen.exporters.onnx.backend import BACKEND
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.devices.ssh import SshDevice
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent

NET = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    wide = [layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *wide, nn.Conv2d(16, 3, 3, padding=1))
"""
NARROW = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    narrow = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)]
    wide = nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, 16, 1), wide, nn.Conv2d(16, 1, 1), *narrow, nn.Conv2d(1, 3, 1))
"""
SIGNATURE = """
[[inputs]]
name = "sample"
shape = ["batch_size", 3, 32, 32]
role = "noise"
[[outputs]]
name = "picture"
shape = ["batch_size", 3, 32, 32]
role = "image"
low = -1.0
high = 1.0
"""
SHORT = ProfileOptions(min_runs=10, max_seconds=0.6, timeout_seconds=120.0)
ATEN = torch.ops.aten
CASES = 10  # of which the first two, one of each kind, run with the tests of devices, the others with the slow ones


def slowed(times: int) -> Any:
    """A rewrite that computes every convolution `times` more, and adds next to nothing of that."""

    def rewrite(module: fx.GraphModule) -> None:
        for node in [node for node in module.graph.nodes if node.target is ATEN.conv2d.default]:
            users, total = list(node.users), node
            for number in range(times):
                with module.graph.inserting_before(users[0]):
                    x = module.graph.call_function(ATEN.mul.Tensor, (node.args[0], 1.1 + number))
                    again = module.graph.call_function(ATEN.conv2d.default, (x, *node.args[1:]))
                    total = module.graph.call_function(ATEN.add.Tensor, (total, again), {"alpha": 1e-6})
            for user in users:
                user.replace_input_with(node, total)
        module.recompile()

    return SimpleNamespace(rewrite=rewrite)


def shortened(module: fx.GraphModule) -> None:
    """A rewrite that is fast and wrong: half of the convolutions are left out."""
    convolutions = [node for node in module.graph.nodes if node.target is ATEN.conv2d.default]
    for node in [node for node in convolutions if node.args[0].target is not ATEN.mul.Tensor][1:-1:2]:
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)
    module.recompile()


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("candidates")


@pytest.fixture(params=["host", "ssh"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ssh":
        options = ("-F", str(request.getfixturevalue("sshd") / "client"))
        monkeypatch.setattr("edgegen.artifacts.tuning_bench.connect", lambda name: SshDevice("board", options=options))
    else:
        monkeypatch.setattr("edgegen.artifacts.tuning_bench.connect", lambda name: HostDevice())
    return str(request.param)


def plant(monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], others: dict[str, Any]) -> None:
    """The rewrites of the ONNX backend, `own` by its own choice and `others` that it does not take."""
    planted = own | others
    monkeypatch.setattr("edgegen.exporters.rewrites._load", lambda name: planted[name])
    for where in ("artifacts.lower.all_rewrites", "artifacts.tuning_switches.names"):
        monkeypatch.setattr(f"edgegen.{where}", lambda: sorted(planted))
    monkeypatch.setattr("edgegen.artifacts.tuning_switches.speed_passes", lambda backend, variant: {})
    # Or the wrong file would be noticed where it is made, and written without the rewrite that makes it wrong.
    monkeypatch.setattr("edgegen.artifacts.lower.fault_of", lambda *_: "")
    shorter(monkeypatch)
    object.__setattr__(BACKEND, "rewrites", tuple(own))


def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file at a time, which this process makes, and short measurements."""
    monkeypatch.setattr("edgegen.artifacts.tuning_bench.parallel_children", lambda generator: 1)
    for name in ("QUICK", "FINAL"):
        monkeypatch.setattr(f"edgegen.artifacts.tuning_bench.{name}", SHORT)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.devices if case < 2 else pytest.mark.slow) for case in range(CASES)]
)
def test_the_fastest_of_planted_files_is_kept_and_no_wrong_one(
    case: int, place: str, tmp_path: Path, candidates: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In even cases the runtime's own choice is slow, in odd ones what it does not take; one is fast and wrong."""
    slow, wrong = slowed(3), SimpleNamespace(rewrite=shortened)
    own, others = ({"slow": slow}, {}) if case % 2 == 0 else ({}, {"slow": slow})
    before = BACKEND.rewrites
    try:
        plant(monkeypatch, own, {**others, "wrong": wrong})
        row = _tuned(tmp_path, place, candidates / str(case % 2))
    finally:
        object.__setattr__(BACKEND, "rewrites", before)
    facts = row["details"]["tuned"]
    assert facts["rewrites"] == ({"slow": False} if case % 2 == 0 else {}), facts["candidates"]
    assert facts["device"] == place
    assert row["parity"]["status"] == "ok"
    (refused,) = (one for one in facts["candidates"] if one["candidate"] == "onnx-fp32, with wrong, 1 thread")
    assert refused["verdict"].startswith("refused: failed against PyTorch:")
    assert "p50_ms" not in refused


@pytest.mark.devices
def test_layers_of_an_8_bit_file_are_left_float_where_that_is_faster(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions of one channel gain nothing by 8 bits: each has two conversions as large as itself."""
    monkeypatch.setattr("edgegen.artifacts.tuning_bench.connect", lambda name: HostDevice())
    monkeypatch.setattr("edgegen.artifacts.tuning_switches.speed_switches", lambda target, options: [])
    shorter(monkeypatch)
    row = _tuned(tmp_path, "host", tmp_path / "candidates", net=NARROW, scheme="w8a8")
    facts = row["details"]["tuned"]
    tried = {one["candidate"]: one for one in facts["candidates"]}
    narrow = tried["onnx-w8a8, with float narrow convolutions, 1 thread"]
    plain = tried["onnx-w8a8, 1 thread"]
    assert (facts["kept"], facts["rewrites"]) == (narrow["candidate"], {}), facts["candidates"]
    assert facts["float_layers"] == [f"net.{number}" for number in (0, 2, 3, 4, 5, 6, 7)]
    assert (row["sha256"], row["parity"]["status"]) == (narrow["sha256"], "ok")
    assert narrow["parity"]["psnr_db"] > plain["parity"]["psnr_db"]
    graph = onnx.load(tmp_path / "out" / row["file"]).graph
    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) == 2, "around the one layer that stays 8 bits"


def _tuned(folder: Path, place: str, candidates: Path, *, net: str = NET, scheme: str = "fp32") -> dict[str, Any]:
    """The files are those of an earlier case, the measurements new."""
    shutil.rmtree(candidates / "times", ignore_errors=True)
    (folder / "net.py").write_text(net)
    (folder / "net.toml").write_text(SIGNATURE)
    tuning = Tuning(place, seconds=300.0, one_of_all=True, folder=candidates)
    settings = ExportSettings((Target("onnx", scheme),), measure=False, samples=4, tuning=tuning)
    source = f"{folder / 'net.py'}:make"
    export_source(source, folder / "out", settings, signature=folder / "net.toml", progress=Silent())
    (row,) = json.loads((folder / "out" / "manifest.json").read_text())["artifacts"]
    return dict(row)
