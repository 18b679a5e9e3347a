"""A recipe on signals: what of it is for images alone is refused, before anything trains."""

from typing import Any

from numpy.typing import NDArray

from edgegen import registry
from edgegen.artifacts.target import Target
from edgegen.data import ImageSet
from edgegen.errors import RecipeError
from edgegen.exporters.base import Backend
from edgegen.formats.signal_units import UNITS, SignalUnits
from edgegen.pipeline.methods import flipping
from edgegen.recipe import DIFFUSERS, Recipe


def check_signals(recipe: Recipe) -> None:
    """Raises RecipeError that names the first key of a recipe that signals do not allow, and what to do."""
    network = recipe.slim.network
    faults = {
        "data.upscale": recipe.data.upscale and "makes large images of small ones",
        "data.autoencoder": recipe.data.autoencoder and "is of images",
        "evaluate.inception": recipe.evaluate.inception and "sees images",
        "evaluate.dinov2": recipe.evaluate.dinov2 and "sees images",
        "slim.network": isinstance(network, str) and network.startswith(f"{DIFFUSERS}:") and "is a UNet2DModel",
        "export.heights_widths": recipe.export.heights_widths and "are sizes of images",
        "bundle": recipe.bundle is not None and "is a folder for apps that show images",
        **{f"{stage}.flip": "plays a signal backwards, which makes another one of it" for stage in flipping(recipe)},
        **{f"export.artifacts: {text}": _of_images(text) for text in recipe.export.artifacts},
    }
    for key, fault in faults.items():
        if fault:
            raise RecipeError(f"{key} {fault}, and data.source = '{recipe.data.source}' has signals: leave it out")


def normalised(train: ImageSet, heldout: ImageSet) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Signals as networks make them, by "train" and "heldout"; and what data.json says of their units.

    The range is that of the training part: held-out values may lie a little outside.
    """
    units = SignalUnits.spanning(train.images, sample_rate_hz=train.sample_rate_hz)
    signals: dict[str, NDArray[Any]] = {
        name: units.normalised(part.images) for name, part in (("train", train), ("heldout", heldout))
    }
    return signals, {UNITS: units.to_dict()}


def _of_images(text: str) -> str:
    target = Target.parse(text)
    backend: Backend = registry.load("backend", target.backend)
    variant = backend.variants.get(target.variant)
    if variant is not None and (variant.any_size or variant.pixels):
        return "takes or gives pictures"
    return ""
