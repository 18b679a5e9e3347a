"""Tiny folders of every family that can be exported, some kB each: what the tests of sources and exporters run over.

`TINY[name](folder)` writes the folder and returns it. Weights are random, and no layer is zero.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgegen.models.diffusers.weights import LOADING
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import save as save_generator
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.support.vendor_logs import quiet

CARD = "---\nlicense: apache-2.0\n---\n# A tiny network for tests\n"
UNET: Mapping[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
UNET2D = {
    **UNET,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
CONDITION = {
    **UNET,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
}
# Of one level: enough for what differs from the first of the kind, and lowered in half the time.
UNET2D_FLAT = {
    **UNET2D,
    "block_out_channels": (8,),
    "down_block_types": ("AttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("AttnUpBlock2D",),
}
UNET2D_SKIP = {  # as in NCSN++ (arXiv:2011.13456): resampling by FIR filters
    **UNET2D,
    "block_out_channels": (8, 8),
    "down_block_types": ("SkipDownBlock2D",) * 2,
    "mid_block_type": None,
    "up_block_types": ("SkipUpBlock2D",) * 2,
}
CONDITION_FLAT = {
    **CONDITION,
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D",),
}
SDXL = {
    **CONDITION_FLAT,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "use_linear_projection": True,
}
TRANSFORMER = {"sample_size": 8, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
DIT = {**TRANSFORMER, "in_channels": 4, "out_channels": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 10}
PIXART = {
    **TRANSFORMER,
    "in_channels": 4,
    "out_channels": 8,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "caption_channels": 24,
    "use_additional_conditions": False,
}
# The width of the three additional embeddings is a third of the net's.
PIXART_SIZED = {**PIXART, "attention_head_dim": 12, "cross_attention_dim": 24, "use_additional_conditions": True}
SD3 = {
    **TRANSFORMER,
    "in_channels": 4,
    "out_channels": 4,
    "joint_attention_dim": 16,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 16,
    "pos_embed_max_size": 8,
}
FLUX = {
    "sample_size": 8,  # not among FluxTransformer2DModel's own settings
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (2, 2, 4),
}
AURAFLOW = {
    "sample_size": 8,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "caption_projection_dim": 16,
    "pos_embed_max_size": 64,
}
SANA = {
    **TRANSFORMER,
    "in_channels": 4,
    "out_channels": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
}
SANA_SPRINT = {**SANA, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"}
KL = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
KL_SHIFTED = {
    **KL,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
TINY_VAE = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}
UNET1D = {  # as in Dance Diffusion, but with one level of its two dozen layers
    "sample_size": 16,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": (32,),
    "down_block_types": ("DownBlock1DNoSkip",),
    "up_block_types": ("UpBlock1DNoSkip",),
    "extra_in_channels": 64,  # the embedding of the time, which blocks of this kind take beside the signal
}
TRAJECTORY = {  # as in Diffuser (arXiv:2205.09991): the channels are a robot's state and action
    "sample_size": 16,
    "in_channels": 6,
    "out_channels": 6,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownResnetBlock1D", "DownResnetBlock1D"),
    "up_block_types": ("UpResnetBlock1D",),
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
    "time_embedding_type": "positional",
    "use_timestep_embedding": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1.0,
    "act_fn": "mish",
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "downsample_each_block": False,
}


def diffusers_net(kind: str, settings: Mapping[str, Any]) -> Any:
    """A network of diffusers with random weights, none of its layers zero."""
    with quiet(LOADING):
        import diffusers

        torch.manual_seed(0)
        net: nn.Module = getattr(diffusers, kind)(**settings)
    randomize_zero_layers(net, 0)
    return net.eval().requires_grad_(False)


def save(kind: str, settings: Mapping[str, Any], folder: Path) -> Path:
    known = {key: value for key, value in settings.items() if kind != "FluxTransformer2DModel" or key != "sample_size"}
    diffusers_net(kind, known).save_pretrained(str(folder), safe_serialization=True)
    if known != settings:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "sample_size": settings["sample_size"]}))
    return folder


def save_scheduler(kind: str, folder: Path, **settings: Any) -> Path:
    """scheduler_config.json in `folder`; the data estimate is not clipped, so that random weights do not saturate."""
    if kind in ("DDIMScheduler", "DDPMScheduler"):
        settings = {"clip_sample": False, **settings}
    with quiet(LOADING):
        import diffusers

        getattr(diffusers, kind)(**settings).save_pretrained(str(folder))
    return folder


def _family(
    kind: str, settings: Mapping[str, Any], scheduler: str | None = None, **of_scheduler: Any
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save(kind, settings, folder)
        if scheduler:
            save_scheduler(scheduler, folder, **of_scheduler)
        (folder / "README.md").write_text(CARD)
        return folder

    return write


def _edge_unet(num_classes: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.manual_seed(0)
        net = EdgeUNet(
            EdgeUNetConfig(8, 1, channels=(8, 16), blocks=1, attention=(1,), num_classes=num_classes, embedding=16)
        )
        randomize_zero_layers(net, 0)
        save_generator(net, folder, about={"role": "student"})
        return folder

    return write


def _text_encoder(kind: str, folder: Path) -> None:
    import transformers

    torch.manual_seed(0)
    if kind == "CLIPTextModel":
        settings = transformers.CLIPTextConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=0,
        )
    else:
        settings = transformers.T5Config(vocab_size=64, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    getattr(transformers, kind)(settings).save_pretrained(str(folder))


def _pipeline(
    name: str,
    denoiser: tuple[str, str, Mapping[str, Any]],
    scheduler: str,
    *,
    vae: tuple[str, Mapping[str, Any]] | None = None,
    encoder: str | None = None,
    **of_scheduler: Any,
) -> Callable[[Path], Path]:
    """A pipeline folder of a denoiser (component, class, settings), a scheduler, a decoder and a text encoder."""

    def write(folder: Path) -> Path:
        component, kind, settings = denoiser
        save(kind, settings, folder / component)
        save_scheduler(scheduler, folder / "scheduler", **of_scheduler)
        index: dict[str, Any] = {"_class_name": name, component: ["diffusers", kind]}
        index["scheduler"] = ["diffusers", scheduler]
        if vae:
            save(*vae, folder / "vae")
            index["vae"] = ["diffusers", vae[0]]
        if encoder:
            with quiet(LOADING):
                _text_encoder(encoder, folder / "text_encoder")
            index |= {"text_encoder": ["transformers", encoder], "tokenizer": ["transformers", "CLIPTokenizer"]}
        index["safety_checker"] = [None, None]
        (folder / "model_index.json").write_text(json.dumps(index))
        (folder / "README.md").write_text(CARD)
        return folder

    return write


NETWORKS: dict[str, Callable[[Path], Path]] = {
    "edge_unet": _edge_unet(0),
    "edge_unet_class": _edge_unet(3),
    "unet2d": _family("UNet2DModel", UNET2D, "DDPMScheduler"),
    "unet2d_class": _family("UNet2DModel", {**UNET2D_FLAT, "num_class_embeds": 3}, "DDPMScheduler"),
    "unet2d_image_conditional": _family(
        "UNet2DModel", {**UNET2D_FLAT, "in_channels": 6}, "DDIMScheduler", prediction_type="v_prediction"
    ),
    "unet2d_skip": _family("UNet2DModel", UNET2D_SKIP, "DDPMScheduler"),
    "unet2d_condition": _family("UNet2DConditionModel", CONDITION, "DDIMScheduler"),
    "unet2d_condition_sdxl": _family(
        "UNet2DConditionModel", SDXL, "EulerDiscreteScheduler", timestep_spacing="trailing"
    ),
    "unet2d_condition_image": _family(
        "UNet2DConditionModel", {**CONDITION_FLAT, "in_channels": 7, "num_class_embeds": 5}, "DDIMScheduler"
    ),
    "dit": _family("DiTTransformer2DModel", DIT, "DDIMScheduler"),
    "pixart": _family("PixArtTransformer2DModel", PIXART, "DPMSolverMultistepScheduler"),
    "pixart_sized": _family("PixArtTransformer2DModel", PIXART_SIZED, "DPMSolverMultistepScheduler"),
    "sd3": _family("SD3Transformer2DModel", SD3, "FlowMatchEulerDiscreteScheduler"),
    "flux": _family(
        "FluxTransformer2DModel", FLUX, "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True, base_shift=0.5
    ),
    "flux_guidance": _family(
        "FluxTransformer2DModel", {**FLUX, "guidance_embeds": True}, "FlowMatchEulerDiscreteScheduler"
    ),
    "auraflow": _family("AuraFlowTransformer2DModel", AURAFLOW, "FlowMatchEulerDiscreteScheduler", shift=1.73),
    "sana": _family(
        "SanaTransformer2DModel",
        SANA,
        "DPMSolverMultistepScheduler",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    ),
    "sana_sprint": _family("SanaTransformer2DModel", SANA_SPRINT, "SCMScheduler"),
    "autoencoder_kl": _family("AutoencoderKL", KL),
    "autoencoder_tiny": _family("AutoencoderTiny", TINY_VAE),
    "unet1d": _family("UNet1DModel", UNET1D, "IPNDMScheduler"),
    "unet1d_trajectory": _family("UNet1DModel", TRAJECTORY, "DDPMScheduler", clip_sample=False),
}
PIPELINES: dict[str, Callable[[Path], Path]] = {
    "pipeline_ddpm": _pipeline("DDPMPipeline", ("unet", "UNet2DModel", UNET2D), "DDPMScheduler"),
    "pipeline_sd": _pipeline(
        "StableDiffusionPipeline",
        ("unet", "UNet2DConditionModel", CONDITION),
        "PNDMScheduler",
        vae=("AutoencoderKL", KL),
        encoder="CLIPTextModel",
    ),
    "pipeline_dit": _pipeline(
        "DiTPipeline",
        ("transformer", "DiTTransformer2DModel", DIT),
        "DDIMScheduler",
        vae=("AutoencoderTiny", TINY_VAE),
    ),
    "pipeline_pixart": _pipeline(
        "PixArtAlphaPipeline",
        ("transformer", "PixArtTransformer2DModel", PIXART),
        "DPMSolverMultistepScheduler",
        vae=("AutoencoderKL", KL),
        encoder="T5EncoderModel",
    ),
    "pipeline_sd3": _pipeline(
        "StableDiffusion3Pipeline",
        ("transformer", "SD3Transformer2DModel", SD3),
        "FlowMatchEulerDiscreteScheduler",
        vae=("AutoencoderKL", KL_SHIFTED),
    ),
}
TINY: dict[str, Callable[[Path], Path]] = {**NETWORKS, **PIPELINES}
