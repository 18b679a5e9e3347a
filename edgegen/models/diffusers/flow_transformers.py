"""How diffusers' transformers of flow matching are called, each as in its own pipeline: SD3, Flux, AuraFlow, Sana."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgegen.errors import DataError
from edgegen.models.diffusers.denoisers import Interface, image_specs
from edgegen.models.sources.source import batched
from edgegen.types import TensorSpec

Inputs = Mapping[str, Tensor]
FLOW_TIME = 1000.0  # the last training time of diffusers' flow matching schedulers
SD3_TOKENS = 77 + 256  # StableDiffusion3Pipeline: CLIP's tokens and T5's max_sequence_length, one after the other
FLUX_TOKENS = 512  # FluxPipeline: T5's max_sequence_length
FLUX_SIZE = 128  # FluxPipeline.default_sample_size; FluxTransformer2DModel's own config has none
FLUX_GUIDANCE = 3.5  # FluxPipeline's default, of the networks that take it
FLUX_PATCH = 2  # latent pixels along the side of a token
AURAFLOW_TOKENS = 256  # AuraFlowPipeline: max_sequence_length
SANA_TOKENS = 300  # SanaPipeline and SanaSprintPipeline: max_sequence_length
SANA_GUIDANCE = 4.5  # SanaSprintPipeline's default


def sd3(config: Any, *, latent: bool) -> Interface:
    """SD3Transformer2DModel: noise, text, and the pooled text embedding."""
    inputs, channels, output = image_specs(config, latent=latent)
    text = _text(SD3_TOKENS, config.joint_attention_dim)
    pooled = TensorSpec("pooled_projections", batched(config.pooled_projection_dim), "float32", "features")
    notes = (f"encoder_hidden_states: {SD3_TOKENS} tokens, as SD3's pipeline gives: 77 of CLIP, then 256 of T5",)
    return Interface((*inputs, text, pooled), output, _call_sd3, channels, FLOW_TIME, notes)


def _call_sd3(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    out: Tensor = net(
        inputs["sample"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        pooled_projections=inputs["pooled_projections"],
        timestep=time,
        return_dict=False,
    )[0]
    return out


def flux(config: Any, *, latent: bool) -> Interface:
    """FluxTransformer2DModel: noise, T5's text and CLIP's pooled text; positions, and guidance if any, are fixed.

    The noise is an image of latents; patches of 2 x 2 become tokens inside.
    """
    tokens_of = FLUX_PATCH**2
    if config.in_channels % tokens_of or config.out_channels not in (None, config.in_channels):
        raise DataError(
            f"config.json: {config.in_channels} in_channels and {config.out_channels} out_channels; supported are "
            f"networks from noise and text, which have as many of both: {tokens_of} times those of a latent"
        )
    size = getattr(config, "sample_size", None) or FLUX_SIZE
    inputs, channels, output = image_specs(_Channels(size, config.in_channels // tokens_of), latent=latent)
    sides = [int(side) for side in inputs[0].shape[2:]]
    if any(side % FLUX_PATCH for side in sides):
        raise DataError(f"config.json: sample_size is {size!r}; a token is {FLUX_PATCH} latent pixels wide: even sizes")
    pooled = TensorSpec("pooled_projections", batched(config.pooled_projection_dim), "float32", "features")
    notes = [
        f"encoder_hidden_states: {FLUX_TOKENS} tokens of T5, as Flux's pipeline gives; pooled_projections: CLIP's",
        f"latents of {sides[0]} x {sides[1]}, Flux's pipeline's own where config.json has no sample_size",
    ]
    if config.guidance_embeds:
        notes.append(f"the guidance that the net takes is fixed at {FLUX_GUIDANCE:g}, its pipeline's own")
    call = _FluxCall(FLUX_GUIDANCE if config.guidance_embeds else None)
    text = _text(FLUX_TOKENS, config.joint_attention_dim)
    return Interface((*inputs, text, pooled), output, call, channels, 1.0, tuple(notes), per_flow_time=1 / FLOW_TIME)


@dataclass(frozen=True)
class _Channels:
    """What `image_specs` reads of a config."""

    sample_size: Any
    in_channels: int
    out_channels: None = None


@dataclass(frozen=True)
class _FluxCall:
    guidance: float | None

    def __call__(self, net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
        sample, text = inputs["sample"], inputs["encoder_hidden_states"]
        batch, _, height, width = sample.shape
        rows, columns = height // FLUX_PATCH, width // FLUX_PATCH
        # FluxPipeline._pack_latents: a token holds (channel, row, column) of its patch, as pixel_unshuffle does.
        tokens = functional.pixel_unshuffle(sample, FLUX_PATCH).flatten(2).transpose(1, 2)
        out: Tensor = net(
            hidden_states=tokens,
            encoder_hidden_states=text,
            pooled_projections=inputs["pooled_projections"],
            timestep=time.expand(batch),
            guidance=None if self.guidance is None else torch.full_like(time, self.guidance).expand(batch),
            txt_ids=torch.zeros(text.shape[1], 3),
            img_ids=_flux_positions(rows, columns),
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(out.transpose(1, 2).reshape(batch, -1, rows, columns), FLUX_PATCH)


def _flux_positions(rows: int, columns: int) -> Tensor:
    """FluxPipeline._prepare_latent_image_ids: (0, row, column) of each token, (rows columns, 3)."""
    row = torch.arange(rows)[:, None].expand(rows, columns)
    column = torch.arange(columns)[None, :].expand(rows, columns)
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()


def auraflow(config: Any, *, latent: bool) -> Interface:
    """AuraFlowTransformer2DModel: noise and text."""
    inputs, channels, output = image_specs(config, latent=latent)
    text = _text(AURAFLOW_TOKENS, config.joint_attention_dim)
    notes = (
        f"encoder_hidden_states: {AURAFLOW_TOKENS} tokens, as AuraFlow's pipeline gives: zeros where there is padding",
    )
    return Interface((*inputs, text), output, _call_auraflow, channels, 1.0, notes, per_flow_time=1 / FLOW_TIME)


def _call_auraflow(net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
    text, sample = inputs["encoder_hidden_states"], inputs["sample"]
    times = time.expand(sample.shape[0])
    out: Tensor = net(sample, encoder_hidden_states=text, timestep=times, return_dict=False)[0]
    return out


def sana(config: Any, *, latent: bool) -> Interface:
    """SanaTransformer2DModel, of Sana and SANA-Sprint: noise, text and its mask; guidance, if any, is fixed."""
    inputs, channels, output = image_specs(config, latent=latent)
    text = _text(SANA_TOKENS, config.caption_channels)
    mask = TensorSpec("encoder_attention_mask", batched(SANA_TOKENS), "int64", "features", 0.0, 1.0)
    notes = [
        f"encoder_hidden_states: {SANA_TOKENS} tokens of Gemma, as Sana's pipelines give; encoder_attention_mask: 1 "
        "where there is a token, 0 where there is padding"
    ]
    guidance = None
    if config.guidance_embeds:
        guidance = SANA_GUIDANCE * config.guidance_embeds_scale
        notes.append(f"the guidance that the net takes is fixed at {SANA_GUIDANCE:g}, its pipeline's own")
    return Interface(
        (*inputs, text, mask),
        output,
        _SanaCall(guidance),
        channels,
        FLOW_TIME * config.timestep_scale,
        tuple(notes),
        per_flow_time=config.timestep_scale,
    )


@dataclass(frozen=True)
class _SanaCall:
    guidance: float | None

    def __call__(self, net: nn.Module, time: Tensor, inputs: Inputs) -> Tensor:
        sample = inputs["sample"]
        batch = sample.shape[0]
        out: Tensor = net(
            sample,
            encoder_hidden_states=inputs["encoder_hidden_states"],
            encoder_attention_mask=inputs["encoder_attention_mask"],
            timestep=time.expand(batch),
            guidance=None if self.guidance is None else torch.full_like(time, self.guidance).expand(batch),
            return_dict=False,
        )[0]
        return out


def _text(tokens: int, width: int) -> TensorSpec:
    return TensorSpec("encoder_hidden_states", batched(tokens, width), "float32", "text")
