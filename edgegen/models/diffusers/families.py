"""The families of diffusers networks that can be exported: _class_name in config.json -> how it becomes a source."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError, unknown_name
from edgegen.models.diffusers import decoders, denoisers
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
    # A teacher too: one step of the velocity that edgegen.models.diffusers.velocity makes of it, so that both agree.
    "UNet2DModel": DenoiserFamily(denoisers.unet2d, along_path=True),
    "UNet2DConditionModel": DenoiserFamily(denoisers.unet2d_condition),
    "DiTTransformer2DModel": DenoiserFamily(denoisers.dit),
    "PixArtTransformer2DModel": DenoiserFamily(denoisers.pixart),
    "SD3Transformer2DModel": DenoiserFamily(denoisers.sd3),
    "UNet1DModel": DenoiserFamily(denoisers.unet1d),
    "AutoencoderKL": DecoderFamily(decoders.autoencoder_kl),
    "AutoencoderTiny": DecoderFamily(decoders.autoencoder_tiny),
}


def family_of(folder: Path) -> str:
    """The _class_name in the folder's config.json. Raises DataError where it is no family of ours."""
    kind = read_config(folder).get("_class_name")
    if kind not in FAMILIES:
        found = "missing" if kind is None else unknown_name("family", str(kind), FAMILIES)
        there = "" if kind is not None else f"; there are: {', '.join(sorted(FAMILIES))}"
        raise DataError(f"{folder / CONFIG}: _class_name is {found}{there}")
    return str(kind)


@dataclass(frozen=True)
class Place:
    """Where a network stands: `cards` are the folders whose model card may name the licence."""

    folder: Path
    name: str
    come_from: str
    cards: tuple[Path, ...]
    random_weights: int | None


def load_denoiser(place: Place, *, schedule: Path, latent: bool) -> Source:
    """A denoising net as a one-step generator: by the scheduler in `schedule`, or without one its own output.

    `latent` says that a decoder follows. Raises DataError.
    """
    kind = family_of(place.folder)
    family = FAMILIES[kind]
    assert isinstance(family, DenoiserFamily)
    net, notes = _load(place, kind)
    with _named(place.folder):
        interface = family.interface(net.config, latent=latent)
    notes += interface.notes
    if schedule.exists():
        step = one_step(read_schedule(schedule), schedule, along_path=family.along_path)
    else:
        step = Step(interface.time, NO_SCHEDULE)
        notes.append(f"no {SCHEDULER}: out_sample is the net's own output at time {interface.time:g}")
    module = finish(OneStepNet.taking([spec.name for spec in interface.inputs])(net, interface, step))
    signature = Signature(interface.inputs, (interface.output,), interface.num_classes)
    return _source(place, module, signature, kind, time=step.time, prediction=step.prediction, notes=notes)


def load_decoder(place: Place, *, latent: tuple[int, int, int] | None) -> Source:
    """The decoder of an autoencoder; `latent` (channels, height, width) is what the denoiser beside it makes, if any.

    Raises DataError.
    """
    kind = family_of(place.folder)
    family = FAMILIES[kind]
    assert isinstance(family, DecoderFamily)
    vae, notes = _load(place, kind)
    with _named(place.folder):
        signature, more = decoders.signature_of(vae.config, latent=latent)
    return _source(place, finish(family.decoder(vae)), signature, kind, notes=[*notes, *more])


def _source(place: Place, module: nn.Module, signature: Signature, kind: str, **told: Any) -> Source:
    facts = about(
        module,
        family=kind,
        come_from=place.come_from,
        license_name=license_of(*place.cards),
        random_weights=place.random_weights,
        **told,
    )
    return Source(place.name, module, signature, facts)


def _load(place: Place, kind: str) -> tuple[Any, list[str]]:
    require("diffusers", purpose=f"reading the {kind} in {place.folder}")
    with quiet(LOADING):
        import diffusers

        network = getattr(diffusers, kind)  # imported on access: now, while it is quiet
    return load_diffusers(place.folder, network, random_weights=place.random_weights)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Puts the folder before what is said about its config.json."""
    try:
        yield
    except DataError as e:
        raise DataError(f"{folder}: {e}") from e
