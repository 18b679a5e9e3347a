"""The families of diffusers networks that can be exported: _class_name in config.json -> how to make a source of it."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError, unknown_name
from edgegen.models.diffusers import decoders, denoisers, flow_transformers
from edgegen.models.diffusers.denoisers import Interface, OneStepNet
from edgegen.models.diffusers.schedule import Step, one_step, read_schedule
from edgegen.models.diffusers.weights import CONFIG, LOADING, load_diffusers, read_config
from edgegen.models.sources.source import Source, about, finish, license_of
from edgegen.support.extras import require
from edgegen.support.vendor_logs import quiet
from edgegen.types import Signature

SCHEDULER = "scheduler_config.json"
NO_SCHEDULE = "none: the network's own output"


@dataclass(frozen=True)
class DenoiserFamily:
    """A family that turns noise into data. `along_path` chooses its step, see edgegen.models.diffusers.schedule."""

    interface: Callable[..., Interface]
    along_path: bool = False


@dataclass(frozen=True)
class DecoderFamily:
    """A family whose decoder turns a latent into an image."""

    decoder: Callable[[Any], nn.Module]


FAMILIES: Mapping[str, DenoiserFamily | DecoderFamily] = {
    # It can be a teacher, so its step is one of edgegen.models.diffusers.velocity: both then give the same image.
    "UNet2DModel": DenoiserFamily(denoisers.unet2d, along_path=True),
    "UNet2DConditionModel": DenoiserFamily(denoisers.unet2d_condition),
    "DiTTransformer2DModel": DenoiserFamily(denoisers.dit),
    "PixArtTransformer2DModel": DenoiserFamily(denoisers.pixart),
    "SD3Transformer2DModel": DenoiserFamily(flow_transformers.sd3),
    "FluxTransformer2DModel": DenoiserFamily(flow_transformers.flux),
    "AuraFlowTransformer2DModel": DenoiserFamily(flow_transformers.auraflow),
    "SanaTransformer2DModel": DenoiserFamily(flow_transformers.sana),
    "UNet1DModel": DenoiserFamily(denoisers.unet1d),
    "AutoencoderKL": DecoderFamily(decoders.autoencoder_kl),
    "AutoencoderTiny": DecoderFamily(decoders.autoencoder_tiny),
}


def family_of(folder: Path) -> str:
    """The _class_name in the folder's config.json. Raises DataError where it is not in FAMILIES."""
    kind = read_config(folder).get("_class_name")
    if kind not in FAMILIES:
        problem = "missing" if kind is None else unknown_name("family", str(kind), FAMILIES)
        choices = "" if kind is not None else f"; there are: {', '.join(sorted(FAMILIES))}"
        raise DataError(f"{folder / CONFIG}: _class_name is {problem}{choices}")
    return str(kind)


@dataclass(frozen=True)
class NetworkFolder:
    """The folder of one network; `cards` are the folders whose model card may name the licence."""

    folder: Path
    name: str
    origin: str
    cards: tuple[Path, ...]
    random_weights: int | None


def load_denoiser(location: NetworkFolder, *, schedule: Path, latent: bool) -> Source:
    """A denoising network as a one-step generator: by the scheduler in `schedule`, or without one its own output.

    `latent` says that a decoder follows. Raises DataError.
    """
    kind = family_of(location.folder)
    family = FAMILIES[kind]
    assert isinstance(family, DenoiserFamily)
    net, notes = load_network(location, kind)
    with _errors_naming(location.folder):
        interface = family.interface(net.config, latent=latent)
    notes += interface.notes
    if schedule.exists():
        step = one_step(read_schedule(schedule), schedule, along_path=family.along_path)
        if step.prediction == "flow":
            step = replace(step, time=step.time * interface.per_flow_time)
    else:
        step = Step(interface.time, NO_SCHEDULE)
        notes.append(f"no {SCHEDULER}: out_sample is the net's own output at time {interface.time:g}")
    module = finish(OneStepNet.with_inputs([spec.name for spec in interface.inputs])(net, interface, step))
    signature = Signature(interface.inputs, (interface.output,), interface.num_classes)
    return _source(location, module, signature, kind, time=step.time, prediction=step.prediction, notes=notes)


def load_decoder(location: NetworkFolder, *, latent: tuple[int, int, int] | None) -> Source:
    """The decoder of an autoencoder; `latent` (channels, height, width) is what the denoiser beside it makes, if any.

    Raises DataError.
    """
    kind = family_of(location.folder)
    family = FAMILIES[kind]
    assert isinstance(family, DecoderFamily)
    vae, notes = load_network(location, kind)
    with _errors_naming(location.folder):
        signature, decoder_notes = decoders.signature_of(vae.config, latent=latent)
    return _source(location, finish(family.decoder(vae)), signature, kind, notes=[*notes, *decoder_notes])


def _source(location: NetworkFolder, module: nn.Module, signature: Signature, kind: str, **details: Any) -> Source:
    description = about(
        module,
        family=kind,
        origin=location.origin,
        license_name=license_of(*location.cards),
        random_weights=location.random_weights,
        **details,
    )
    return Source(location.name, module, signature, description)


def load_network(location: NetworkFolder, kind: str) -> tuple[Any, list[str]]:
    """The network of class `kind` in a folder, in float32, and notes. Raises DataError and MissingExtraError."""
    require("diffusers", purpose=f"reading the {kind} in {location.folder}")
    with quiet(LOADING):
        import diffusers

        network = getattr(diffusers, kind)  # diffusers imports it on access: here, so that its messages are suppressed
    return load_diffusers(location.folder, network, random_weights=location.random_weights)


@contextlib.contextmanager
def _errors_naming(folder: Path) -> Iterator[None]:
    """Puts the folder in front of messages about its config.json."""
    try:
        yield
    except DataError as e:
        raise DataError(f"{folder}: {e}") from e
