"""Whether a network computes as an app runs it: each sample by itself, and the same at every run.

In training mode a norm takes its statistics from the batch, and dropout is random. `eval()` does not help where a
network overrides `train()`, calls the functions with training=True, or keeps no running statistics. So what counts is
what the network gives; its parts are for the message.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgegen.errors import DataError
from edgegen.program.inputs import example_inputs
from edgegen.types import Signature

SAMPLES = 2
TOLERANCE = 1e-5  # of the largest output, as in edgegen.program.fold
REMEDY = (
    "call eval() and keep the statistics of training (track_running_stats=True). For images that have their own "
    "statistics, as pix2pix's: nn.InstanceNorm2d(channels, affine=True) computes the same for one image, with the same "
    "weights"
)


def require_inference(module: nn.Module, signature: Signature, *, of: str) -> None:
    """Raises DataError, which begins with `of`, for a network that is random, or mixes the samples of a batch."""
    size = signature.inputs[0].shape[0]
    count = SAMPLES if size == "batch_size" else int(size)
    inputs, others = (example_inputs(signature, count, seed) for seed in (0, 1))
    out = _run(module, inputs)
    if not torch.isfinite(out).all():
        return  # edgegen.program.fold says which weight is not finite
    if _differ(out, _run(module, inputs)):
        raise DataError(
            f"{of}: the network gives something else at every run: take the random numbers out of forward, or make "
            "them an input; of dropout, call eval(), and F.dropout with training=self.training"
        )
    parts = _batch_norms(module)
    beside_others = {name: np.concatenate([values[:1], others[name][1:]]) for name, values in inputs.items()}
    mixes = _differ(out[:1], _run(module, beside_others)[:1])
    # A first axis of fixed size may be something else than samples, such as the pictures of a film.
    if mixes if size == "batch_size" else parts:
        reason = "; ".join(parts) or "a norm with training=True, or a mean over the batch"
        raise DataError(
            f"{of}: what the network makes of one sample depends on the others in the batch ({reason}); an app runs "
            f"one: {REMEDY}"
        )


def _run(module: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
    with torch.no_grad():
        out: Tensor = module(*(torch.tensor(values) for values in inputs.values()))  # copies: it may write into them
    return out


def _differ(out: Tensor, other: Tensor) -> bool:
    return bool((out - other).abs().max() > TOLERANCE * out.abs().max())


def _batch_norms(module: nn.Module) -> list[str]:
    """The norms that take their statistics from the batch, though the network is in evaluation mode."""
    parts = []
    for path, part in module.named_modules():
        name = f"{path} ({type(part).__name__})"
        if isinstance(part, _BatchNorm) and part.training:
            parts.append(f"{name} stays in training mode after eval()")
        elif isinstance(part, _BatchNorm) and part.running_mean is None:
            parts.append(f"{name} has no running statistics")
    return parts
