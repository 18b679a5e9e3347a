"""Best of N: the choice is that of the highest score, of a known log ratio; what is saved scores as before."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import CONFIG
from edgegen.models.verifier import Verifier, load, save
from edgegen.support.storage import read_json, write_json
from edgegen.training.ratio_network import Encoder, RatioNetwork, ratio_network

TINY = EdgeUNetConfig(sample_size=4, channels=(8, 16), blocks=1, num_classes=3, embedding=8)


class Brightness(nn.Module):
    """A log ratio that grows with the mean of the image."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return x.mean(dim=(1, 2, 3))


def identity(noise: Tensor, labels: Tensor | None) -> Tensor:
    return noise


def test_the_best_image_is_the_one_with_the_highest_log_ratio() -> None:
    verifier = Verifier(Brightness(), 0.1, 0.5)  # type: ignore[arg-type]
    noise = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn: list[Tensor] = []

    def kept(z: Tensor, labels: Tensor | None) -> Tensor:
        drawn.append(z.clone())
        return z

    best = verifier.best_of(5, kept, noise, None)
    candidates = torch.stack(drawn)
    assert torch.equal(candidates[0], noise)
    assert len({row.numpy().tobytes() for row in candidates.flatten(0, 1)}) == 200
    winners = candidates.mean(dim=(2, 3, 4)).argmax(dim=0)
    assert torch.equal(best, candidates[winners, torch.arange(40)])
    assert len(set(winners.tolist())) == 5
    assert torch.equal(verifier.best_of(1, identity, noise, None), noise)


def test_an_image_does_not_depend_on_its_batch() -> None:
    verifier = Verifier(Brightness(), 0.1, 0.5)  # type: ignore[arg-type]
    noise = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = verifier.best_of(3, identity, noise, None)
    assert torch.equal(whole[4:], verifier.best_of(3, identity, noise[4:], None))


@pytest.mark.parametrize("encoder", ["teacher", "small"])
def test_what_is_saved_gives_the_mean_log_ratio_over_its_times(encoder: Encoder, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = EdgeUNet(TINY)
    network = ratio_network(encoder, student, EdgeUNet(TINY), width=8)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    save(network, tmp_path / "verifier", low=0.2, high=0.6)
    images, labels = torch.randn(5, 1, 4, 4), torch.arange(5) % 3
    rng, logits = torch.Generator(), []
    got = load(tmp_path / "verifier")
    assert isinstance(got.network, RatioNetwork)
    scores = got.scores(images, labels)
    from edgegen.support.rng import generator

    rng = generator(0)
    for time in (0.25, 0.35, 0.45, 0.55):
        noise = torch.randn(1, 4, 4, generator=rng)
        logits.append(network((1 - time) * images + time * noise, torch.full((5,), time), labels))
    torch.testing.assert_close(scores, torch.stack(logits).mean(dim=0).detach())
    assert scores.std() > 0.01
    config = read_json(tmp_path / "verifier" / CONFIG)
    write_json(tmp_path / "verifier" / CONFIG, {**config, "encoder": {"channels": "many"}})
    with pytest.raises(DataError, match=r"config\.json: not the settings of a verifier: .*train the student again"):
        load(tmp_path / "verifier")
