"""How each family of diffusers' denoising networks is called: its inputs, its output and its fixed conditions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.models.diffusers.schedule import Step
from edgegen.models.sources.source import NamedInputs, batched, image_range
from edgegen.types import Role, TensorSpec

VP_TIME = 999.0  # the last training time of diffusers' default schedules
CLIP_TOKENS = 77  # the length that every CLIP text encoder pads to
PIXART_TOKENS = 120  # PixArtAlphaPipeline.encode_prompt: max_sequence_length
VAE_SCALE = 8  # pixels of a latent pixel in Stable Diffusion's autoencoders, which PixArt uses
SAME_SIZE = "image: of the noise's height and width; enlarge a smaller one before"

Inputs = Mapping[str, Tensor]
Call = Callable[[nn.Module, Tensor, Inputs], Tensor]


@dataclass(frozen=True)
class Interface:
    """How one net is called: `call(net, time (1,), inputs)` gives `channels` of content, perhaps more after them.

    `time` is that of pure noise, as the net takes it; `per_flow_time` is what a time of a flow matching scheduler is
    multiplied by.
    """

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    call: Call
    channels: int
    time: float = VP_TIME
    notes: tuple[str, ...] = ()
    per_flow_time: float = 1.0

    @property
    def num_classes(self) -> int:
        return next((int(spec.high or 0) + 1 for spec in self.inputs if spec.role == "class"), 0)


class OneStepNet(NamedInputs):
    """x = noise_gain z + net_gain net(input_gain z, time, conditions); the time is a buffer, no input."""

    def __init__(self, net: nn.Module, interface: Interface, step: Step) -> None:
        super().__init__()
        self.net, self.call, self.channels, self.gains = net, interface.call, interface.channels, step
        self.register_buffer("time", torch.tensor([step.time], dtype=torch.float32), persistent=False)
        self.time: Tensor

    def compute(self, inputs: Inputs) -> Tensor:
        sample, gains = inputs["sample"], self.gains
        scaled = sample if gains.input_gain == 1.0 else sample * gains.input_gain
        # A net that also learned the variance gives it in the second half of the channels.
        out = self.call(self.net, self.time, {**inputs, "sample": scaled})[:, : self.channels]
        if gains.net_gain != 1.0:
            out = out * gains.net_gain
        out = out if gains.noise_gain == 0.0 else sample * gains.noise_gain + out
        if gains.bound is None:
            return out
        out = out.clamp(-gains.bound, gains.bound)
        return out if gains.rest_gain == 0.0 else out + gains.rest_gain * (sample - out)


def unet2d(config: Any, *, latent: bool) -> Interface:
    """UNet2DModel: noise, an image where in_channels > out_channels, a class where num_class_embeds."""
    _require_one_of(config, "class_embed_type", (None,))
    _require_one_of(config, "time_embedding_type", ("positional", "fourier"))
    inputs, channels, output = image_specs(config, latent=latent)
    all_inputs = (*inputs, *_classes(config.num_class_embeds))
    return Interface(all_inputs, output, _call_unet2d, channels, notes=tuple(SAME_SIZE for _ in inputs[1:]))


def _call_unet2d(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    out: Tensor = net(_concatenate(inputs), time, class_labels=inputs.get("class_labels"), return_dict=False)[0]
    return out


def unet2d_condition(config: Any, *, latent: bool) -> Interface:
    """UNet2DConditionModel: noise, text, and the further inputs of SDXL, the upscalers and inpainting."""
    _require_one_of(config, "class_embed_type", (None,))
    _require_one_of(config, "addition_embed_type", (None, "text", "text_time"))
    _require_one_of(config, "encoder_hid_dim_type", (None, "text_proj"))
    _require_one_of(config, "attention_type", ("default",))
    pictures, channels, output = image_specs(config, latent=latent)
    width = config.encoder_hid_dim or _one_number(config, "cross_attention_dim")
    text = TensorSpec("encoder_hidden_states", batched(CLIP_TOKENS, width), "float32", "text")
    inputs = [pictures[0], text, *pictures[1:], *_classes(config.num_class_embeds)]
    notes = [f"encoder_hidden_states: {CLIP_TOKENS} tokens, as CLIP's text encoders give"]
    notes += [SAME_SIZE for _ in pictures[1:]]
    if config.addition_embed_type == "text_time":
        inputs += _sdxl_inputs(config, pixels=_size(config)[0] * VAE_SCALE)
        notes.append("time_ids: height, width, crop top, crop left, target height, target width in pixels")
    if config.time_cond_proj_dim:
        notes.append("the net's embedding of the guidance scale (time_cond_proj_dim) is left out")
    return Interface(tuple(inputs), output, _call_unet2d_condition, channels, notes=tuple(notes))


def _sdxl_inputs(config: Any, *, pixels: int) -> list[TensorSpec]:
    width = config.addition_time_embed_dim
    total = config.projection_class_embeddings_input_dim
    if not (isinstance(width, int) and isinstance(total, int) and total > 6 * width):
        raise DataError(
            f"config.json: addition_time_embed_dim is {width!r} and projection_class_embeddings_input_dim {total!r}; "
            "the second holds the text embedding and six numbers embedded in the first"
        )
    pooled = TensorSpec("text_embeds", batched(total - 6 * width), "float32", "features")
    return [pooled, TensorSpec("time_ids", batched(6), "float32", "features", 0.0, float(pixels))]


def _call_unet2d_condition(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    added = {name: inputs[name] for name in ("text_embeds", "time_ids") if name in inputs}
    out: Tensor = net(
        _concatenate(inputs),
        time,
        inputs["encoder_hidden_states"],
        class_labels=inputs.get("class_labels"),
        added_cond_kwargs=added or None,
        return_dict=False,
    )[0]
    return out


def dit(config: Any, *, latent: bool) -> Interface:
    """DiTTransformer2DModel: noise and a class."""
    inputs, channels, output = image_specs(config, latent=latent)
    classes = _classes(config.num_embeds_ada_norm)
    notes = ("class_labels: the extra class of unconditional guidance is left out",)
    return Interface((*inputs, *classes), output, _call_dit, channels, notes=notes)


def _call_dit(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    out: Tensor = net(inputs["sample"], timestep=time, class_labels=inputs["class_labels"], return_dict=False)[0]
    return out


def pixart(config: Any, *, latent: bool) -> Interface:
    """PixArtTransformer2DModel: noise and text; the image's size, where the network takes it, is fixed."""
    inputs, channels, output = image_specs(config, latent=latent)
    width = config.caption_channels or config.cross_attention_dim
    text = TensorSpec("encoder_hidden_states", batched(PIXART_TOKENS, width), "float32", "text")
    height, width = (side * VAE_SCALE for side in _size(config))
    notes = [
        f"encoder_hidden_states: {PIXART_TOKENS} tokens, as PixArt's pipeline gives; the net attends to all of them: "
        "there is no mask, so fill up with the hidden states of the prompt, not with padding"
    ]
    # None means the net of 1024 pixels, as in PixArtTransformer2DModel itself.
    additional = config.use_additional_conditions
    takes_size = config.sample_size == 128 if additional is None else additional
    if takes_size:
        notes.append(f"resolution ({height}, {width}) and aspect ratio {height / width:g} are fixed")
    call = _PixArtCall((float(height), float(width)) if takes_size else None)
    return Interface((*inputs, text), output, call, channels, notes=tuple(notes))


@dataclass(frozen=True)
class _PixArtCall:
    """`resolution` (height, width) in pixels, None for a network that does not take it."""

    resolution: tuple[float, float] | None

    def __call__(self, net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
        sample = inputs["sample"]
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.resolution is not None:
            height, width = self.resolution
            added["resolution"] = torch.cat([torch.full_like(time, side) for side in (height, width)]).expand(
                sample.shape[0], 2
            )
            added["aspect_ratio"] = torch.full_like(time, height / width).expand(sample.shape[0], 1)
        out: Tensor = net(
            sample,
            encoder_hidden_states=inputs["encoder_hidden_states"],
            timestep=time.expand(
                sample.shape[0]
            ),  # the network reshapes it by the batch, so it needs a time for each sample
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return out


def unet1d(config: Any, *, latent: bool) -> Interface:
    """UNet1DModel: audio or a trajectory, (batch_size, channels, length)."""
    if config.in_channels != config.out_channels:
        raise DataError(
            f"config.json: {config.in_channels} in_channels and {config.out_channels} out_channels; a UNet1DModel that "
            "generates has the same number of both"
        )
    shape = batched(config.in_channels, _length(config))
    output = TensorSpec("out_sample", shape, "float32", "latent" if latent else "signal")
    return Interface((TensorSpec("sample", shape, "float32", "noise"),), output, _call_unet1d, config.out_channels)


def _call_unet1d(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    out: Tensor = net(inputs["sample"], time, return_dict=False)[0]
    return out


def image_specs(config: Any, *, latent: bool) -> tuple[tuple[TensorSpec, ...], int, TensorSpec]:
    """The inputs of the first convolution, the channels of content in the output, and the output.

    More channels in than out: the rest is an image beside the noise. Twice as many out as in: the second half is the
    learned variance (Nichol and Dhariwal, arXiv:2102.09672).
    """
    in_channels, out_channels = config.in_channels, config.out_channels or config.in_channels
    channels = in_channels if out_channels == 2 * in_channels else out_channels
    if channels > in_channels:
        raise DataError(
            f"config.json: {in_channels} in_channels and {out_channels} out_channels; a one-step generator gives "
            "as many channels as it takes noise, or twice as many (with a learned variance)"
        )
    size = _size(config)
    role: Role = "latent" if latent or channels not in (1, 3) else "image"
    inputs = [TensorSpec("sample", batched(channels, *size), "float32", "noise")]
    if in_channels > channels:
        # Three or one are pixels; others are latents and masks, as for inpainting.
        image_role: Role = "image" if in_channels - channels in (1, 3) else "features"
        shape = batched(in_channels - channels, *size)
        inputs.append(TensorSpec("image", shape, "float32", image_role, **image_range(image_role)))
    output = TensorSpec("out_sample", batched(channels, *size), "float32", role, **image_range(role))
    return tuple(inputs), channels, output


def _concatenate(inputs: Inputs) -> Tensor:
    """The noise, and behind its channels those of the image."""
    return torch.cat([inputs["sample"], inputs["image"]], dim=1) if "image" in inputs else inputs["sample"]


def _classes(count: int | None) -> tuple[TensorSpec, ...]:
    return (TensorSpec("class_labels", ("batch_size",), "int64", "class", 0, count - 1),) if count else ()


def _size(config: Any) -> tuple[int, int]:
    size = config.sample_size
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise DataError(
            f"config.json: sample_size is {size!r}; give the height and width that the net should run at, as one "
            "number or two, in its own pixels (latent pixels where it works on latents)"
        )
    return sides[0], sides[1]


def _length(config: Any) -> int:
    length = config.sample_size
    if not isinstance(length, int) or length < 1:
        raise DataError(
            f"config.json: sample_size is {length!r}; give the length of the signal that the net should make"
        )
    return length


def _one_number(config: Any, key: str) -> int:
    value = getattr(config, key)
    numbers = {value} if isinstance(value, int) else set(value)
    if len(numbers) != 1:
        raise DataError(f"config.json: {key} is {value!r}; one width of text for all blocks is supported")
    return int(numbers.pop())


def _require_one_of(config: Any, key: str, allowed: tuple[Any, ...]) -> None:
    value = getattr(config, key)
    if value not in allowed:
        known = ", ".join("null" if choice is None else repr(choice) for choice in allowed)
        raise DataError(f"config.json: {key} is {value!r}; supported: {known}")
