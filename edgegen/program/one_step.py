"""A trained velocity field as the one-step generator that an app runs, and the same with uint8 pixels as its output."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from edgegen.errors import ExportError
from edgegen.flow.path import has_second_time
from edgegen.support.pixels import OURS, traced_pixels
from edgegen.types import Signature

NOISE_TIME = 1.0  # t = 1 is noise: the one time at which a one-step generator runs
DATA_TIME = 0.0  # r = 0 is data: where the step of a network with a second time ends


class OneStep(nn.Module):
    """One step along the straight path: x = z - u(z), u at t = 1 (flow matching's Euler step over [0, 1]).

    `net` is folded, u(z[, condition]); given `time` it is not, and is called as u(z, t[, condition]), or with
    r = 0 beside that where it takes a second time. `decoder` turns what the step ends at into what is seen.
    """

    def __init__(self, net: nn.Module, *, time: float | None = None, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net
        self.time = time
        self.decoder = decoder

    def forward(self, sample: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Noise (batch, ...), the condition of each -> image of the noise's shape, or what the decoder makes of it.

        A captured program has these names; the condition can be images as well (edgegen.flow.condition).
        """
        given = () if class_labels is None else (class_labels,)
        if self.time is None:
            velocity: Tensor = self.net(sample, *given)
        elif has_second_time(self.net):
            velocity = self.net(sample, _times(sample, self.time), *given, r=_times(sample, DATA_TIME))
        else:
            velocity = self.net(sample, _times(sample, self.time), *given)
        out_sample: Tensor = sample - velocity
        return out_sample if self.decoder is None else self.decoder(out_sample)


def _times(sample: Tensor, time: float) -> Tensor:
    return torch.full((sample.shape[0],), time, device=sample.device)


class ToPixels(nn.Module):
    """A generator whose output is the image as an app shows it, not (batch, channels, height, width) in `image_range`.

    The output is uint8 (batch, height, width, channels), rounded to nearest, as edgegen.support.pixels.to_uint8 does.
    """

    def __init__(self, net: nn.Module, image_range: tuple[float, float] = OURS) -> None:
        super().__init__()
        self.net, self.image_range = net, image_range
        self.training = False  # not by eval(), which captured programs refuse

    def forward(self, *inputs: Tensor) -> Tensor:
        out_sample: Tensor = self.net(*inputs)
        return traced_pixels(out_sample, self.image_range)


def pixels_signature(signature: Signature) -> Signature:
    """The signature of `ToPixels` around a generator. Raises ExportError where it makes no images."""
    if not signature.makes_images:
        output = signature.outputs[0]
        raise ExportError(
            f"no uint8 image of {output.name}: it is {output.role} {list(output.shape)}; "
            "`generate` needs an image of 1 or 3 channels"
        )
    return replace(signature, outputs=(signature.pixels,))
