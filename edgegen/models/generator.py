"""Generator folders: `config.json` + `diffusion_pytorch_model.safetensors` + `edgegen.json` + a model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig, count_parameters
from edgegen.models.weights import load_weights
from edgegen.program.parameters import parameter_count
from edgegen.support.storage import atomic_path, nbytes_of, read_json, save_tensors, write_json
from edgegen.types import Signature

ONE_STEP_ROLES = ("student", "finished", "baseline")  # in edgegen.json, of networks trained for a single step
SPACE, LATENTS = "space", "latents"  # key and value in edgegen.json of a network whose samples are no images
CONFIG, WEIGHTS, ABOUT, CARD = "config.json", "diffusion_pytorch_model.safetensors", "edgegen.json", "README.md"


@dataclass(frozen=True)
class Loaded:
    """A velocity network from disk: forward(x, t, condition) -> velocity of the straight path, t = 0 data.

    `notes` say what had to be done to read its weights.
    """

    net: nn.Module
    signature: Signature
    about: Mapping[str, Any]
    notes: Sequence[str] = ()

    @property
    def parameters(self) -> int:
        return parameter_count(self.net)


def save(network: EdgeUNet, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Writes a generator folder. `about` says what it is: role, lineage, settings."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, network.config.to_dict())
    write_json(
        folder / ABOUT, {"schema": "edgegen.generator/1", "signature": signature_of(network.config).to_dict(), **about}
    )
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(_card(network, about), encoding="utf-8")


def signature_of(config: EdgeUNetConfig) -> Signature:
    return Signature.of_shape(config.sample_shape, num_classes=config.num_classes, upscale=config.upscale)


def load_ours(folder: Path, config: Mapping[str, Any]) -> Loaded:
    """A generator folder that `save` wrote, with what its `config.json` holds. Raises DataError."""
    try:
        settings = EdgeUNetConfig.from_dict(config)
        if count_parameters(settings) > nbytes_of(folder / WEIGHTS):  # before their memory is taken
            raise ValueError(f"{count_parameters(settings):,} weights in {nbytes_of(folder / WEIGHTS):,} bytes")
        network = EdgeUNet(settings)
    except (TypeError, ValueError, IndexError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise DataError(f"{folder / CONFIG}: not the settings of an EdgeUNet: {reason}") from e
    notes = load_weights(network, [folder / WEIGHTS])
    about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    if not isinstance(about, dict):
        raise DataError(f"{folder / ABOUT}: holds {type(about).__name__}, not what a generator is")
    return Loaded(network.eval().requires_grad_(False), signature_of(network.config), about, notes)


def _card(network: EdgeUNet, about: Mapping[str, Any]) -> str:
    config = network.config
    kind = f"{config.num_classes} classes" if config.num_classes else "unconditional"
    count, shape = parameter_count(network), signature_of(config).sample_shape
    times = "1, 0" if config.second_time else "1"
    samples = "signals" if config.signal else str(about.get(SPACE, "images"))
    values = "of an autoencoder, scaled to deviation 1" if samples == LATENTS else "in [-1, 1]"
    layout = "(batch, channels, length)" if config.signal else "NCHW"
    tag = "" if config.signal else "pipeline_tag: unconditional-image-generation\n"
    return f"""---
library_name: edgegen
{tag}tags: [edgegen, flow-matching]
---
# {about.get("name", "generator")}: {about.get("role", "generator")}

An EdgeUNet velocity network of {count:,} parameters for {"x".join(map(str, shape))}
{samples} ({kind}), written by edgegen. `config.json` holds its shape, `edgegen.json` its signature and lineage.

Time runs from t = 0 (data) to t = 1 (noise); one step is x = z - u(z, {times}).
{samples.capitalize()} are float32 {layout} {values}.
"""
