"""The latents of a run's images: encoded once, in the stage `data`, at a scale of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgegen.errors import DataError
from edgegen.formats.stage_folder import AUTOENCODER
from edgegen.pipeline.graph import Context
from edgegen.pipeline.methods import keeps_scale
from edgegen.pipeline.sample_space import batch_of
from edgegen.recipe import Recipe
from edgegen.support.bounded_files import user_path
from edgegen.support.pixels import scaled
from edgegen.support.storage import load_tensors, save_tensors
from edgegen.training.distributed import state

LATENTS = "latents.safetensors"
USUAL = (0.5, 2.0)  # standard deviations of latents that a teacher who was brought along may have been trained on
LEAST = 1e-6  # deviation: latents that differ by less hold nothing of the images


def autoencoder_facts(recipe: Recipe, image_shape: list[int], *, base: Path) -> dict[str, Any]:
    """What data.json says of the autoencoder; nothing without one. Raises DataError where it does not fit."""
    if recipe.data.autoencoder is None:
        return {}
    from edgegen.models.diffusers.autoencoder import latent_shape, load_autoencoder

    autoencoder = load_autoencoder(user_path(recipe.data.autoencoder, base=base))
    kind = str(autoencoder.config["_class_name"])
    return {"autoencoder": {"kind": kind}, "sample_shape": latent_shape(autoencoder, image_shape)}


def write_latents(context: Context, images: Mapping[str, Tensor]) -> dict[str, Any]:
    """latents.safetensors: float16 (n, channels, height, width) of both parts; and the folder autoencoder.

    They are the modes of the posteriors, divided by their standard deviation over the training part, which the config
    in that folder undoes. Those of a teacher that is brought along stay as the autoencoder's own config scales them: it
    was trained on these. Returns what data.json says of them. Raises DataError for latents that hold nothing.
    """
    from edgegen.models.diffusers.autoencoder import load_autoencoder

    recipe = context.recipe
    assert recipe.data.autoencoder is not None, "checked by the caller"
    autoencoder = load_autoencoder(user_path(recipe.data.autoencoder, base=context.base))
    device = state().device
    autoencoder.network.to(device)
    autoencoder.decoder.to(device)
    parts = {name: images[f"{name}_images"] for name in ("train", "heldout")}
    latents: dict[str, Tensor] = {}
    with context.progress.task("encoding images", sum(map(len, parts.values()))) as task, torch.no_grad():
        done = 0
        for name, pixels in parts.items():
            encoded: list[Tensor] = []
            for batch in torch.split(pixels, batch_of([*pixels.shape[1:3]])):
                encoded.append(autoencoder.encode(scaled(batch.to(device).permute(0, 3, 1, 2))).cpu())
                done += len(batch)
                task.update(done)
            latents[name] = torch.cat(encoded)
    deviation, mean = _statistics(latents["train"], recipe)
    if keeps_scale(recipe):
        if not USUAL[0] <= deviation <= USUAL[1]:
            context.progress.message(
                f"data: by the scaling_factor of data.autoencoder the latents have a standard deviation of "
                f"{deviation:.3g}, where teachers are trained on about 1: is it the teacher's autoencoder?"
            )
        scale, offset = 1.0, 0.0
    else:
        scale, offset = deviation, 0.0 if autoencoder.has_channel_statistics else mean
    autoencoder.save(context.folder / AUTOENCODER, deviation=scale, mean=offset)
    stored = {name: ((values - offset) / scale).half() for name, values in latents.items()}
    save_tensors(context.folder / LATENTS, stored)
    facts = {"kind": str(autoencoder.config["_class_name"]), "divided_by": scale, "minus": offset}
    return {"autoencoder": {**facts, "deviation": float(stored["train"].float().std())}}


def read_latents(folder: Path) -> Mapping[str, Tensor]:
    """ "train" and "heldout" of a finished stage data; nothing where it has no autoencoder."""
    path = folder / LATENTS
    return load_tensors(path) if path.is_file() else {}


def _statistics(latents: Tensor, recipe: Recipe) -> tuple[float, float]:
    """Standard deviation and mean over all values of the training part."""
    values = latents.double()
    deviation, mean = float(values.std()), float(values.mean())
    if not bool(torch.isfinite(latents).all()):
        raise DataError(f"data.autoencoder: {recipe.data.autoencoder} gives latents that are not finite")
    if deviation < LEAST:
        raise DataError(f"data.autoencoder: {recipe.data.autoencoder} gives all images the same latent")
    return deviation, mean
