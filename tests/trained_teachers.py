"""A UNet2DModel that is trained on the digits, in seconds, by diffusers' own loop: a teacher that a user brings."""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgegen.data import load
from edgegen.support.pixels import to_float

STEPS, BATCH = 120, 32


def digits(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The digits (n, 1, height, width) in [-1, 1], padded with background to `size`, and their classes (n,)."""
    images = load("digits", base=Path())
    assert images.labels is not None
    x = to_float(images.images)
    height, width = size[0] - x.shape[2], size[1] - x.shape[3]
    padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2), value=-1.0)
    return padded, torch.from_numpy(images.labels)


def small_unet2d(**changes: Any) -> Any:
    """A UNet2DModel of one channel, 8x8 pixels and two resolutions, without attention; with `changes` of its config."""
    import diffusers

    config = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "add_attention": False,
    }
    return diffusers.UNet2DModel(**{**config, **changes})


def train(prediction: str, size: tuple[int, int], *, conditional: bool, steps: int = STEPS, **settings: Any) -> Any:
    """The averaged weights of a UNet2DModel after `steps`; `settings` go to the scheduler that adds the noise.

    `prediction`: diffusers' "epsilon", "sample" or "v_prediction", "flow" (FlowMatchEulerDiscreteScheduler), "edm".
    """
    torch.manual_seed(0)
    net = small_unet2d(
        sample_size=size if size[0] != size[1] else size[0],
        block_out_channels=(16, 32),
        num_class_embeds=10 if conditional else None,
    )
    images, labels = digits(size)
    average, adam = copy.deepcopy(net).eval(), torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        rows = torch.randint(len(images), (BATCH,))
        sample, time, target, weight = _noisy(prediction, images[rows], settings)
        out = net(sample, time, class_labels=labels[rows] if conditional else None).sample
        loss = (weight * (out - target).square()).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay = min(0.98, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
    return average


def _noisy(prediction: str, x: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(the network's input, its time, its target, the loss's weight) for images x, as diffusers' scripts do."""
    import diffusers

    e, one = torch.randn_like(x), torch.ones(())
    if prediction == "flow":
        t = torch.rand(len(x))
        s = t[:, None, None, None]
        return (1 - s) * x + s * e, 1000 * t, e - x, one
    if prediction == "edm":  # arXiv:2206.00364, table 1, sigma_data = 0.5
        sigma = torch.exp(1.2 * torch.randn(len(x)) - 1.2)[:, None, None, None]
        total = sigma**2 + 0.25
        skip, out, scale = 0.25 / total, sigma * 0.5 / total.sqrt(), total.rsqrt()
        noisy = x + sigma * e
        return scale * noisy, 0.25 * sigma.log().flatten(), (x - skip * noisy) / out, one
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction, **settings)
    time = torch.randint(1000, (len(x),))
    target = {"epsilon": e, "sample": x, "v_prediction": scheduler.get_velocity(x, e, time)}[prediction]
    return scheduler.add_noise(x, e, time), time, target, one
