"""Networks from folders as diffusers and transformers write them: config.json and safetensors, never pickle."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from edgegen.errors import DataError
from edgegen.models.weights import load_weights
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.support.bounded_files import check_regular
from edgegen.support.storage import read_json
from edgegen.support.vendor_logs import DIFFUSERS, Chatter, quiet

CONFIG = "config.json"
LARGEST_SIZE, MOST_LAYERS = 1 << 24, 1000  # of what networks in use have: vocabularies of 250,000, some 100 layers
DIFFUSERS_STEM, TRANSFORMERS_STEM = "diffusion_pytorch_model", "model"
VARIANTS = ("fp16", "bf16")  # what diffusers' save_pretrained(variant=...) is called with in practice
FLOATS = ("F", "BF")  # how safetensors' names of float types begin
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# The messages at import, and those about each folder (new or missing keys, old class names); and what NumPy 2 says of
# torch's tensors, from which diffusers' schedulers make arrays.
LOADING = Chatter(
    (*DIFFUSERS.loggers, "diffusers", "transformers"),
    (r"`?torch_dtype`? is deprecated", r"__array__ implementation doesn't accept a copy keyword"),
)


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in the folder's config.json. Raises DataError."""
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise DataError(f"{folder / CONFIG}: holds {type(config).__name__}, not the settings of a network")
    if not isinstance(config.get("_class_name"), str | None):
        raise DataError(f"{folder / CONFIG}: _class_name is {config['_class_name']!r}, not the name of a class")
    for key, value in config.items():
        for size in value if isinstance(value, list) else [value]:
            _check_size(folder / CONFIG, key, size)
    return config


def _check_size(path: Path, key: str, size: Any) -> None:
    """Before a library makes that many layers. Raises DataError."""
    most = MOST_LAYERS if "layers" in key else LARGEST_SIZE
    # extra_in_channels is 0 in most networks that have it.
    least = 1 if key.endswith(("layers_per_block", "_channels")) and not key.startswith("extra") else -LARGEST_SIZE
    if isinstance(size, int) and not least <= size <= most:
        raise DataError(f"{path}: {key} is {size}; {least} to {most} would do")


def load_diffusers(folder: Path, kind: Any, *, random_weights: int | None) -> tuple[nn.Module, list[str]]:
    """A diffusers network of class `kind`, in float32, and notes. Raises DataError where config and weights differ."""
    config = read_config(folder)

    def make() -> nn.Module:
        return kind.from_config({key: value for key, value in config.items() if key != "quantization_config"})  # type: ignore[no-any-return]

    if random_weights is not None:
        return random_net(folder, make, random_weights), []
    if "quantization_config" in config:
        raise DataError(
            f"{folder}: its weights are quantized already; give float weights, and a scheme such as --to onnx-w8a8"
        )
    return _pretrained(folder, kind, DIFFUSERS_STEM, make, torch_dtype=torch.float32)


def load_transformers(folder: Path, kind: Any, *, random_weights: int | None) -> tuple[nn.Module, list[str]]:
    """A transformers network, in float32, and notes. Raises DataError where config and weights differ."""
    config = read_config(folder)

    def make() -> nn.Module:
        return kind(kind.config_class.from_dict(config))  # type: ignore[no-any-return]

    if random_weights is not None:
        return random_net(folder, make, random_weights), []
    return _pretrained(folder, kind, TRANSFORMERS_STEM, make, dtype=torch.float32)


def random_net(folder: Path, make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with weights drawn from `seed`, its all-zero ones too; the global random state stays."""
    net = new_net(folder, make, seed)
    randomize_zero_layers(net, seed)
    return net


def new_net(folder: Path, make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network as its class makes it for a training, from `seed`. Raises DataError."""
    with _vendor_loading(folder), torch.random.fork_rng(devices=[]):
        _check_memory(folder, make)
        torch.manual_seed(seed)
        return make()


def _check_memory(folder: Path, make: Callable[[], nn.Module]) -> None:
    """Before the memory of the weights is taken. Raises DataError where there is less."""
    with contextlib.suppress(NotImplementedError, RuntimeError):  # a network that cannot be made without its numbers
        with torch.device("meta"):
            nbytes = sum(parameter.nbytes for parameter in make().parameters())
        available = psutil.virtual_memory().available
        if nbytes > available:
            raise DataError(
                f"{folder}: the network of its {CONFIG} has {nbytes / 1e9:.1f} GB of weights; this machine has "
                f"{available / 1e9:.1f} GB of memory left"
            )


def find_weights(folder: Path, stem: str) -> str | None:
    """The variant of the safetensors weights in `folder`, None for the plain ones, whole or in shards.

    Raises DataError where there are none; the message says how to convert pickles.
    """
    for variant in (None, *VARIANTS):
        paths = weight_files(folder, stem, variant)
        for path in paths:
            dtypes_of(path)  # so that a truncated file raises our error and not the vendor's
        if paths:
            return variant
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    pickles = [name for name in files if Path(name).suffix in PICKLES]
    if pickles:
        raise DataError(
            f"{folder}: pickle weights ({', '.join(pickles)}) are not read: loading them can run any code. Convert "
            "them on a machine that you trust: net.save_pretrained(folder, safe_serialization=True); or, to measure "
            "size and latency only, --random-weights SEED"
        )
    raise DataError(
        f"{folder}: no weights; found {', '.join(files)}. Put {stem}.safetensors there, or, to measure size and "
        "latency only, --random-weights SEED"
    )


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """The safetensors files of one variant, by the index where they are in shards; none where it is not there."""
    tag = f".{variant}" if variant else ""
    single_file, index = folder / f"{stem}{tag}.safetensors", folder / f"{stem}.safetensors.index{tag}.json"
    if single_file.is_file():
        return [single_file]
    if not index.is_file():
        return []
    content = read_json(index)
    files_by_weight = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files_by_weight, dict) or not files_by_weight:
        raise DataError(f"{index}: no weight_map, which says in which file each weight is")
    return sorted({folder / str(name) for name in files_by_weight.values()})


def dtypes_of(path: Path) -> dict[str, str]:
    """name -> dtype, as safetensors writes it ("F32"), by the file's head alone. Raises DataError."""
    if not path.exists():
        raise DataError(f"{path}: not there, though the index of the weights names it")
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as e:
        size = f"{path.stat().st_size:,} bytes"
        raise DataError(f"{path}: cut short, or no safetensors file ({size}): {e}. Copy it again") from e


def require_floats(files: Iterable[Path], net: nn.Module) -> None:
    """Raises DataError where a parameter of `net` is whole numbers in its file: they are codes, not weights."""
    names = {name for name, _ in net.named_parameters()}
    for path in files:
        integers = [name for name, dtype in dtypes_of(path).items() if name in names and not dtype.startswith(FLOATS)]
        if integers:
            raise DataError(
                f"{path}: {len(integers)} weights are whole numbers, such as {integers[0]}: quantized already? "
                "Give the float weights"
            )


def _pretrained(
    folder: Path, kind: Any, stem: str, make: Callable[[], nn.Module], **options: Any
) -> tuple[nn.Module, list[str]]:
    variant = find_weights(folder, stem)
    files = weight_files(folder, stem, variant)
    with _vendor_loading(folder):
        net, info = kind.from_pretrained(
            str(folder),
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    assert isinstance(net, nn.Module)
    if _without_buffers(net, info):  # the vendor knows no prefixes, and leaves what it did not find without memory
        with _vendor_loading(folder):
            net = make()
        try:
            return net, load_weights(net, files)
        except DataError as e:
            raise DataError(f"{e}; is {CONFIG} the one that these weights were saved with?") from e
    require_floats(files, net)
    unexpected = sorted(str(key) for key in info.get("unexpected_keys", ()))
    # No error: the text half of CLIP is loaded from the file of both halves.
    return net, [
        f"{len(unexpected)} tensors of the weights are not used, such as {unexpected[0]}"
    ] if unexpected else []


def _without_buffers(net: nn.Module, info: Mapping[str, Any]) -> set[str]:
    """The missing keys that are parameters: a buffer, such as a table of positions, is computed again."""
    return set(info.get("missing_keys", ())) & {name for name, _ in net.named_parameters()}


@contextlib.contextmanager
def _vendor_loading(folder: Path) -> Iterator[None]:
    """Around a vendor's loading: suppresses its messages and bars, and turns its exceptions into DataError."""
    try:
        with quiet(LOADING), _no_progress_bars():
            yield
    except DataError:
        raise
    except Exception as e:
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        raise DataError(f"{folder}: the network cannot be made from {CONFIG} and weights: {reason}") from e


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Switches the progress bars of diffusers and transformers off, of those that are imported."""
    names = [f"{library}.utils.logging" for library in ("diffusers", "transformers")]
    loggers = [
        sys.modules[name] for name in names if name in sys.modules and sys.modules[name].is_progress_bar_enabled()
    ]
    for log in loggers:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in loggers:
            log.enable_progress_bar()
