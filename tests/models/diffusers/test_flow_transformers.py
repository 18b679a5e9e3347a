"""Flux, AuraFlow, Sana and SANA-Sprint against diffusers' own pipelines, asked for one step from the same noise."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FLUX, NETWORKS, SANA, save, save_scheduler
from torch import Tensor

from edgegen.errors import DataError
from edgegen.models.sources.load import load_sources
from edgegen.program.inputs import example_inputs
from edgegen.support.vendor_logs import DIFFUSERS, quiet

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own imports

# Of a pipeline: its class, its parts that are not needed, the pixels of a latent, and further arguments.
WITHOUT_TEXT = ("vae", "text_encoder", "tokenizer")
PIPELINES: Mapping[str, tuple[str, tuple[str, ...], int, dict[str, Any]]] = {
    "flux": ("FluxPipeline", (*WITHOUT_TEXT, "text_encoder_2", "tokenizer_2"), 8, {}),
    "flux_guidance": ("FluxPipeline", (*WITHOUT_TEXT, "text_encoder_2", "tokenizer_2"), 8, {}),
    "auraflow": ("AuraFlowPipeline", WITHOUT_TEXT, 8, {"guidance_scale": 1.0}),
    "sana": ("SanaPipeline", WITHOUT_TEXT, 32, {"guidance_scale": 1.0, "use_resolution_binning": False}),
    "sana_sprint": (
        "SanaSprintPipeline",
        WITHOUT_TEXT,
        32,
        {"intermediate_timesteps": None, "use_resolution_binning": False},
    ),
}


def one_step(name: str, folder: Path, inputs: Mapping[str, Tensor]) -> Tensor:
    """The latents (batch, channels, height, width) that the family's own pipeline makes of the noise in one step."""
    kind, absent, pixels, arguments = PIPELINES[name]
    net = json.loads((folder / "config.json").read_text())["_class_name"]
    scheduler = json.loads((folder / "scheduler_config.json").read_text())["_class_name"]
    with quiet(DIFFUSERS):
        pipeline = getattr(diffusers, kind)(
            transformer=getattr(diffusers, net).from_pretrained(str(folder)),
            scheduler=getattr(diffusers, scheduler).from_pretrained(str(folder)),
            **dict.fromkeys(absent),
        )
    pipeline.set_progress_bar_config(disable=True)
    sample, text = inputs["sample"], inputs["encoder_hidden_states"]
    batch, channels, height, width = sample.shape
    if name.startswith("flux"):
        arguments = {**arguments, "pooled_prompt_embeds": inputs["pooled_projections"]}
        sample = pipeline._pack_latents(sample, batch, channels, height, width)
    else:
        mask = inputs.get("encoder_attention_mask", torch.ones(text.shape[:2]))
        arguments = {**arguments, "prompt_attention_mask": mask}
        if name != "sana_sprint":
            arguments["negative_prompt"] = None
    out: Tensor = pipeline(
        prompt_embeds=text,
        latents=sample.clone(),
        height=height * pixels,
        width=width * pixels,
        num_inference_steps=1,
        output_type="latent",
        return_dict=False,
        **arguments,
    )[0]
    if name.startswith("flux"):
        out = pipeline._unpack_latents(out, height * pixels, width * pixels, pixels)
    return out


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_source_is_one_step_of_its_own_pipeline(name: str, tmp_path: Path) -> None:
    (source,) = load_sources(str(NETWORKS[name](tmp_path / name)))
    inputs = {key: torch.from_numpy(value) for key, value in example_inputs(source.signature, 3, 0).items()}
    if "encoder_attention_mask" in inputs:
        inputs["encoder_attention_mask"] = (torch.arange(300) < torch.tensor([[4], [150], [300]])).long()
    expected = one_step(name, tmp_path / name, inputs)
    assert expected.abs().max() > 0.1
    out = source.module(**inputs)
    assert out.shape == inputs["sample"].shape
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("kind", "settings", "scheduler", "message"),
    [
        ("FluxTransformer2DModel", {**FLUX, "in_channels": 18}, {}, "18 in_channels and None out_channels; supported"),
        ("FluxTransformer2DModel", {**FLUX, "out_channels": 8}, {}, "16 in_channels and 8 out_channels; supported"),
        ("FluxTransformer2DModel", {**FLUX, "sample_size": 7}, {}, "sample_size is 7; a token is 2 latent pixels wide"),
        (
            "SanaTransformer2DModel",
            SANA,
            {"prediction_type": "epsilon", "use_flow_sigmas": True},
            "prediction_type 'epsilon'; there are: flow_prediction",
        ),
        (
            "SanaTransformer2DModel",
            SANA,
            {"prediction_type": "flow_prediction"},
            "prediction_type 'flow_prediction'; there are: epsilon, sample, v_prediction",
        ),
    ],
)
def test_what_has_no_one_step_is_named(
    tmp_path: Path, kind: str, settings: dict[str, Any], scheduler: dict[str, Any], message: str
) -> None:
    folder = save(kind, settings, tmp_path / "net")
    if scheduler:
        save_scheduler("DPMSolverMultistepScheduler", folder, **scheduler)
    with pytest.raises(DataError, match=message):
        load_sources(str(folder))


def test_flux_has_its_pipelines_size_where_the_config_has_none(tmp_path: Path) -> None:
    folder = save("FluxTransformer2DModel", {**FLUX, "sample_size": 8}, tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    del config["sample_size"]
    (folder / "config.json").write_text(json.dumps(config))
    (source,) = load_sources(str(folder))
    assert source.signature.inputs[0].shape == ("batch_size", 4, 128, 128)
    assert "latents of 128 x 128" in " ".join(source.about["notes"])
