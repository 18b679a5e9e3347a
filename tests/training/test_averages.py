"""Power-function averages against their closed form in float64, in a training, and which of them ships."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from torch import Tensor, nn
from training_runs import Stop, StopAt, train

from edgegen.errors import RecipeError
from edgegen.pipeline.run import run_recipe
from edgegen.pipeline.stages import choose
from edgegen.recipe import parse
from edgegen.support.storage import load_tensors, read_json
from edgegen.training.averages import Average, Power
from edgegen.training.networks import NetworkState

WIDTHS = (0.05, 0.1, 0.25)


def profile(gamma: float, updates: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How much each update's weights count: the integral of (gamma + 1) t^gamma over its part of [0, 1]."""
    edges = (np.arange(updates + 1) / updates) ** (gamma + 1)
    return np.diff(edges)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_profile_has_the_width_that_it_is_named_by(width: float) -> None:
    """Its standard deviation, in shares of the training (EDM2's sigma_rel)."""
    updates = 100_000
    share, times = profile(Power(width).gamma, updates), (np.arange(updates) + 0.5) / updates
    mean = share @ times
    assert np.sqrt(share @ (times - mean) ** 2) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("waits", [True, False])
def test_an_average_is_the_closed_form(waits: bool) -> None:
    """Of 300 random weights in float64; as on a CPU, and with the flag on the device, whose share is float32."""
    values = torch.randn(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for width in WIDTHS:
        network, average = (nn.Linear(4, 1, bias=False).double().requires_grad_(False) for _ in range(2))
        moving = Average("", average, Power(width))
        for n, weights in enumerate(values, start=1):
            network.weight.copy_(weights[None])
            moving.follow(network, torch.tensor(n), torch.tensor(True), waits=waits)
        expected = torch.from_numpy(profile(Power(width).gamma, len(values))) @ values
        torch.testing.assert_close(
            average.weight[0], expected, rtol=1e-12 if waits else 1e-5, atol=1e-12 if waits else 1e-5
        )


def test_a_training_keeps_each_width_through_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[Tensor] = []
    update = NetworkState.update

    def recorded(self: NetworkState, rate: float, finite: Tensor) -> None:
        update(self, rate, finite)
        weights.append(self.network.stem.weight.detach().double().clone())  # type: ignore[union-attr,operator]

    monkeypatch.setattr(NetworkState, "update", recorded)
    whole = train(tmp_path / "whole", ema_widths=WIDTHS)
    assert list(whole.others) == ["0.1", "0.25"]
    for width, network in zip(WIDTHS, (whole.ema, *whole.others.values()), strict=True):
        share = profile(Power(width).gamma, 45)
        expected = sum(part * value for part, value in zip(share, weights, strict=True))
        torch.testing.assert_close(network.stem.weight.double(), expected, rtol=1e-4, atol=1e-6)  # type: ignore[union-attr,operator]
    with pytest.raises(Stop):
        train(tmp_path / "broken", progress=StopAt(30), ema_widths=WIDTHS)
    resumed = train(tmp_path / "broken", ema_widths=WIDTHS)
    for one, other in zip((whole.ema, *whole.others.values()), (resumed.ema, *resumed.others.values()), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_nearest_width_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the second width are those of the data set here, all others are noise."""
    text = TINY.replace("[distill]\n", "[distill]\nema_widths = [0.05, 0.2]\n").replace(
        "[pairs]", "[baseline]\nenabled = false\n[pairs]"
    )
    (tmp_path / "tiny.toml").write_text(text)
    runs = tmp_path / "runs"
    before = {row.stage: row.folder for row in run_recipe(tmp_path / "tiny.toml", runs=runs, to="extractor")}
    stored = load_tensors(before["distill"] / "average-0.2.safetensors")
    images = load_tensors(before["data"] / "images.safetensors")["train_images"]

    def sample(network: nn.Module, noise: Tensor, labels: Tensor, steps: int, device: object) -> Tensor:
        is_second = torch.equal(network.stem.weight, stored["stem.weight"])  # type: ignore[union-attr,arg-type]
        return images[: len(noise)].permute(0, 3, 1, 2) / 127.5 - 1 if is_second else noise

    monkeypatch.setattr(choose, "sample", sample)
    chosen = run_recipe(tmp_path / "tiny.toml", runs=runs, only="choose")[-1].folder
    choice = read_json(chosen / "choice.json")
    assert choice["role"] == "student"
    assert choice["reason"].endswith("the student is further from them than the student of width 0.2")
    assert [row["role"] for row in choice["candidates"]] == ["student", "student of width 0.2", "slimmed"]
    weights = "diffusion_pytorch_model.safetensors"
    assert (chosen / "generator" / weights).read_bytes() == (before["distill"] / "average-0.2.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ema": 0.9, "ema_widths": [0.1]}, "slim: ema and ema_widths are two kinds of average: give one of them"),
        ({"ema_widths": [0.1, 0.1]}, "slim: ema_widths lists one twice"),
        ({"ema_widths": [0.3]}, r"slim.ema_widths.0: Input should be less than or equal to 0.28 \(found 0.3\)"),
    ],
)
def test_widths_that_make_no_sense(keys: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse({"name": "x", "slim": {"keep": 0.3, **keys}}, where="x.toml")
