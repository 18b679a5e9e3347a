"""The router of several students' files: each image is made by the files of its class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.router import routed
from edgegen.artifacts.sample import _open
from edgegen.artifacts.sessions import ImageSource
from edgegen.artifacts.target import Target
from edgegen.errors import DataError
from edgegen.formats.manifest import MANIFEST
from edgegen.formats.router import ROUTER, Route, read_router, write_router
from edgegen.models.class_partition import ClassPartition
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.load import save
from edgegen.program.one_step import NOISE_TIME, OneStep
from edgegen.support.progress import Silent
from edgegen.support.storage import read_json
from edgegen.types import Signature

SIGNATURE = Signature.of(channels=1, size=4, num_classes=4)


def test_each_image_comes_from_the_source_of_its_class(tmp_path: Path) -> None:
    def source(number: int) -> ImageSource:
        def run(inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            return inputs["sample"] + 100 * number

        return ImageSource(run, SIGNATURE, "made up", tmp_path)

    whole = routed(tmp_path, [Route("a", (0, 2)), Route("b", (1, 3))], [source(1), source(2)])
    noise = np.arange(5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)
    made = whole.run({"sample": noise, "class_labels": np.array([3, 0, 2, 1, 0])})
    offsets = np.array([200, 100, 100, 200, 100], np.float32)[:, None, None, None]
    np.testing.assert_array_equal(made, noise + offsets)
    assert "2 students by class" in whole.method


def test_a_router_that_leads_elsewhere_or_leaves_out_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_router(tmp_path, [Route("a", (0, 1))])
    assert read_router(tmp_path) == [Route("a", (0, 1))]
    for routes, reason in (
        ([Route("a", (0, 2))], r"the classes are \[0, 2\]"),
        ([Route("../a", (0, 1))], r"no folder '\.\./a' beside it"),
        ([Route("gone", (0, 1))], "no folder 'gone' beside it"),
        ([], "the classes are"),
    ):
        write_router(tmp_path, routes)
        with pytest.raises(DataError, match=f"router.json: not a router of edgegen's .*{reason}"):
            read_router(tmp_path)


def test_an_export_of_several_students_is_sampled_by_class(tmp_path: Path, in_process_of_module: None) -> None:
    """Through ONNX: the same images as the whole partition's in PyTorch."""
    torch.manual_seed(0)
    config = EdgeUNetConfig(sample_size=4, channels=(8, 8), blocks=1, num_classes=4, embedding=8)
    network = ClassPartition([EdgeUNet(config), EdgeUNet(config)]).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    save(network, tmp_path / "generator", about={"role": "student"})
    settings = ExportSettings((Target.parse("onnx"),), samples=2, measure=False)
    results = export_source(str(tmp_path / "generator"), tmp_path / "out", settings, progress=Silent())
    assert [str(parity.status) for result in results for parity in result.parity.values()] == ["ok", "ok"]
    assert [read_json(result.folder / MANIFEST)["serves_classes"] for result in results] == [[0, 1], [2, 3]]
    assert (tmp_path / "out" / ROUTER).is_file()
    source = _open(str(tmp_path / "out"), steps=None, runs=tmp_path, best_of=1)
    noise, labels = torch.randn(5, 1, 4, 4), torch.tensor([3, 0, 2, 1, 0])
    made = source.run({"sample": noise.numpy(), "class_labels": labels.numpy()})
    with torch.no_grad():
        expected = OneStep(network, time=NOISE_TIME)(noise, labels)
        other = OneStep(network, time=NOISE_TIME)(noise, (labels + 2) % 4)
    np.testing.assert_allclose(made, expected.numpy(), atol=1e-4)
    assert float((other - expected).abs().max()) > 0.01
