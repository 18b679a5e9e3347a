"""Ends a finish whose images lose variety: an adversarial method can trade it for sharpness, and no loss shows it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgegen.metrics.distances import NEAREST, precision_recall
from edgegen.metrics.random_convolutions import random_convolutions
from edgegen.pipeline.conditions import of_samples
from edgegen.pipeline.graph import Context
from edgegen.pipeline.sample_space import SampleSpace
from edgegen.pipeline.samplers import sample
from edgegen.pipeline.stored_images import IMAGES, in_range
from edgegen.recipe import Finish
from edgegen.support.rng import generator
from edgegen.support.storage import load_tensors, read_json
from edgegen.training.distributed import state
from edgegen.training.stopping import Stopping, fallen

COMPARED = 1000  # images of each kind, at most: recall looks at every pair of them
AT_ONCE = 250  # so that large images fit
PARTS = 10  # of the training: after each the recall is measured
ADVICE = "lower learning_rate, or raise regression_weight where the method has it (recall_drop = 0 trains on)"


def stopping(context: Context, settings: Finish) -> Stopping | None:
    """Ends the training when the recall of held-out images falls by more than the recipe allows; None: never.

    Always of the same noise and conditions, and in the features of random convolutions: what networks are chosen and
    reported by, the run's own classifier, has no part in it.
    """
    if not settings.largest_recall_drop:
        return None
    folder, device = context.inputs["data"], state().device
    tensors, facts, space = load_tensors(folder / IMAGES), read_json(folder / "data.json"), SampleSpace.of(folder)
    rows = torch.randperm(len(tensors["heldout_images"]), generator=generator(context.seed))[:COMPARED]
    if len(rows) <= NEAREST:
        context.progress.message(f"finish: too few held-out images to watch the recall: {len(rows)}")
        return None
    convolutions = random_convolutions(space.image_shape[0], signals=len(space.image_shape) == 2, device=device)
    parts = [slice(first, min(first + AT_ONCE, len(rows))) for first in range(0, len(rows), AT_ONCE)]
    real = _joined([convolutions.features(in_range(tensors, "heldout", rows[part])) for part in parts])
    conditions = of_samples(tensors, facts, len(rows), seed=context.seed)

    def images(network: nn.Module, part: slice) -> Tensor:
        noise = space.noise(context.seed, part.start, part.stop - part.start)
        return space.images(sample(network, noise, None if conditions is None else conditions[part], 1, device))

    def recall(network: nn.Module) -> float:
        made = (images(network, part) for part in parts)
        features = [convolutions.features(part) for part in made if bool(torch.isfinite(part).all())]
        return precision_recall(real, _joined(features))[1] if len(features) == len(parts) else 0.0

    every = max(1, settings.steps // PARTS)
    reason = fallen("the recall of held-out images", most=settings.largest_recall_drop, advice=ADVICE)
    return Stopping("recall", recall, every, reason, goes_back=True)


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.concatenate(parts).astype(np.float64)
