"""Weights of safetensors files into a network: every reader of weights uses `load_weights`.

A file's names need not be the network's. `safetensors.torch.save_model` stores a shared tensor once and notes its other
names in the metadata; torch.compile, DataParallel, DistributedDataParallel, AveragedModel and trainers put a prefix
before every name; and many trainers save averaged weights (EMA) beside those under training.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.support.storage import load_metadata, load_tensors

COMPILED = "_orig_mod."  # torch.compile's, before the names of whatever module was compiled
AVERAGE = re.compile(r"(?:^|[._])(?:ema|avg|average|averaged|shadow)(?=[._]|$)")
# What is counted beside averages, by torch's AveragedModel, diffusers' EMAModel and ema-pytorch.
COUNTERS = ("n_averaged", "num_updates", "decay", "optimization_step", "step", "initted")


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of some files by name; `aliases`: by a name that was left out, that of the tensor which it shared.

    `compiled`: torch.compile's prefix was taken off the names.
    """

    origin: str
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    compiled: bool

    @staticmethod
    def read(files: Sequence[Path]) -> "StoredTensors":
        tensors: dict[str, Tensor] = {}
        aliases: dict[str, str] = {}
        for file in files:
            tensors |= load_tensors(file)
            aliases |= load_metadata(file)
        origin = ", ".join(map(str, files))
        plain = {_plain(name): tensor for name, tensor in tensors.items()}
        # Fewer: a network lies beside its compiled self.
        if plain.keys() == tensors.keys() or len(plain) < len(tensors):
            return StoredTensors(origin, tensors, aliases, compiled=False)
        aliases = {_plain(left_out): _plain(name) for left_out, name in aliases.items()}
        return StoredTensors(origin, plain, aliases, compiled=True)

    def find(self, names: Iterable[str]) -> str | None:
        """Under which name a tensor of these names is stored."""
        stored = (name if name in self.tensors else self.aliases.get(name) for name in names)
        return next((name for name in stored if name in self.tensors), None)


@dataclass(frozen=True)
class StoredCopy:
    """The network's tensors with one prefix: by the network's name, the file's; and the names that the file lacks."""

    prefix: str
    stored: Mapping[str, str]
    missing: tuple[str, ...]


def load_weights(net: nn.Module, files: Sequence[Path]) -> list[str]:
    """Fills `net`, in place, from safetensors files; returns notes on what had to be done for that.

    A prefix is taken off where the rest fits exactly. Of the weights under training and their average, both in the
    file, the average is taken.

    Raises DataError where a file cannot be read, its tensors do not fit the network, or it holds several networks.
    """
    file, names = StoredTensors.read(files), _names(net)
    parameters = {_plain(name) for name, _ in net.named_parameters()}
    longest = max(parameters or names, key=len, default="")
    copies = [_copy(prefix, file, names) for prefix in _prefixes(file, names.get(longest, []))]
    whole = [copy for copy in copies if parameters.isdisjoint(copy.missing)]
    if not whole:
        _load_older_names(net, file, min(copies, key=lambda copy: len(copy.missing)))
        return []
    copy = whole[0] if len(whole) == 1 else _average(whole, file)
    stored = dict(copy.stored)
    for other in whole:  # many averages are of the parameters alone, without what a BatchNorm has counted
        stored = {**other.stored, **stored}
    used = {name for each in whole for name in each.stored.values()}
    unused = [name for name in file.tensors if name not in used]
    foreign = [name for name in unused if name.rpartition(".")[2] not in COUNTERS]
    missing = tuple(name for name in names if name not in stored)
    if missing or foreign:
        raise _misfit(file, StoredCopy(copy.prefix, stored, missing), foreign)
    _fill(net, {name: file.tensors[key] for name, key in stored.items()}, file)
    prefixes = [COMPILED] * file.compiled + [copy.prefix] * (len(whole) == 1 and copy.prefix != "")
    notes = [f"weights: '{prefix}' is taken off the names in the file" for prefix in prefixes]
    if len(whole) > 1:
        others = f", and {len(copy.missing)} buffers of the other" if copy.missing else ""
        notes.append(f"weights: of {len(whole)} copies in the file the average is taken, {copy.prefix}*{others}")
    if unused:
        notes.append(f"weights: {', '.join(unused)} of the file is not used")
    return notes


def _plain(name: str) -> str:
    return name.replace(COMPILED, "")


def _names(net: nn.Module) -> dict[str, list[str]]:
    """By the name of each tensor that a file should hold, all names of that tensor: shared ones have more than one."""
    state = {_plain(name): value for name, value in net.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    shared: dict[int, list[str]] = {}
    for name, tensor in state.items():
        shared.setdefault(id(tensor), []).append(name)
    return {name: [name, *shared[id(tensor)]] for name, tensor in state.items()}


def _prefixes(file: StoredTensors, names: Sequence[str]) -> list[str]:
    """What stands in the file before one of these names."""
    keys = [*file.tensors, *file.aliases]
    prefixes = {key.removesuffix(name) for name in names for key in keys if f".{key}".endswith(f".{name}")}
    return sorted(prefixes) or [""]


def _copy(prefix: str, file: StoredTensors, names: Mapping[str, list[str]]) -> StoredCopy:
    places = {name: file.find(prefix + shared for shared in sharing) for name, sharing in names.items()}
    stored = {name: place for name, place in places.items() if place is not None}
    return StoredCopy(prefix, stored, tuple(name for name in names if name not in stored))


def _average(whole: Sequence[StoredCopy], file: StoredTensors) -> StoredCopy:
    averages = [copy for copy in whole if AVERAGE.search(copy.prefix)]
    if len(averages) != 1:
        prefixes = ", ".join(f"{copy.prefix}*" for copy in whole)
        raise DataError(
            f"{file.origin}: holds this network {len(whole)} times: {prefixes}. Save the one that is meant alone: "
            "safetensors.torch.save_model(net, 'net.safetensors')"
        )
    return averages[0]


def _load_older_names(net: nn.Module, file: StoredTensors, nearest: StoredCopy) -> None:
    """By the network's own hooks, which may know older names, as those of torch's weight_norm do. Raises DataError."""
    try:
        net.load_state_dict(dict(file.tensors))
    except RuntimeError as e:
        used = set(nearest.stored.values())
        raise _misfit(file, nearest, [name for name in file.tensors if name not in used]) from e


def _fill(net: nn.Module, tensors: Mapping[str, Tensor], file: StoredTensors) -> None:
    state = {name: own for name, own in net.state_dict().items() if _plain(name) in tensors}
    for name, own in state.items():
        given = tensors[_plain(name)]
        if given.shape != own.shape:
            raise DataError(
                f"{file.origin}: these weights do not fit the network: {name} is {list(given.shape)} in the file and "
                f"{list(own.shape)} in the network"
            )
        if own.is_floating_point() != given.is_floating_point():
            raise DataError(
                f"{file.origin}: {name} is {given.dtype}, {own.dtype} in the network: quantized already? Give the "
                "float weights"
            )
    net.load_state_dict({name: tensors[_plain(name)] for name in state}, strict=False)


def _misfit(file: StoredTensors, copy: StoredCopy, foreign: Sequence[str]) -> DataError:
    total = len(copy.stored) + len(copy.missing)
    faults = []
    if copy.missing:
        faults.append(f"{len(copy.missing)} of its {total} tensors are missing, such as {copy.missing[0]}")
    if foreign:
        faults.append(f"{len(foreign)} tensors of the file are not the network's, such as {foreign[0]}")
    prefixed = f" (its names after {copy.prefix!r})" if copy.prefix else ""
    return DataError(f"{file.origin}: these weights do not fit the network{prefixed}: {'; '.join(faults)}")
