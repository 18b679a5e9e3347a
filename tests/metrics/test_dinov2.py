"""DINOv2's features: a small network that the test makes, read as a user's folder is; and folders that are wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgegen.errors import DataError
from edgegen.metrics.dinov2 import check_dinov2, load_dinov2

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    path = tmp_path_factory.mktemp("dinov2") / "weights"
    Dinov2Model(config).eval().save_pretrained(path)
    return path


def test_features_are_the_class_token_of_the_folder(folder: Path) -> None:
    from transformers import Dinov2Model

    space = load_dinov2(folder, device=CPU)
    assert space.name.startswith("dinov2,2 layers of 16,sha256:")
    images = torch.rand(70, 1, 8, 8) * 2 - 1
    shown = ((images + 1) * 127.5).round().clamp(0, 255) / 255
    large = torch.nn.functional.interpolate(shown.repeat(1, 3, 1, 1), (224, 224), mode="bicubic", antialias=True)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    prepared = (large.clamp(0, 1) - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(folder)(prepared).last_hidden_state[:, 0]
    np.testing.assert_allclose(space.features(images), expected.numpy(), atol=1e-4)


def test_folders_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; nothing is downloaded here: give the folder of a "):
        check_dinov2(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match=r"has no config\.json and no model\.safetensors"):
        check_dinov2(other)
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (other / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(DataError, match="holds a network of the type 'vit'"):
        check_dinov2(other)
    config = json.loads((folder / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(DataError, match=r"lacks weights, such as encoder\.layer\.2"):
        load_dinov2(other, device=CPU)
    (other / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be read: "):
        load_dinov2(other, device=CPU)
