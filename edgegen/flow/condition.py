"""The condition of each sample: what its image is to be of, beside the noise that it is made from.

It is class numbers (batch,) int64, or images (batch, channels, height, width) in [-1, 1] that are a whole number of
times smaller than the generated ones; None where nothing is asked for. Training and sampling pass it on and take rows
of it; what has to know which of both it is finds that here.
"""

from typing import TYPE_CHECKING

from edgegen.support.pixels import floats

if TYPE_CHECKING:
    from torch import Tensor

    from edgegen.types import Signature, TensorSpec


def unpacked(condition: "Tensor | None") -> "Tensor | None":
    """As networks take it, of what is stored: uint8 images become float32 in [-1, 1], classes stay."""
    return condition if condition is None or condition.ndim == 1 else floats(condition)


def repeated(condition: "Tensor | None", times: int) -> "Tensor | None":
    """All rows, and all rows again: (times * batch, ...)."""
    import torch

    return None if condition is None else torch.cat([condition] * times)


def kinds(condition: "Tensor | None", x: "Tensor") -> "Tensor":
    """A number for each sample of x (batch, ...), equal for those of one condition: (batch,) int64.

    Images are all different: no two samples share one.
    """
    import torch

    if condition is None:
        return torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return condition if condition.ndim == 1 else torch.arange(len(x), device=x.device)


def enlarged(condition: "Tensor", upscale: int) -> "Tensor":
    """Images (batch, channels, height, width) as large as the generated ones: each pixel becomes equal ones.

    Of all ways to resize, every runtime has this one.
    """
    import torch.nn.functional as F

    return F.interpolate(condition, scale_factor=float(upscale), mode="nearest")


def condition_spec(signature: "Signature") -> "TensorSpec | None":
    """Of a generator that starts from noise, the input that is the condition; None of another one."""
    specs = (spec for spec in signature.inputs[1:] if spec.role in ("class", "image"))
    return next(specs, None) if signature.inputs[0].role == "noise" else None


def upscale_of(signature: "Signature") -> int | None:
    """How many times smaller the image is that is the condition; None where that is none."""
    spec = condition_spec(signature)
    return None if spec is None or spec.role != "image" else signature.sample_shape[1] // int(spec.shape[2])


def made_up(signature: "Signature", count: int) -> "Tensor | None":
    """A condition of `count` samples for a generator of this signature, where only its shape and type matter."""
    import torch

    spec = condition_spec(signature)
    if spec is None:
        return None
    if spec.role == "class":
        return torch.arange(count) % signature.num_classes
    return torch.zeros(count, *(int(size) for size in spec.shape[1:]))
