"""A folder with a diffusers UNet2DModel and its scheduler as a teacher."""

from pathlib import Path
from typing import Any

from edgegen.errors import DataError
from edgegen.models.diffusers.schedule import EDM, FLOW, VARIANCE_PRESERVING, read_schedule, require_signal
from edgegen.models.diffusers.velocity import FAINTEST, velocity_of
from edgegen.models.diffusers.weights import load_diffusers
from edgegen.models.generator import Loaded
from edgegen.support.extras import require
from edgegen.support.vendor_logs import DIFFUSERS, quiet
from edgegen.types import Signature


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
    return Loaded(net.eval().requires_grad_(False), signature, about, notes)


def _signature(folder: Path, config: Any) -> Signature:
    channels, size = config.in_channels, config.sample_size
    if config.out_channels not in (channels, 2 * channels):  # twice as many: a learned variance
        raise DataError(
            f"{folder}: {channels} channels in and {config.out_channels} out; needed: as many, or twice as many with a "
            "learned variance"
        )
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise DataError(f"{folder}: sample_size is {size!r}; give the height and width, as one number or two")
    return Signature.of(channels=channels, size=sides, num_classes=config.num_class_embeds or 0)
