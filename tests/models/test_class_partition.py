"""Several students: each image is its own network's, and each network learns from its classes alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.class_partition import ClassPartition, parts_of
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import CONFIG
from edgegen.models.load import load, save
from edgegen.models.sources.load import load_sources
from edgegen.support.storage import read_json, write_json

CONFIGURATION = EdgeUNetConfig(sample_size=4, channels=(8, 8), blocks=1, num_classes=5, embedding=8, second_time=True)


def random_partition(count: int) -> ClassPartition:
    torch.manual_seed(0)
    network = ClassPartition([EdgeUNet(CONFIGURATION) for _ in range(count)])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def inputs(labels: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = len(labels)
    return torch.randn(count, 1, 4, 4), torch.rand(count), torch.tensor(labels), torch.zeros(count)


def test_the_parts_are_all_classes_in_order_and_of_one_size() -> None:
    assert parts_of(10, 2) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert parts_of(5, 2) == [[0, 1], [2, 3, 4]]
    for classes in range(1, 12):
        for count in range(1, classes + 1):
            parts = parts_of(classes, count)
            assert [number for part in parts for number in part] == list(range(classes))
            assert {len(part) for part in parts} <= {classes // count, classes // count + 1}


def test_every_image_is_by_the_network_of_its_class_and_trains_it_alone() -> None:
    network = random_partition(2)
    x, t, labels, r = inputs([4, 0, 3, 1, 0, 2])
    out = network(x, t, labels, r)
    for row, label in enumerate(labels.tolist()):
        own = network.networks[0 if label < 2 else 1]
        only = own(x[row : row + 1], t[row : row + 1], labels[row : row + 1], r[row : row + 1])
        torch.testing.assert_close(out[row : row + 1], only)
    network.zero_grad()
    network(*inputs([0, 1, 1])).square().sum().backward()
    first, second = ([p.grad for p in part.parameters()] for part in network.networks)
    assert any(grad is not None and bool(grad.any()) for grad in first)
    assert all(grad is None for grad in second)
    with pytest.raises(ValueError, match="pass class_labels"):
        network(x, t)


def test_a_folder_of_several_students_is_read_again_and_gives_one_source_each(tmp_path: Path) -> None:
    network, folder = random_partition(2), tmp_path / "generator"
    save(network, folder, about={"role": "student"})
    loaded = load(folder)
    given = inputs([0, 4, 2])
    torch.testing.assert_close(loaded.net(*given), network(*given))
    assert (loaded.signature.num_classes, loaded.about["role"]) == (5, "student")
    sources = load_sources(str(folder))
    assert [(source.name, source.serves) for source in sources] == [
        ("generator-0", (0, 1)),
        ("generator-1", (2, 3, 4)),
    ]
    x, _, labels, _ = given
    one, zero = torch.ones(1), torch.zeros(1)
    expected = x[1:2] - network(x[1:2], one, labels[1:2], zero)
    torch.testing.assert_close(sources[1].module(x[1:2], labels[1:2]), expected)
    write_json(folder / CONFIG, {**read_json(folder / CONFIG), "students": 9})
    with pytest.raises(DataError, match="not the settings of a ClassPartition: 9 students of 5 classes"):
        load(folder)
