"""Generator folders: what is written is read again; what is damaged is refused with the file's name."""

import json
from pathlib import Path

import pytest
import torch

from edgegen.errors import DataError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import CARD, CONFIG, WEIGHTS, save
from edgegen.models.load import load
from edgegen.models.zero_layers import randomize_zero_layers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = EdgeUNet(EdgeUNetConfig(sample_size=8, channels=(8, 16), blocks=1, num_classes=3, embedding=16))
    randomize_zero_layers(network, 0)
    save(network, tmp_path / "g", about={"name": "x", "role": "student"})
    return tmp_path / "g"


def test_round_trip(folder: Path) -> None:
    loaded = load(folder)
    again = load(folder)
    x, t, labels = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([0, 2])
    assert torch.equal(loaded.net(x, t, labels), again.net(x, t, labels))
    assert loaded.signature.num_classes == 3
    assert loaded.signature.image_shape == (1, 8, 8)
    assert loaded.about["role"] == "student"
    assert json.loads((folder / CONFIG).read_text())["_class_name"] == "EdgeUNet"
    assert (folder / CARD).read_text().startswith("---\nlibrary_name: edgegen\n")
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".json", ".md", ".safetensors"]


def test_what_is_damaged_or_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no generator folder .*nowhere: it should hold config.json"):
        load(tmp_path / "nowhere")
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-10])
    with pytest.raises(DataError, match=f"{WEIGHTS}: not a safetensors file, or cut short"):
        load(folder)
    (folder / WEIGHTS).write_bytes(weights)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "channels": [8, 24]}))
    with pytest.raises(DataError, match=r"safetensors: these weights do not fit the network: .* in the file and .* in"):
        load(folder)
    (folder / CONFIG).write_text(json.dumps({**config, "_class_name": "UNet3D"}))
    with pytest.raises(DataError, match="_class_name is 'UNet3D'; there are: EdgeUNet, UNet2DModel"):
        load(folder)
    for broken in ({**config, "channels": []}, {**config, "channels": "abc"}, {**config, "blocks": "two"}):
        (folder / CONFIG).write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"config\.json: not the settings of an EdgeUNet: "):
            load(folder)
    (folder / CONFIG).write_text("null")
    with pytest.raises(DataError, match="_class_name is None; there are"):
        load(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(DataError, match=r"no config.json; found README.md, diffusion"):
        load(folder)


def test_a_network_with_a_second_time_comes_back_and_its_card_says_so(tmp_path: Path) -> None:
    network = EdgeUNet(EdgeUNetConfig(sample_size=8, channels=(8, 16), blocks=1, embedding=16, second_time=True)).eval()
    randomize_zero_layers(network, 0)
    save(network, tmp_path / "g", about={"name": "x", "role": "student"})
    again = load(tmp_path / "g").net
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    assert torch.equal(network(x, t, r=t / 2), again(x, t, r=t / 2))
    assert "one step is x = z - u(z, 1, 0)." in (tmp_path / "g" / CARD).read_text()
