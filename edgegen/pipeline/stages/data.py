"""The stage `data`: images as uint8 tensors, split into a training and a held-out part; and their latents."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgegen.data import ImageSet, split
from edgegen.data import load as load_images
from edgegen.data.downsampling import downsampled
from edgegen.errors import DataError
from edgegen.formats.stage_folder import sample_shape
from edgegen.pipeline.conditions import SMALL, conditions_of
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.latents import autoencoder_facts, read_latents, write_latents
from edgegen.recipe import Recipe
from edgegen.support.progress import Task
from edgegen.support.storage import load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.types import Signature

LEAST_SIZE, LEAST_IMAGES = 4, 4  # the extractor halves the size twice; precision and recall take k = 3 neighbours


def data(context: Context) -> None:
    """images.safetensors: uint8 NHWC images, split in two; data.json: their source, counts, shape and classes.

    With data.upscale also smaller copies of all images. Of a run on latents also latents.safetensors, and the folder
    autoencoder, whose config has their scale.
    """
    settings = context.recipe.data
    with contextlib.ExitStack() as stack:
        tasks: list[Task] = []  # one, started when the loader knows how many images there are

        def update(done: int, total: int) -> None:
            if not tasks:
                tasks.append(stack.enter_context(context.progress.task("reading images", total)))
            tasks[0].update(done)

        images = load_images(settings.source, base=context.base, progress=update)
    train, heldout, facts = divided(images, context.recipe, base=context.base)
    tensors = {"train_images": torch.from_numpy(train.images), "heldout_images": torch.from_numpy(heldout.images)}
    if facts["classes"] and train.labels is not None and heldout.labels is not None:
        tensors |= {"train_labels": torch.from_numpy(train.labels), "heldout_labels": torch.from_numpy(heldout.labels)}
    if settings.upscale:
        for part, whole in (("train", train), ("heldout", heldout)):
            tensors[SMALL.format(part)] = torch.from_numpy(downsampled(whole.images, settings.upscale))
    save_tensors(context.folder / "images.safetensors", tensors)
    if settings.autoencoder is not None:
        facts |= write_latents(context, tensors)
    write_json(context.folder / "data.json", facts)


def divided(images: ImageSet, recipe: Recipe, *, base: Path) -> tuple[ImageSet, ImageSet, dict[str, Any]]:
    """The training part, the held-out part, and what data.json says of them. Raises DataError."""
    settings = recipe.data
    train, heldout = split(images, holdout=settings.holdout, seed=stage_seed(recipe.seed, "data"))
    # Labels of a single class say nothing: the generator takes none, and the metrics' features need another task.
    classes = list(images.classes) if images.labels is not None and len(images.classes) > 1 else []
    _, height, width, channels = train.images.shape
    if min(height, width) < LEAST_SIZE:
        raise DataError(f"{settings.source}: images of {height}x{width} pixels; {LEAST_SIZE}x{LEAST_SIZE} is the least")
    if settings.upscale and (height % settings.upscale or width % settings.upscale):
        raise DataError(
            f"data.upscale = {settings.upscale}: {settings.source} has images of {height}x{width} pixels, which are no "
            "multiple of it: crop or resize them, or give another upscale"
        )
    if min(len(train), len(heldout)) < LEAST_IMAGES:
        raise DataError(
            f"{settings.source}: {len(train)} images to train on and {len(heldout)} held out; the metrics need "
            f"at least {LEAST_IMAGES} of each: give more images, or change data.holdout (now {settings.holdout})"
        )
    facts: dict[str, Any] = {
        "source": images.source,
        "train": len(train.images),
        "heldout": len(heldout.images),
        "image_shape": [channels, height, width],
        "classes": classes,
        "num_classes": len(classes) if settings.conditional else 0,
        **({"upscale": settings.upscale} if settings.upscale else {}),
    }
    return train, heldout, {**facts, **autoencoder_facts(recipe, facts["image_shape"], base=base)}


def signature_of_data(facts: Mapping[str, Any]) -> Signature:
    """Of a network that makes such images, or their latents; `facts` are those of data.json."""
    channels, height, width = sample_shape(facts)
    classes, upscale = facts["num_classes"], facts.get("upscale")
    return Signature.of(channels=channels, size=(height, width), num_classes=classes, upscale=upscale)


def read_training_images(folder: Path) -> TrainingSet:
    """The training part of a finished stage, with the conditions that the generator takes: images, or latents."""
    tensors = load_tensors(folder / "images.safetensors")
    condition = conditions_of(tensors, read_json(folder / "data.json"), "train")
    if latents := read_latents(folder):
        return TrainingSet(latents["train"], condition)
    return TrainingSet(tensors["train_images"].permute(0, 3, 1, 2).contiguous(), condition)
