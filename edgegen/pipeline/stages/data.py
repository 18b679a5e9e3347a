"""The stage `data`: images as uint8 tensors, or signals, split into a training and a held-out part; and latents."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.data import ImageSet, split
from edgegen.data import load as load_images
from edgegen.data.downsampling import downsampled
from edgegen.errors import DataError
from edgegen.formats.stage_folder import sample_shape
from edgegen.pipeline.conditions import SMALL, conditions_of
from edgegen.pipeline.graph import Context, stage_seed
from edgegen.pipeline.latents import autoencoder_facts, read_latents, write_latents
from edgegen.pipeline.signals import check_signals, normalised
from edgegen.pipeline.stored_images import IMAGES, stored
from edgegen.recipe import Data, Recipe
from edgegen.support.progress import Task
from edgegen.support.storage import load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.types import Signature

LEAST_DEVIATION = 0.05  # of a channel in [-1, 1]
LEAST_SIZE, LEAST_IMAGES = 4, 4  # the extractor halves the size twice; precision and recall take k = 3 neighbours


def data(context: Context) -> None:
    """images.safetensors: uint8 NHWC images, split in two; data.json: their source, counts, shape and classes.

    Of signals float32 (n, channels, length) in [-1, 1], and data.json also has their units. With data.upscale also
    smaller copies of all images. Of a run on latents also latents.safetensors, and the folder autoencoder, whose config
    has their scale.
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
    values = {"train": train.images, "heldout": heldout.images}
    if train.are_signals:
        values, units = normalised(train, heldout)
        facts |= units
        _warn_of_outliers(context, values["train"])
    tensors = {f"{part}_images": torch.from_numpy(array) for part, array in values.items()}
    if facts["classes"] and train.labels is not None and heldout.labels is not None:
        tensors |= {"train_labels": torch.from_numpy(train.labels), "heldout_labels": torch.from_numpy(heldout.labels)}
    if settings.upscale:
        for part, whole in (("train", train), ("heldout", heldout)):
            tensors[SMALL.format(part)] = torch.from_numpy(downsampled(whole.images, settings.upscale))
    save_tensors(context.folder / IMAGES, tensors)
    if settings.autoencoder is not None:
        facts |= write_latents(context, tensors)
    write_json(context.folder / "data.json", facts)


def divided(images: ImageSet, recipe: Recipe, *, base: Path) -> tuple[ImageSet, ImageSet, dict[str, Any]]:
    """The training part, the held-out part, and what data.json says of them. Raises DataError."""
    settings = recipe.data
    train, heldout = split(images, holdout=settings.holdout, seed=stage_seed(recipe.seed, "data"))
    # Labels of a single class say nothing: the generator takes none, and the metrics' features need another task.
    classes = list(images.classes) if images.labels is not None and len(images.classes) > 1 else []
    if train.are_signals:
        check_signals(recipe)
        shape = list(train.images.shape[1:])
    else:
        shape = _image_shape(train, settings)
    kind = "signal" if train.are_signals else "image"
    if min(len(train), len(heldout)) < LEAST_IMAGES:
        raise DataError(
            f"{settings.source}: {len(train)} {kind}s to train on and {len(heldout)} held out; the metrics need "
            f"at least {LEAST_IMAGES} of each: give more {kind}s, or change data.holdout (now {settings.holdout})"
        )
    facts: dict[str, Any] = {
        "source": images.source,
        "train": len(train.images),
        "heldout": len(heldout.images),
        "image_shape": shape,
        "classes": classes,
        "num_classes": len(classes) if settings.conditional else 0,
        **({"upscale": settings.upscale} if settings.upscale else {}),
    }
    return train, heldout, {**facts, **autoencoder_facts(recipe, facts["image_shape"], base=base)}


def _image_shape(train: ImageSet, settings: Data) -> list[int]:
    """(channels, height, width). Raises DataError for images that the metrics or data.upscale cannot do with."""
    _, height, width, channels = train.images.shape
    if min(height, width) < LEAST_SIZE:
        raise DataError(f"{settings.source}: images of {height}x{width} pixels; {LEAST_SIZE}x{LEAST_SIZE} is the least")
    if settings.upscale and (height % settings.upscale or width % settings.upscale):
        raise DataError(
            f"data.upscale = {settings.upscale}: {settings.source} has images of {height}x{width} pixels, which are no "
            "multiple of it: crop or resize them, or give another upscale"
        )
    return [channels, height, width]


def _warn_of_outliers(context: Context, signals: NDArray[np.float32]) -> None:
    """Of channels that hardly use their range, of which a network sees little, and 8 bits keep little."""
    for channel, deviation in enumerate(signals.std(axis=(0, 2))):
        if deviation < LEAST_DEVIATION:
            context.progress.message(
                f"data: channel {channel} has a standard deviation of {deviation / 2:.1%} of its range, which a few "
                "values span: cut them off, or give the logarithm"
            )


def signature_of_data(facts: Mapping[str, Any]) -> Signature:
    """Of a network that makes such images or signals, or their latents; `facts` are those of data.json."""
    return Signature.of_shape(sample_shape(facts), num_classes=facts["num_classes"], upscale=facts.get("upscale"))


def read_training_images(folder: Path) -> TrainingSet:
    """The training part of a finished stage, with the conditions that the generator takes: images, or latents."""
    tensors = load_tensors(folder / IMAGES)
    condition = conditions_of(tensors, read_json(folder / "data.json"), "train")
    if latents := read_latents(folder):
        return TrainingSet(latents["train"], condition)
    return TrainingSet(stored(tensors, "train"), condition)
