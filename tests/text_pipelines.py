"""A small text pipeline of random weights, as diffusers saves it, and what its own library makes of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import bundled
from numpy.typing import NDArray

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import raise_failures
from edgegen.artifacts.target import Target
from edgegen.models.diffusers.weights import LOADING
from edgegen.noise import normal
from edgegen.support.progress import Silent
from edgegen.support.vendor_logs import quiet

LENGTH, LATENT, SIZE = 77, (4, 8, 8), 32
MERGES = ("c a", "ca t</w>", "d o", "do g</w>", "t h", "th e</w>", "r e", "re d</w>", "r o", "ro a", "roa d</w>")
TRICKY = (
    "A cat, the RED dog!!", "", "  two   spaces\tand\nlines ", "don't we'll I'M they're", "naïve cafe\u0301 ÀÉÎ ß ẞ",
    "ΟΔΟΣ Σ σς", "İstanbul ǅ ﬁ", "猫と犬 한국어 हिन्दी", "مرحبا", "🐈‍⬛👩‍👩‍👧 ☕", "½²Ⅷ 1234 5,67",
    "\u00a0nbsp\u3000ideographic\ufeffmark\u200b", "_under-score/ \\ 'quoted\" <b>&amp;</b>",
    "<|endoftext|> <|startoftext|>",
    "a " * 75, "a " * 76, "a very long road " * 40,
)  # fmt: skip


def _tokenizer(folder: Path) -> Any:
    """CLIP's: its byte alphabet, alone and at the end of a word, a few merges, beginning and end."""
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merged = [pair.replace(" ", "") for pair in MERGES]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder))
    tokenizer.model_max_length = LENGTH
    return tokenizer


def write_pipeline(folder: Path, *, seed: int = 0, prediction: str = "epsilon") -> Path:
    """Text encoder, U-Net, tiny decoder and a scheduler of one step; other prompts give images far from each other."""
    with quiet(LOADING):
        import diffusers
        import transformers

        torch.manual_seed(seed)
        tokenizer = _tokenizer(folder.with_name(f"{folder.name} tokenizer"))
        words = len(tokenizer)
        encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=words, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
            )
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=LATENT[1], in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16,),
            down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None,
            cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
        )  # fmt: skip
        vae = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8), num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        )  # fmt: skip
        with torch.no_grad():
            for name, weight in [*encoder.named_parameters(), *unet.named_parameters()]:
                if weight.dim() > 1:
                    weight.normal_(0, (2.0 if "attn2" in name else 1.0) / weight[0].numel() ** 0.5)
            vae.decoder.layers[-1].weight.mul_(6.0)
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing",
            prediction_type=prediction, steps_offset=1,
        )  # fmt: skip
        diffusers.StableDiffusionPipeline(
            vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        ).save_pretrained(str(folder))  # fmt: skip
    return folder


def export_pipeline(folder: Path, output: Path, targets: Sequence[str] = ("onnx-fp32",)) -> Path:
    settings = ExportSettings(tuple(map(Target.parse, targets)), measure=False, samples=2)
    raise_failures(export_source(str(folder), output, settings, fuse_decoder=True, progress=Silent()))
    return output


def text_bundle(place: Path, targets: Sequence[str] = ("onnx-fp32",)) -> Path:
    """The bundle `place` of a pipeline that lies beside it as `sdxs`."""
    files = export_pipeline(write_pipeline(place.with_name("sdxs")), place.with_name("export"), targets)
    return bundled(files, place)


def images_of_diffusers(folder: Path, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
    """(prompts, SIZE, SIZE, 3) by the pipeline's own call: one step from edgegen's noise, without guidance."""
    with quiet(LOADING):
        import diffusers

        pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(str(folder), safety_checker=None)
        pipeline.set_progress_bar_config(disable=True)
        images = [
            pipeline(
                prompt, num_inference_steps=1, guidance_scale=0.0, output_type="np", height=SIZE, width=SIZE,
                latents=torch.from_numpy(normal(seed, 0, 1, LATENT)),
            ).images[0]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]  # fmt: skip
    made: NDArray[np.uint8] = np.rint(np.stack(images) * 255).astype(np.uint8)
    return made


def tokens_of_transformers(folder: Path, prompts: Sequence[str]) -> list[list[int]]:
    with quiet(LOADING):
        import transformers

        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
        options = {"padding": "max_length", "max_length": LENGTH, "truncation": True}
        return [list(tokenizer(prompt, **options).input_ids) for prompt in prompts]
