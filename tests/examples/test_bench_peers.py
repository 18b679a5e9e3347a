"""The bench of peers: a race of edgegen's file and the plain one, peers that fail, and the goals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.types import Signature

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def bench(example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return example("bench_peers")


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, sample: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(sample).relu() + t[:, None, None, None])
        return out


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.jit's, torch.onnx's own
def test_a_race_has_a_row_for_each_file_and_for_each_peer_that_fails(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = bench.BenchNet(Tiny, Signature.of(channels=1, size=8, num_classes=0))
    monkeypatch.setattr(bench, "NETS", {"tiny": net})
    monkeypatch.setattr(bench, "OURS", {"edgegen onnx": "onnx"})
    monkeypatch.setattr(bench, "SCHEMES", {"fp32": "fp32"})
    monkeypatch.setitem(bench.PEERS, "nobody", bench.Peer("onnx"))
    rows = bench.bench("tiny", ["torch.onnx", "nobody"], tmp_path, rounds=3, venvs=None)
    by_peer = {row["peer"]: row for row in rows}
    assert by_peer["nobody"]["error"] == "exit code 1: KeyError: 'nobody'"
    ours, plain = by_peer["edgegen onnx"], by_peer["torch.onnx"]
    assert ours["ratio"] == ours["over_best"] == 1.0
    for row in (ours, plain):
        assert row["psnr_db"] > 100
        assert row["rounds"] == 3
        assert row["operations"]
        assert 0 < row["least_ms"] <= row["median_ms"]
    assert plain["bytes"] == (tmp_path / "plain.onnx").stat().st_size
    # What was made is kept: with nothing to start from, it is raced again.
    (tmp_path / "net.pt2").unlink()
    again = bench.peer_file("torch.onnx", "fp32", tmp_path, None)
    assert (again.path, again.nbytes) == (tmp_path / "plain.onnx", plain["bytes"])
    assert {line.count("|") for line in bench.table(rows).splitlines()} == {9}


def test_a_runner_says_what_is_wrong_in_one_line(bench: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    np.save(tmp_path / "sample.npy", np.zeros((1, 1), np.float32))
    runner = bench.Runner(sys.executable, "onnx", tmp_path / "log")
    try:
        with pytest.raises(bench.Failed, match="InvalidProtobuf") as told:
            runner.ask(open=str(tmp_path / "broken.onnx"), inputs=[str(tmp_path / "sample.npy")])
        assert "\n" not in str(told.value)
        runner.process.kill()
        with pytest.raises(bench.Failed, match="killed by signal 9"):
            runner.ask(time=0)
    finally:
        runner.close()


def test_inputs_that_would_have_to_be_unpickled_are_refused(bench: ModuleType, tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", np.array([{}], dtype=object), allow_pickle=True)
    runner = bench.Runner(sys.executable, "onnx", tmp_path / "log")
    try:
        with pytest.raises(bench.Failed, match="allow_pickle=False"):
            runner.ask(open="any.onnx", inputs=[str(tmp_path / "sample.npy")])
    finally:
        runner.close()


class RoundedInterpreter:
    """In place of LiteRT's: doubles, by tensors of 8 bits with scales of their own."""

    def __init__(self, **_: Any) -> None:
        self.numbers: dict[int, np.ndarray[Any, Any]] = {}

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"name": "args_0", "index": 0, "dtype": np.int8, "quantization": (0.25, 4)}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"name": "out", "index": 1, "dtype": np.int8, "quantization": (0.5, -2)}]

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [{"op_name": "MUL"}]

    def set_tensor(self, index: int, numbers: np.ndarray[Any, Any]) -> None:
        assert numbers.dtype == np.int8
        self.numbers[index] = numbers

    def invoke(self) -> None:
        doubled = 2 * 0.25 * (self.numbers[0].astype(float) - 4)
        self.numbers[1] = (doubled / 0.5 - 2).astype(np.int8)

    def get_tensor(self, index: int) -> np.ndarray[Any, Any]:
        return self.numbers[index]


def test_whole_numbers_of_litert_go_by_their_scales(
    example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("ai_edge_litert.interpreter")
    module.Interpreter = RoundedInterpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    opened = example("peers/runner").litert("any.tflite", 1)
    assert opened.run([np.array([-1.0, 0.5, 100.0], np.float32)]).tolist() == [
        -2.0,
        1.0,
        61.5,
    ]  # the last one is clipped
    assert opened.operations == {"MUL": 1}


def rows_where(bench: ModuleType, over_best: float, *, without: str = "") -> list[dict[str, Any]]:
    peers = [peer for peer in bench.PEERS if peer != without]
    return [
        {"net": net, "peer": peer, "scheme": scheme, "over_best": over_best if peer == "mnn" else 2.0}
        for net in (*bench.LARGE, bench.RESPELLED)
        for scheme in bench.SCHEMES
        for peer in peers
    ]


def test_the_goals_are_met_where_no_peer_is_faster_and_every_one_ran(bench: ModuleType) -> None:
    assert all(goal["met"] for goal in bench.goals(rows_where(bench, 1.0)))
    faster = bench.goals(rows_where(bench, 0.9))
    assert [goal["met"] for goal in faster] == [False] * 6
    assert all(goal["name"].endswith("(mnn)") and goal["value"] == 0.9 for goal in faster)
    assert [goal["value"] for goal in bench.goals(rows_where(bench, 1.0, without="ncnn"))] == [None] * 6


def test_the_manual_has_the_table_of_the_rows(bench: ModuleType) -> None:
    rows = json.loads((EXAMPLES / "bench_peers.json").read_text())["rows"]
    assert bench.table(rows) in (EXAMPLES / "bench_peers.md").read_text()
