"""The bench that waits for a CUDA machine: its comparison takes every objective, and notices a wrong gradient."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from edgegen import registry


@pytest.fixture(scope="module")
def bench(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("bench_cuda")


def test_losses_and_gradients_of_all_objectives(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TARGETS", {"fp32": bench.TARGETS["fp32"]})
    rows = {row["check"]: row for row in bench.check_losses(torch.device("cpu"))}
    for name in registry.BUILT_IN["objective"]:
        if not registry.load("objective", name)().needs & bench.NOT_HERE:
            for part in ("loss", "gradient"):
                row = rows.pop(f"{part} of {name}, fp32")
                assert row["error"] <= row["target"] / 10
    assert not rows


def test_a_wrong_gradient_is_seen(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.nn.functional.group_norm

    def wrong(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        y = right(x, *arguments)
        return y if x.dtype == torch.float64 else y.detach() + 0.9 * (y - y.detach())

    monkeypatch.setattr(torch.nn.functional, "group_norm", wrong)
    monkeypatch.setattr(
        registry, "BUILT_IN", {"objective": {"flow_matching": registry.BUILT_IN["objective"]["flow_matching"]}}
    )
    rows = {row["check"]: row for row in bench.check_losses(torch.device("cpu"))}
    assert rows["loss of flow_matching, fp32"]["error"] <= 1e-3
    assert rows["gradient of flow_matching, fp32"]["error"] > rows["gradient of flow_matching, fp32"]["target"]
