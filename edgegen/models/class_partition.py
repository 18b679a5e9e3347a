"""Several small networks for one data set, each for a part of its classes (multi-student distillation).

Multi-Student Diffusion Distillation (arXiv:2410.23274) trains each student on its part of the conditions; here a batch
is divided by its classes, so that any method trains all of them in one go and each sees its share of the images. They
are exported one by one: whoever runs the files chooses by the class (edgegen.artifacts.router).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import ABOUT, CONFIG, WEIGHTS, Loaded, signature_of
from edgegen.models.weights import load_weights
from edgegen.support.storage import read_json, save_tensors, write_json

KIND = "ClassPartition"


def parts_of(num_classes: int, count: int) -> list[list[int]]:
    """The classes 0, 1, ... in `count` parts of neighbours, whose sizes differ by at most one."""
    return [list(range(i * num_classes // count, (i + 1) * num_classes // count)) for i in range(count)]


class ClassPartition(nn.Module):
    """u(x, t[, r], class) by the network whose part has the class: equal EdgeUNets, one for each of `parts_of`.

    Every network knows all classes by number, so that a file of one of them takes the labels of the whole.
    """

    def __init__(self, networks: Sequence[EdgeUNet]) -> None:
        super().__init__()
        config = networks[0].config
        self.networks = nn.ModuleList(networks)
        self.second_time, self.image_channels = config.second_time, config.in_channels
        self.num_classes = config.num_classes
        self.parts = parts_of(self.num_classes, len(networks))
        owners = [number for number, part in enumerate(self.parts) for _ in part]
        self.register_buffer("owners", torch.tensor(owners), persistent=False)
        self.owners: Tensor

    @property
    def config(self) -> EdgeUNetConfig:
        """Of each network."""
        first = self.networks[0]
        assert isinstance(first, EdgeUNet)
        return first.config

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None, r: Tensor | None = None) -> Tensor:
        """Images (batch, channels, height, width), times t and r (batch,), classes (batch,) -> velocities like x."""
        if class_labels is None:
            raise ValueError("these networks are for parts of the classes: pass class_labels (batch,)")
        owners = self.owners[class_labels]
        rows, parts = [], []
        for number, network in enumerate(self.networks):
            own = (owners == number).nonzero()[:, 0]
            if len(own):
                rows.append(own)
                parts.append(network(x[own], t[own], class_labels[own], None if r is None else r[own]))
        out: Tensor = torch.cat(parts)[torch.cat(rows).argsort()]
        return out


def save(network: ClassPartition, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Writes a generator folder. `about` says what it is: role, lineage, settings."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, network.state_dict())
    config = network.config.to_dict()
    write_json(folder / CONFIG, {"_class_name": KIND, "students": len(network.networks), "network": config})
    signature = signature_of(network.config).to_dict()
    write_json(folder / ABOUT, {"schema": "edgegen.generator/1", "signature": signature, **about})


def load(folder: Path, config: Mapping[str, Any]) -> Loaded:
    """A generator folder that `save` wrote, with what its `config.json` holds. Raises DataError."""
    try:
        settings, count = EdgeUNetConfig.from_dict(config["network"]), int(config["students"])
        if not 1 <= count <= settings.num_classes:
            raise ValueError(f"{count} students of {settings.num_classes} classes")
        network = ClassPartition([EdgeUNet(settings) for _ in range(count)])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise DataError(f"{folder / CONFIG}: not the settings of a {KIND}: {reason}") from e
    notes = load_weights(network, [folder / WEIGHTS])
    about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    return Loaded(network.eval().requires_grad_(False), signature_of(settings), about, notes)
