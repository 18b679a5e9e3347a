"""What images are compared in beside the run's own classifier: fixed random convolutions, Inception, DINOv2."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from edgegen.metrics.dinov2 import check_dinov2, load_dinov2
from edgegen.metrics.feature_space import FeatureSpace
from edgegen.metrics.inception import check_inception, load_inception
from edgegen.metrics.random_convolutions import random_convolutions
from edgegen.recipe import Evaluate
from edgegen.support.bounded_files import user_path

RANDOM, INCEPTION, DINOV2 = "random", "inception", "dinov2"
PRETRAINED = (INCEPTION, DINOV2)  # their figures are against all training images, as papers do it


def check_weights(settings: Evaluate, *, base: Path) -> None:
    """Raises DataError, before any work, for weights that are missing or are not what the figures are made with."""
    if settings.inception is not None:
        check_inception(user_path(settings.inception, base=base))
    if settings.dinov2 is not None:
        check_dinov2(user_path(settings.dinov2, base=base))


def feature_spaces(
    settings: Evaluate, *, image_shape: Sequence[int], base: Path, device: torch.device
) -> Mapping[str, FeatureSpace]:
    """By name, those that the recipe asks for; the random convolutions always. Raises as `check_weights` does."""
    random = random_convolutions(image_shape[0], signals=len(image_shape) == 2, device=device)
    spaces: dict[str, FeatureSpace] = {RANDOM: random}
    if settings.inception is not None:
        spaces[INCEPTION] = load_inception(user_path(settings.inception, base=base), device=device)
    if settings.dinov2 is not None:
        spaces[DINOV2] = load_dinov2(user_path(settings.dinov2, base=base), device=device)
    return spaces
