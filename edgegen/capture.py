"""From a trained velocity field to the one program that every backend lowers: one step, time folded, torch.export."""

import contextlib
import copy
import inspect
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from edgegen import blocks
from edgegen.errors import ExportError
from edgegen.noise import normal
from edgegen.quiet import EXPORT, quiet
from edgegen.types import PIXELS, Signature, TensorSpec

NOISE_TIME = 1.0  # t = 1 is noise: the one time at which a one-step generator runs


class OneStep(nn.Module):
    """The straight path walked in one step: x = z - u(z), u at t = 1 (flow matching's Euler step over [0, 1]).

    `net` is folded, u(z[, class_labels]); given `time` it is not, and is called as u(z, t[, class_labels]).
    """

    def __init__(self, net: nn.Module, *, time: float | None = None) -> None:
        super().__init__()
        self.net = net
        self.time = time

    def forward(self, sample: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Noise (batch, ...) and classes (batch,) -> image of the noise's shape."""
        labels = () if class_labels is None else (class_labels,)
        times = () if self.time is None else (torch.full((sample.shape[0],), self.time, device=sample.device),)
        out_sample: Tensor = sample - self.net(sample, *times, *labels)
        return out_sample


class ToPixels(nn.Module):
    """A generator whose image in [-1, 1] (batch, channels, height, width) comes out as an app shows it:

    uint8 (batch, height, width, channels), rounded to the nearest, as edgegen.data.to_uint8 does.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = False  # not by eval(), which captured programs refuse

    def forward(self, *inputs: Tensor) -> Tensor:
        out_sample: Tensor = self.net(*inputs)
        return (out_sample * 127.5 + 128.0).clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1)


def pixels_signature(signature: Signature) -> Signature:
    """The signature of `ToPixels` around a generator. Raises ExportError where it makes no pictures."""
    if not signature.makes_images:
        output = signature.outputs[0]
        raise ExportError(
            f"no uint8 image of {output.name}: it is {output.role} {list(output.shape)}; "
            "`generate` needs an image of 1 or 3 channels"
        )
    channels, height, width = signature.image_shape
    image = TensorSpec(PIXELS, ("batch_size", height, width, channels), "uint8", "image", 0, 255)
    return replace(signature, outputs=(image,))


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
    """`count` samples for every input: portable noise from (seed, index 0..), classes 0, 1, 2, ...

    Other inputs get noise of streams of their own, cut to their range; one without the batch axis gets one value.
    """
    return samples_of(signature, range(count), seed)


def samples_of(signature: Signature, indices: range, seed: int) -> dict[str, NDArray[Any]]:
    """The samples `indices` of the endless row of inputs that belongs to `seed`; see `example_inputs`."""
    count, first = len(indices), indices.start
    inputs: dict[str, NDArray[Any]] = {}
    for position, spec in enumerate(signature.inputs):
        shape = [int(size) for size in spec.shape[1:]]
        if spec.role == "class":
            values: NDArray[Any] = np.arange(first, first + count) % signature.num_classes
        else:
            values = normal(seed + position, first, count, shape)
            if spec.role not in ("noise", "latent") and spec.low is not None and spec.high is not None:
                middle, half = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
                values = np.clip(middle + values * half / 2, spec.low, spec.high)
        inputs[spec.name] = values.astype(spec.dtype)
    return inputs


def reference(module: nn.Module, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What PyTorch computes in float32 on the CPU: its output (batch, ...), of inputs in the signature's order."""
    tensors = [torch.tensor(values) for values in inputs.values()]  # copies: a network may write into its inputs
    with torch.no_grad():
        out: Tensor = _ready(module)(*tensors)
    return out.numpy()


def _ready(module: nn.Module) -> nn.Module:
    """`module` in evaluation mode on the CPU; itself where it is already: a big one would not fit twice."""
    kept = all(p.device.type == "cpu" and p.dtype in (torch.float32, torch.int64) for p in module.parameters())
    if kept and not _trains(module):
        return module
    return copy.deepcopy(module).cpu().float().eval()


def _trains(module: nn.Module) -> bool:
    """Whether a part is in training mode. A captured graph has its mode in its operators; its flags say nothing."""
    if isinstance(module, fx.GraphModule):
        return False
    return module.training or any(_trains(part) for part in module.children())


def capture(module: nn.Module, signature: Signature, *, batch: int | None, any_size: bool = False) -> ExportedProgram:
    """torch.export of `module` on the CPU in evaluation mode; `batch` None gives a dynamic batch axis.

    With `any_size` height and width are dynamic as well. The inputs keep the signature's order. Raises ExportError
    where the module does not run on the signature's inputs, gives another shape, or cannot be exported.
    """
    module = _ready(module)
    if isinstance(module, fx.GraphModule):
        module = blocks.Retraced(module, {})
    # Two samples, because torch.export takes an axis of size 1 for a constant.
    count = batch or 2
    if any_size:
        signature = _oblong(signature)
    arrays = example_inputs(signature, count, 0)
    inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in signature.inputs)
    # Not Dim(min=1): diffusers' nets ask whether the batch is 64 or more, and choose a memory layout by it.
    dynamic = [(() if batch else (0,)) + ((2, 3) if any_size and s.is_spatial else ()) for s in signature.inputs]
    shapes: Any = tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in dynamic) if any(dynamic) else None
    if shapes and any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)  # torch.export counts *inputs as one argument
    try:
        with torch.no_grad():
            out = module(*inputs)
        # What depends on data it prints as a whole graph, more than once; the exception says it in words.
        with torch.no_grad(), quiet(EXPORT), contextlib.redirect_stderr(io.StringIO()):
            program = blocks.export(module, inputs, shapes)
    except Exception as e:
        size = " for any size (perhaps it takes only its own)" if any_size else ""
        raise ExportError(f"torch.export could not capture {type(module).__name__}{size}: {_reason(e)}") from e
    wanted = (count, *signature.outputs[0].shape[1:])
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ExportError(
            f"{type(module).__name__} gives {found} for noise {tuple(inputs[0].shape)}; its signature says {wanted}"
        )
    return program


def _oblong(signature: Signature) -> Signature:
    """At another size than its own: a network that takes only that shows it, and height and width differ."""
    first = signature.inputs[0]
    try:
        return signature.resized(int(first.shape[2]), 2 * int(first.shape[3]))
    except (IndexError, ValueError) as e:
        raise ExportError(f"no file for any size: {first.name} {list(first.shape)} is no picture") from e


def _reason(error: Exception) -> str:
    """Why torch.export gave up, in a line; its own text can fill a page."""
    text = str(error).strip() or type(error).__name__
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (
            "its control flow depends on the values of a tensor (an `if` or a loop over data), and an exported "
            "program has one path only; choose by torch.where instead, or take the choice out of forward. "
            f"{text.splitlines()[0]}"
        )
    return text.splitlines()[0]
