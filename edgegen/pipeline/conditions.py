"""The conditions of a run: what its images are to be of, from the folder of the stage data.

They are the classes of the images, or smaller copies of them (data.upscale). Samples of a network, and comparisons of
files, take those of held-out images, whose large ones are the truth; what trains takes those of training images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgegen.flow.condition import condition_spec, unpacked
from edgegen.program.inputs import RealInputs
from edgegen.support.pixels import scaled
from edgegen.support.rng import generator
from edgegen.support.storage import load_tensors, read_json
from edgegen.types import Signature

SMALL = "{}_small"  # name of the smaller copies of a part: uint8 (n, height, width, channels)


def conditions_of(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], part: str) -> Tensor | None:
    """Of all images of "train" or "heldout": classes (n,), or uint8 images (n, channels, height, width); None: neither.

    `tensors` and `facts` are images.safetensors and data.json.
    """
    if facts["num_classes"]:
        return tensors[f"{part}_labels"]
    small = tensors.get(SMALL.format(part))
    return None if small is None else small.permute(0, 3, 1, 2).contiguous()


def heldout_rows(tensors: Mapping[str, Tensor], count: int) -> Tensor:
    """The held-out images whose small copies samples 0, 1, 2, ... are made from: (count,).

    In an order of their own, again from the first after the last: a folder has its images by their classes.
    """
    order = torch.randperm(len(tensors["heldout_images"]), generator=generator(0))
    return order[torch.arange(count) % len(order)]


def of_samples(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], count: int, *, seed: int) -> Tensor | None:
    """Of samples that are compared with real images, as networks take them: classes as often as the training set has
    them, a seeded draw; or small copies of held-out images, in the order of `heldout_rows`; None: neither.
    """
    if facts["num_classes"]:
        return training_rows(tensors["train_labels"], 0, count, seed=seed)
    small = conditions_of(tensors, facts, "heldout")
    return None if small is None else unpacked(small[heldout_rows(tensors, count)])


def training_rows(conditions: Tensor, first: int, count: int, *, seed: int) -> Tensor:
    """Those of the samples from `first` on: each as often as the others, in an order of this seed."""
    order = torch.randperm(len(conditions), generator=generator(seed))
    return conditions[order[torch.arange(first, first + count) % len(order)]]


def real_inputs(inputs: Mapping[str, Path], signature: Signature) -> RealInputs | None:
    """For a generator whose condition is an image: those of training images to train and calibrate with, of held-out
    ones to compare with; `inputs` has the stage data. None for another generator, whose inputs are all drawn.
    """
    spec = condition_spec(signature)
    if spec is None or spec.role != "image":
        return None
    tensors, facts = load_tensors(inputs["data"] / "images.safetensors"), read_json(inputs["data"] / "data.json")
    training, heldout = (conditions_of(tensors, facts, part) for part in ("train", "heldout"))
    assert training is not None, "the signature is that of the data"
    assert heldout is not None
    order = torch.randperm(len(training), generator=generator(0))
    parts = training[order], heldout[heldout_rows(tensors, len(heldout))]
    calibration, verification = ({spec.name: scaled(part).numpy()} for part in parts)
    return RealInputs(calibration, verification)
