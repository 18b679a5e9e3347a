"""A folder with a diffusers UNet2DModel and its scheduler as a teacher."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError
from edgegen.models.diffusers.schedule import (
    EDM,
    FLOW,
    VARIANCE_PRESERVING,
    Schedule,
    read_schedule,
    require_signal,
)
from edgegen.models.diffusers.velocity import FAINTEST, FlowVelocity, ScheduledVelocity, velocity_of
from edgegen.models.diffusers.weights import CONFIG, load_diffusers, new_net, read_config
from edgegen.models.generator import ABOUT, Loaded
from edgegen.support.extras import require
from edgegen.support.storage import read_json, storage_errors, write_json
from edgegen.support.vendor_logs import DIFFUSERS, quiet
from edgegen.types import Signature

UNCONDITIONAL = "unconditional_class"  # key of edgegen.json: the last class stands for no class
MOST_TERMINAL_SIGNAL = 0.02  # of the data at the last time; DDPM's linear schedule has 0.006, Stable Diffusion's 0.068


def load_unet2d(folder: Path) -> Loaded:
    """A folder with a UNet2DModel and `scheduler_config.json`, or a pipeline folder with both. Raises DataError."""
    require("diffusers", purpose=f"reading the UNet2DModel in {folder}")
    with quiet(DIFFUSERS):
        from diffusers import UNet2DModel  # diffusers imports it on access: here, so that its messages are suppressed
    in_pipeline = (folder / "model_index.json").exists()
    schedule_path = folder / ("scheduler/" if in_pipeline else "") / "scheduler_config.json"
    if not schedule_path.exists():
        raise DataError(f"{folder}: no {schedule_path.name}; it defines the UNet2DModel's times and noise levels")
    schedule = read_schedule(schedule_path, kinds=VARIANCE_PRESERVING + FLOW + EDM)
    require_signal(schedule, schedule_path, least=FAINTEST)
    unet, notes = load_diffusers(folder / "unet" if in_pipeline else folder, UNet2DModel, random_weights=None)
    signature = _signature(folder, unet.config)
    net = velocity_of(unet, schedule, schedule_path)
    net.time_grid(1)  # settings that its scheduler refuses are an error now
    about = {"role": "teacher", "from": "diffusers UNet2DModel"}
    own = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    if not in_pipeline:
        about |= own
    loaded = Loaded(net.eval().requires_grad_(False), signature, about, [*notes, *_terminal_notes(schedule)])
    return with_unconditional_class(loaded) if UNCONDITIONAL in own else loaded


def with_unconditional_class(loaded: Loaded) -> Loaded:
    """The same where the last class of a UNet2DModel stands for no class: that is where diffusers' networks have it."""
    net, signature = loaded.net, loaded.signature
    assert isinstance(net, ScheduledVelocity)
    net.unconditional_class = signature.num_classes - 1
    size = (signature.image_shape[1], signature.image_shape[2])
    signature = Signature.of(channels=signature.image_shape[0], size=size, num_classes=net.num_classes)
    return replace(loaded, signature=signature, about={**loaded.about, UNCONDITIONAL: net.unconditional_class})


def new_unet2d(path: Path, signature: Signature, *, seed: int) -> FlowVelocity:
    """A new UNet2DModel by its config.json, as a velocity to be trained, for images of this signature.

    Raises DataError.
    """
    folder = path.parent if path.name == CONFIG else path
    require("diffusers", purpose=f"a UNet2DModel of {path}")
    config = read_config(folder)
    if config.get("_class_name") != "UNet2DModel":
        raise DataError(f"{folder / CONFIG}: _class_name is {config.get('_class_name')!r}; a student is a UNet2DModel")
    with quiet(DIFFUSERS):
        from diffusers import UNet2DModel
    unet: Any = new_net(folder, lambda: UNet2DModel.from_config(config), seed)
    if unet.config.out_channels != unet.config.in_channels:
        raise DataError(f"{folder / CONFIG}: out_channels must be in_channels, {unet.config.in_channels}")
    own = _signature(folder, unet.config)
    if (own.image_shape, own.num_classes) != (signature.image_shape, signature.num_classes):
        raise DataError(
            f"{folder / CONFIG}: for images {list(own.image_shape)} of {own.num_classes} classes, the data are "
            f"{list(signature.image_shape)} of {signature.num_classes}: set in_channels, out_channels, sample_size and "
            "num_class_embeds (null: no classes)"
        )
    return FlowVelocity(unet, Schedule(STRAIGHT["_class_name"], STRAIGHT["num_train_timesteps"], "flow", STRAIGHT))


def save_unet2d(network: nn.Module, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Writes a UNet2DModel and its scheduler as diffusers reads them, and what it is. The inverse of `load_unet2d`."""
    assert isinstance(network, FlowVelocity)
    unet: Any = network.unet
    with quiet(DIFFUSERS), storage_errors(folder):
        unet.save_pretrained(folder, safe_serialization=True)
    write_json(folder / "scheduler_config.json", dict(network.schedule.settings))
    signature = _signature(folder, unet.config).to_dict()
    write_json(folder / ABOUT, {"schema": "edgegen.generator/1", "signature": signature, **about})


# The straight path, its times counted to 1000.
STRAIGHT: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 1.0,
}


def _signature(folder: Path, config: Any) -> Signature:
    channels, size = config.in_channels, config.sample_size
    if config.out_channels not in (channels, 2 * channels):  # twice as many: a learned variance
        raise DataError(
            f"{folder}: {channels} channels in and {config.out_channels} out; needed: as many, or twice as many with a "
            "learned variance. None is read that takes an image beside the noise; data.upscale trains its own teacher"
        )
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise DataError(f"{folder}: sample_size is {size!r}; give the height and width, as one number or two")
    return Signature.of(channels=channels, size=sides, num_classes=config.num_class_embeds or 0)


def _terminal_notes(schedule: Schedule) -> list[str]:
    """What to know of a network whose training has never seen pure noise, from which it is sampled here.

    "Common diffusion noise schedules and sample steps are flawed" (arXiv:2305.08891), section 3.1; One More Step
    (arXiv:2311.15744) is a remedy.
    """
    if schedule.alphas_cumprod is None:
        return []
    signal = math.sqrt(float(schedule.alphas_cumprod.double()[-1]))
    if signal < MOST_TERMINAL_SIGNAL:
        return []
    return [
        f"the noisiest image of its training still holds {100 * signal:.1f} % of the image (terminal noise that is not "
        "zero SNR): from pure noise its images tend to a middling brightness, and so do those of its students"
    ]
