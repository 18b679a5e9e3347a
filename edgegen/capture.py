"""From a trained velocity field to the one program that every backend lowers: one step, time folded, torch.export."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from edgegen.errors import ExportError
from edgegen.noise import normal
from edgegen.types import Signature

NOISE_TIME = 1.0  # t = 1 is noise: the one time at which a one-step generator runs
FOLD_TOLERANCE = 1e-5  # of the largest output: float32 sums in another order differ by some 1e-6


class OneStep(nn.Module):
    """The straight path walked in one step: x = z - u(z), u at t = 1 (flow matching's Euler step over [0, 1]).

    `net` is folded, u(z[, class_labels]); given `time` it is not, and is called as u(z, t[, class_labels]).
    """

    def __init__(self, net: nn.Module, *, time: float | None = None) -> None:
        super().__init__()
        self.net = net
        self.time = time

    def forward(self, sample: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Noise (batch, channels, height, width) and classes (batch,) -> image of the noise's shape."""
        labels = () if class_labels is None else (class_labels,)
        times = () if self.time is None else (torch.full_like(sample[:, 0, 0, 0], self.time),)
        out_sample: Tensor = sample - self.net(sample, *times, *labels)
        return out_sample


@dataclass(frozen=True)
class Folded:
    """A one-step generator without a time branch, and the proof: `max_relative_error` against the unfolded net."""

    module: OneStep
    parameters_before: int
    parameters_after: int
    max_relative_error: float


def fold(net: nn.Module, *, samples: Tensor, class_labels: Tensor | None) -> Folded:
    """Bake t = 1 into `net` by its own `fold_time` and prove the result equal on `samples`, on the CPU in float32.

    `net` stays as it is. Raises ExportError where it has no `fold_time`, or where the folded generator differs by
    more than FOLD_TOLERANCE (max abs difference / max abs reference).
    """
    if not hasattr(net, "fold_time"):
        raise ExportError(
            f"{type(net).__name__} has no fold_time(t): a net to be exported offers "
            "fold_time(1.0) -> a net with forward(x, class_labels), as edgegen.models.edge_unet.EdgeUNet does"
        )
    unfolded = OneStep(copy.deepcopy(net).cpu().eval(), time=NOISE_TIME)
    folded = OneStep(unfolded.net.fold_time(NOISE_TIME)).eval()  # type: ignore[operator]
    inputs = [samples.cpu()] + ([] if class_labels is None else [class_labels.cpu()])
    with torch.no_grad():
        expected, got = unfolded(*inputs), folded(*inputs)
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    error = float((got - expected).abs().max() / scale)
    if not error <= FOLD_TOLERANCE:  # so that NaN fails
        raise ExportError(
            f"{type(net).__name__}.fold_time changed the net: the largest relative error is {error:.2e} on "
            f"{len(samples)} samples, {FOLD_TOLERANCE:.0e} is allowed; does fold_time use every time-dependent layer?"
        )
    return Folded(folded, _parameters(net), _parameters(folded), error)


def randomize_zero_layers(net: nn.Module, seed: int) -> tuple[str, ...]:
    """Draw every all-zero parameter of `net` anew, in place, and give their names.

    Fresh nets end in zero layers, so that one step returns the noise itself and any parity test passes on nothing.
    Matrices and kernels get standard deviation 1/sqrt(inputs), vectors 0.1.
    """
    zeros = [(name, p) for name, p in net.named_parameters() if p.numel() and not p.any()]
    for index, (_, parameter) in enumerate(zeros):
        deviation = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        values = torch.from_numpy(normal(seed, index, 1, tuple(parameter.shape))[0])
        with torch.no_grad():
            parameter.copy_(values * deviation)
    return tuple(name for name, _ in zeros)


def example_inputs(signature: Signature, count: int, seed: int) -> dict[str, NDArray[Any]]:
    """`count` samples of portable noise from (seed, index 0..) and, where there are classes, labels 0, 1, 2, ..."""
    inputs: dict[str, NDArray[Any]] = {"sample": normal(seed, 0, count, signature.image_shape)}
    if signature.num_classes:
        inputs["class_labels"] = np.arange(count, dtype=np.int64) % signature.num_classes
    return inputs


def reference(module: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What PyTorch computes in float32 on the CPU: `out_sample` (batch, channels, height, width)."""
    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.no_grad():
        out: Tensor = copy.deepcopy(module).cpu().eval()(**tensors)
    return out.numpy()


def capture(module: nn.Module, signature: Signature, *, batch: int | None) -> ExportedProgram:
    """torch.export of `module` on the CPU in evaluation mode; `batch` None gives a dynamic batch axis.

    The inputs keep the signature's names and order. Raises ExportError where the module does not run on the
    signature's inputs, gives another shape, or cannot be exported.
    """
    module = copy.deepcopy(module).cpu().eval()
    # Two samples, because torch.export takes an axis of size 1 for a constant.
    arrays = example_inputs(signature, batch or 2, 0)
    inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in signature.inputs)
    shapes = None if batch else tuple({0: Dim("batch_size", min=1)} for _ in inputs)
    try:
        with torch.no_grad():
            out = module(*inputs)
            program = torch.export.export(module, inputs, dynamic_shapes=shapes)
    except Exception as e:
        raise ExportError(f"torch.export could not capture {type(module).__name__}: {e}") from e
    if out.shape != inputs[0].shape:
        raise ExportError(
            f"{type(module).__name__} gives {tuple(out.shape)} for noise {tuple(inputs[0].shape)}; "
            "a one-step generator gives an image of the noise's shape"
        )
    return program


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
