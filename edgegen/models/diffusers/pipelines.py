"""Pipeline folders (model_index.json): denoiser, decoder and text encoder as sources, or the first two as one."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgegen.errors import DataError, UsageError
from edgegen.models.diffusers.families import (
    FAMILIES,
    SCHEDULER,
    DecoderFamily,
    DenoiserFamily,
    NetworkFolder,
    load_decoder,
    load_denoiser,
)
from edgegen.models.diffusers.text_encoders import text_encoder
from edgegen.models.diffusers.weights import CONFIG
from edgegen.models.sources.source import NamedInputs, Source, about, finish
from edgegen.support.storage import read_json
from edgegen.types import Signature

INDEX = "model_index.json"
NAME = re.compile(r"\w+")  # a component's name is a folder's: so it cannot lead out of the pipeline
# Parts of a pipeline that compute nothing that could be exported.
NO_NETWORKS = ("Scheduler", "Tokenizer", "TokenizerFast", "FeatureExtractor", "ImageProcessor", "Processor")


@dataclasses.dataclass(frozen=True)
class Component:
    """One entry of model_index.json; `kind` is the name of its class in `library`."""

    name: str
    kind: str
    library: str


def load_pipeline(folder: Path, *, random_weights: int | None, fuse_decoder: bool) -> list[Source]:
    """The sources of a pipeline: its denoiser first, then decoder and text encoder; `fuse_decoder` joins the first two.

    What is left out is named in the first source's notes. Raises DataError where there is no denoiser or a network
    cannot be read, UsageError where there is nothing to fuse.
    """
    components = _components(folder)
    denoisers = [c for c in components if isinstance(FAMILIES.get(c.kind), DenoiserFamily)]
    decoders = [c for c in components if isinstance(FAMILIES.get(c.kind), DecoderFamily)]
    if len(denoisers) != 1:
        present = ", ".join(f"{c.name} ({c.kind})" for c in components) or "no networks"
        raise DataError(
            f"{folder / INDEX}: {len(denoisers)} denoisers, needed is one; found {present}. "
            f"Families: {', '.join(sorted(FAMILIES))}"
        )
    if fuse_decoder and len(decoders) != 1:
        raise UsageError(
            f"{folder}: {len(decoders)} decoders in this pipeline, so nothing to fuse; leave the option out"
        )

    def location(component: Component, name: str) -> NetworkFolder:
        inner = folder / component.name
        return NetworkFolder(inner, name, "pipeline folder", (inner, folder), random_weights)

    denoiser = load_denoiser(
        location(denoisers[0], denoisers[0].name), schedule=folder / "scheduler" / SCHEDULER, latent=bool(decoders)
    )
    sources = [denoiser]
    if len(decoders) == 1:
        decoder = load_decoder(location(decoders[0], f"{decoders[0].name}_decoder"), latent=_latent(folder, denoiser))
        sources = [fuse(folder.resolve().name, denoiser, decoder)] if fuse_decoder else [denoiser, decoder]
    others = [c for c in components if c not in denoisers and not (c in decoders and len(decoders) == 1)]
    notes = []
    for component in others:
        try:
            sources.append(_text_encoder(location(component, component.name), component, components, denoiser))
        except DataError as e:
            notes.append(f"left out: {component.name} ({component.kind}): {e}")
    return [_with_notes(sources[0], notes), *sources[1:]]


def _components(folder: Path) -> list[Component]:
    index = read_json(folder / INDEX)
    if not isinstance(index, dict):
        raise DataError(f"{folder / INDEX}: holds {type(index).__name__}, not the components of a pipeline")
    components = []
    for name, entry in index.items():
        is_pair = isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
        if is_pair and NAME.fullmatch(name) and not entry[1].endswith(NO_NETWORKS):
            if not (folder / name / CONFIG).is_file():
                raise DataError(f"{folder}: {INDEX} names {name} ({entry[1]}), but there is no {name}/{CONFIG}")
            components.append(Component(name, entry[1], entry[0]))
    return components


def _latent(folder: Path, denoiser: Source) -> tuple[int, int, int]:
    """(channels, height, width) of what the denoiser makes."""
    shape = denoiser.signature.outputs[0].shape[1:]
    if len(shape) != 3:
        raise DataError(f"{folder}: its decoder decodes pictures, and the denoiser makes {list(shape)}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _text_encoder(location: NetworkFolder, component: Component, others: list[Component], denoiser: Source) -> Source:
    """The text encoder, where it is the only one and the denoiser takes nothing but its hidden states."""
    texts = [spec for spec in denoiser.signature.inputs if spec.role == "text"]
    encoders = [c for c in others if c.library == "transformers" and "text_encoder" in c.name]
    if component not in encoders or not texts:
        raise DataError("no family of networks that are exported")
    pooled = [spec.name for spec in denoiser.signature.inputs if spec.role == "features" and len(spec.shape) == 2]
    if len(encoders) > 1 or pooled:
        raise DataError(
            "the denoiser joins the outputs of several text encoders, or pooled ones; compute them beside it"
        )
    return text_encoder(location, component.kind, hidden_states=texts[0])


class DenoiserWithDecoder(NamedInputs):
    """decoder(denoiser(noise, conditions)): from noise to image without the latent in between."""

    def __init__(self, denoiser: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.decoder = denoiser, decoder

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        out: Tensor = self.decoder(self.denoiser(*inputs.values()))
        return out


def fuse(name: str, denoiser: Source, decoder: Source) -> Source:
    """One source of both, from noise to image."""
    names = [spec.name for spec in denoiser.signature.inputs]
    module = finish(DenoiserWithDecoder.with_inputs(names)(denoiser.module, decoder.module))
    signature = Signature(denoiser.signature.inputs, decoder.signature.outputs, denoiser.signature.num_classes)
    first, second = denoiser.about, decoder.about
    description: dict[str, Any] = about(module, family=f"{first['family']} + {second['family']}", origin=first["from"])
    denoiser_facts = {key: first[key] for key in ("time", "prediction", "license", "random_weights", "notes")}
    return Source(name, module, signature, {**description, **denoiser_facts})


def _with_notes(source: Source, notes: list[str]) -> Source:
    return dataclasses.replace(source, about={**source.about, "notes": [*source.about["notes"], *notes]})
