"""FID's features: only the published file is taken, nothing is downloaded, and FID is torch-fidelity's."""

import hashlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import DataError, MissingExtraError
from edgegen.metrics import frechet
from edgegen.metrics import inception as module
from edgegen.metrics.inception import check_inception, load_inception

CPU = torch.device("cpu")


class StandIn(nn.Module):
    """torch-fidelity's class as far as it is used here: two sums of the uint8 pixels, times a weight of the file."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        assert (name, features_list) == ("inception-v3-compat", ["2048"])
        self.gain = nn.Parameter(torch.load(feature_extractor_weights_path)["gain"])

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        sums = images.double().flatten(1).sum(dim=1)
        return (torch.stack([sums, images[:, 0].double().flatten(1).sum(dim=1)], dim=1).float() * self.gain,)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file in the place of the published one, and a stand-in for torch-fidelity."""
    path = tmp_path / "weights.pth"
    torch.save({"gain": torch.tensor(2.0)}, path)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    package = types.ModuleType("torch_fidelity")
    package.__spec__ = importlib.util.spec_from_loader("torch_fidelity", loader=None, origin="here")
    inner = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    inner.FeatureExtractorInceptionV3 = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", inner)
    return path


def test_images_are_given_as_they_are_shown(weights: Path) -> None:
    space = load_inception(weights, device=CPU)
    images = torch.tensor([-1.0, 1.0, 0.5, 3.0]).reshape(1, 1, 2, 2).repeat(70, 1, 1, 1)
    gray = 255 + 191 + 255  # 0.5 rounds to 191, and 3 is cut to white
    assert space.features(images).tolist() == [[2.0 * 3 * gray, 2.0 * gray]] * 70
    with pytest.raises(DataError, match="images of 2 channels; Inception and DINOv2 see images of 1 channel or 3"):
        space.features(torch.zeros(1, 2, 4, 4))


def test_weights_that_are_not_the_published_ones_are_refused(weights: Path, tmp_path: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"not the file of weights that FID .*SHA-256 is \w{16}\.\.\., needed \w{16}"):
        load_inception(weights, device=CPU)
    with pytest.raises(DataError, match=r"no file .*nothing\.pth; nothing is downloaded here: get https://.*6726825d"):
        check_inception(tmp_path / "nothing.pth")


def test_without_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.support.extras._is_absent", lambda package: package == "torch_fidelity")
    with pytest.raises(MissingExtraError, match=r"FID needs 'torch_fidelity', .* pip install 'edgegen\[fid\]'"):
        load_inception(tmp_path / "any.pth", device=CPU)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torch_fidelity", "torchvision"))),
    reason="the extra fid, which is not in [all], is not installed",
)
def test_fid_is_that_of_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights in the published layout: the published ones are a download."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
    path = tmp_path / "weights.pth"
    torch.save(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict(), path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    images = [torch.rand(24, 3, 16, 16) * 2 - 1, (torch.rand(24, 3, 16, 16) * 2 - 1) * 0.7]
    sets = [((x + 1) * 127.5).round().to(torch.uint8) for x in images]
    space = load_inception(path, device=CPU)
    ours = frechet(*(space.features(x).astype(np.float64) for x in images))
    theirs = torch_fidelity.calculate_metrics(
        input1=_Images(sets[0]),
        input2=_Images(sets[1]),
        fid=True,
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=str(path),
    )["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-3)


class _Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]
