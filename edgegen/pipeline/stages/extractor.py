"""The stage `extractor`: a small classifier of the data set, whose features are compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgegen import registry
from edgegen.metrics.extractor import (
    CLASSIFIER,
    ROTATIONS,
    SIGNAL_CLASSIFIER,
    TRANSFORMATIONS,
    LocalExtractor,
    SmallCNN,
    accuracy,
    cross_entropy,
    fd_name,
    local_extractor,
    pretext_labels,
)
from edgegen.metrics.sanity import check_features
from edgegen.pipeline.graph import Context
from edgegen.pipeline.stored_images import IMAGES, in_range, stored
from edgegen.recipe import Training
from edgegen.support.pixels import floats
from edgegen.support.rng import generator
from edgegen.support.storage import load_tensors, read_json, save_tensors, write_json
from edgegen.training.batch import TrainingSet
from edgegen.training.distributed import accelerator
from edgegen.training.log import HELDOUT
from edgegen.training.loop import fit
from edgegen.training.stopping import Stopping, flat

WEIGHTS = "extractor.safetensors"
JUDGED = 2_000  # most held-out images that are damaged: enough to see the distance grow
REFERENCE = 10_000  # most training images to compare with: precision and recall look at every pair


def extractor(context: Context) -> None:
    """A small classifier of the data set (of rotations, where there are no labels): extractor.safetensors and .json."""
    images = load_tensors(context.inputs["data"] / IMAGES)
    about = read_json(context.inputs["data"] / "data.json")
    train, train_labels, classes = _task(images, "train")
    heldout, heldout_labels, _ = _task(images, "heldout")
    torch.manual_seed(context.seed)
    network = small_cnn(list(train.shape[1:]), classes)
    steps = context.recipe.evaluate.extractor_steps
    settings = extractor_settings(steps)
    machine = accelerator(context.recipe.compute.precision)
    fitted = fit(
        registry.load("objective", "classification")(),
        TrainingSet(train, train_labels),
        student=network,
        frozen={},
        settings=settings,
        seed=context.seed,
        folder=context.folder,
        accelerator=machine,
        progress=context.progress,
        label="extractor",
        stopping=_stopping(heldout, heldout_labels, context.seed),
    )["student"]
    if not machine.is_main_process:
        return
    assert isinstance(fitted.ema, SmallCNN)
    save_tensors(context.folder / WEIGHTS, dict(fitted.ema.state_dict()))
    by_label, by_itself = (SIGNAL_CLASSIFIER, TRANSFORMATIONS) if train.ndim == 3 else (CLASSIFIER, ROTATIONS)
    task = by_label if "train_labels" in images else by_itself
    score = accuracy(fitted.ema, floats(heldout), heldout_labels)
    trained = local_extractor(fitted.ema, task=task, source=about["source"], accuracy=score)
    real, others = (
        _drawn(images, part, most, context.seed) for part, most in (("train", REFERENCE), ("heldout", JUDGED))
    )
    sanity = check_features(trained, trained.features(real), others, classes=classes, seed=context.seed)
    if sanity.fault:
        context.progress.message(f"extractor: no figure of quality will be shown: {sanity.fault}")
    facts = {"name": trained.name, "fd_name": fd_name(trained), "accuracy": score, "task": task, "classes": classes}
    write_json(context.folder / "extractor.json", {**facts, "sanity": sanity.to_dict()})


def extractor_settings(steps: int) -> Training:
    """How the extractor is trained."""
    return Training(steps=steps, batch=128, learning_rate=2e-3, warmup=50, ema=0.9)


def _stopping(pixels: Tensor, labels: Tensor, seed: int) -> Stopping:
    """Ends the training where cross entropy on held-out images has not fallen by 2 % in 200 steps."""
    rows = torch.randperm(len(pixels), generator=generator(seed))[:JUDGED]
    return Stopping(
        HELDOUT,
        lambda network: cross_entropy(network, floats(pixels[rows]), labels[rows]),
        every=50,
        reason=flat(patience=4, gain=0.98),
    )


def _task(images: Mapping[str, Tensor], part: str) -> tuple[Tensor, Tensor, int]:
    pixels = stored(images, part)
    if f"{part}_labels" in images:
        return pixels, images[f"{part}_labels"], int(images["train_labels"].max()) + 1
    turned, labels = pretext_labels(pixels)
    return turned, labels, 4


def _drawn(images: Mapping[str, Tensor], part: str, most: int, seed: int) -> Tensor:
    """At most so many images in [-1, 1], of all classes alike: a file may have them in the order of their classes."""
    return in_range(images, part, torch.randperm(len(images[f"{part}_images"]), generator=generator(seed))[:most])


def small_cnn(image_shape: Sequence[int], classes: int) -> SmallCNN:
    """A new classifier of images (channels, height, width), or of signals (channels, length)."""
    return SmallCNN(channels=image_shape[0], classes=classes, signal=len(image_shape) == 2)


def load_extractor(folder: Path, image_shape: list[int]) -> LocalExtractor:
    """The extractor of a finished stage."""
    facts = read_json(folder / "extractor.json")
    network = small_cnn(image_shape, facts["classes"])
    network.load_state_dict(load_tensors(folder / WEIGHTS))
    return LocalExtractor(network.eval(), facts["accuracy"], facts["name"])


def feature_fault(folder: Path) -> str:
    """Why the features of a finished stage are no measure of quality, "" where they are one."""
    fault: str = read_json(folder / "extractor.json")["sanity"]["fault"]
    return fault
