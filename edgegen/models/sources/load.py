"""Loads the SOURCE of `edgegen export`: a folder, pipeline, factory or program, as modules to export."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edgegen.errors import DataError, UsageError
from edgegen.formats.stage_folder import AUTOENCODER
from edgegen.models import class_partition, own_velocity
from edgegen.models.diffusers.families import (
    FAMILIES,
    SCHEDULER,
    DecoderFamily,
    NetworkFolder,
    family_of,
    load_decoder,
    load_denoiser,
)
from edgegen.models.diffusers.pipelines import INDEX, fuse, load_pipeline
from edgegen.models.diffusers.weights import (
    CONFIG,
    DIFFUSERS_STEM,
    PICKLES,
    find_weights,
    random_net,
    read_config,
)
from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
from edgegen.models.generator import signature_of
from edgegen.models.load import load as load_generator
from edgegen.models.load import of_latents
from edgegen.models.sources.own_network import load_factory, load_pt2
from edgegen.models.sources.source import Source, about, finish, license_of
from edgegen.program.one_step import NOISE_TIME, OneStep

__all__ = ["Source", "load_sources"]
EXPORTED = (".onnx", ".ort", ".pte", ".bpte", ".mlpackage", ".mlmodel", ".tflite")
KINDS = (
    "a generator or diffusers folder (config.json), a pipeline folder (model_index.json), package.module:factory, "
    "file.py:factory, or a .pt2 of torch.export.save"
)


def load_sources(
    source: str,
    *,
    name: str | None = None,
    signature: Path | None = None,
    random_weights: int | None = None,
    fuse_decoder: bool = False,
) -> list[Source]:
    """The networks of `source`, each ready to be captured.

    `name` replaces that of a single network; the components of a pipeline keep theirs. `signature` is the TOML file of
    a factory or a .pt2; `random_weights` is the seed of weights that replace the folder's (which may be absent);
    `fuse_decoder` makes one source of a pipeline's denoiser and decoder.
    Raises DataError where the source is missing, broken, unsafe or of no known kind, UsageError where an option does
    not fit it, MissingExtraError where diffusers is not installed.
    """
    path = Path(source)
    sources = _load(source, path, signature=signature, random_weights=random_weights, fuse_decoder=fuse_decoder)
    if name is not None and len(sources) == 1:
        return [replace(sources[0], name=name)]
    return [replace(entry, name=_file_stem(entry.name)) for entry in sources]


def _file_stem(name: str) -> str:
    """`name` without characters that a file's name or a shell would need quotes for."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "network"


def _load(
    source: str, path: Path, *, signature: Path | None, random_weights: int | None, fuse_decoder: bool
) -> list[Source]:
    if path.suffix in EXPORTED:
        raise DataError(
            f"{source}: a {path.suffix} is what an export makes, and not its source: in it is no PyTorch network to be "
            f"captured, quantized and compared with. Bring the network that it was made from: {KINDS}. Of the file "
            "itself, `edgegen inspect` says what is in it, and `edgegen profile` how fast it is"
        )
    is_pipeline, has_decoder = (path / INDEX).is_file(), (path / AUTOENCODER).is_dir()
    if fuse_decoder and not (is_pipeline or has_decoder):
        raise UsageError(
            f"{source}: only a pipeline folder ({INDEX}) and a generator on latents have a decoder to fuse; leave the "
            "option out"
        )
    if path.is_dir() and signature is not None:
        raise UsageError(f"{source}: a folder's {CONFIG} is its signature; leave out --signature")
    if is_pipeline:
        return load_pipeline(path, random_weights=random_weights, fuse_decoder=fuse_decoder)
    if has_decoder and (path / CONFIG).is_file():
        return _with_decoder(path, random_weights, fuse_decoder=fuse_decoder)
    if path.is_dir():
        if (path / CONFIG).is_file() and read_config(path).get("_class_name") == class_partition.KIND:
            return _students(path, random_weights)
        return [_folder(path, random_weights)]
    if path.suffix == ".pt2":
        if random_weights is not None:
            raise UsageError(f"{source}: a program has its weights inside; leave out --random-weights")
        return [load_pt2(path, signature=signature)]
    if _names_a_factory(source):
        return [load_factory(source, signature=signature, random_weights=random_weights)]
    if path.suffix == ".safetensors":
        raise DataError(
            f"{source}: weights without a network: give file.py:factory, with a signature file that says "
            f'weights = "{path.name}"; or the folder of a diffusers network'
        )
    if path.suffix in PICKLES:
        raise DataError(
            f"{source}: pickle weights are not read: loading them can run any code, and they hold no network. Give the "
            "folder of config.json and safetensors, or package.module:factory"
        )
    raise DataError(f"no source {source!r}: a source is {KINDS}")


def _names_a_factory(source: str) -> bool:
    place, colon, name = source.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or place.replace(".", "_").isidentifier())


def _with_decoder(folder: Path, random_weights: int | None, *, fuse_decoder: bool) -> list[Source]:
    """A generator folder of a run on latents, which has its autoencoder inside."""
    denoiser, name = _folder(folder, random_weights), folder.resolve().name
    shape = denoiser.signature.sample_shape
    denoiser = replace(denoiser, signature=of_latents(denoiser.signature))
    location = NetworkFolder(folder / AUTOENCODER, f"{name}_decoder", "generator folder", (folder,), random_weights)
    decoder = load_decoder(location, latent=(shape[0], shape[1], shape[2]))
    return [fuse(name, denoiser, decoder)] if fuse_decoder else [denoiser, decoder]


def _folder(folder: Path, random_weights: int | None) -> Source:
    if not (folder / CONFIG).is_file():
        present = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise DataError(f"{folder}: no {CONFIG} and no {INDEX}; found {present}. A source is {KINDS}")
    name = folder.resolve().name
    if read_config(folder).get("_class_name") in (EdgeUNet.__name__, own_velocity.KIND):
        return _generator_folder(folder, name, random_weights)
    location = NetworkFolder(folder, name, "diffusers folder", (folder,), random_weights)
    if isinstance(FAMILIES[family_of(folder)], DecoderFamily):
        return load_decoder(location, latent=None)
    return load_denoiser(location, schedule=folder / SCHEDULER, latent=False)


def _students(folder: Path, random_weights: int | None) -> list[Source]:
    """Each network of a partition of the classes."""
    if random_weights is not None:
        raise UsageError(f"{folder}: holds several students; leave out --random-weights")
    loaded = load_generator(folder)
    net = loaded.net
    assert isinstance(net, class_partition.ClassPartition)
    sources = []
    for number, (network, classes) in enumerate(zip(net.networks, net.parts, strict=True)):
        module = finish(OneStep(network, time=NOISE_TIME))
        description = _description_of(module, EdgeUNet.__name__, license_of(folder), None, loaded.notes)
        name = f"{folder.resolve().name}-{number}"
        sources.append(Source(name, module, loaded.signature, description, serves=tuple(classes)))
    return sources


def _description_of(
    module: nn.Module, kind: str, license_name: str | None, random_weights: int | None, notes: Sequence[str]
) -> dict[str, Any]:
    return about(
        module,
        family=kind,
        origin="generator folder",
        time=NOISE_TIME,
        prediction="velocity of the straight path",
        license_name=license_name,
        random_weights=random_weights,
        notes=notes,
    )


def _generator_folder(folder: Path, name: str, random_weights: int | None) -> Source:
    kind = str(read_config(folder)["_class_name"])
    if kind == own_velocity.KIND and random_weights is not None:
        raise UsageError(f"{folder}: a captured network has its weights inside; leave out --random-weights")
    if random_weights is None:
        if kind == EdgeUNet.__name__:
            find_weights(folder, DIFFUSERS_STEM)
        loaded = load_generator(folder)
        net, signature, notes = loaded.net, loaded.signature, loaded.notes
    else:
        config = read_config(folder)
        edge_unet: Any = random_net(folder, lambda: EdgeUNet(EdgeUNetConfig.from_dict(config)), random_weights)
        net, signature, notes = edge_unet, signature_of(edge_unet.config), ()
    module = finish(OneStep(net, time=NOISE_TIME))
    description = _description_of(module, kind, license_of(folder), random_weights, notes)
    return Source(name, module, signature, description)
