"""A velocity network of the user's own: trained as a module, kept in a generator folder as a captured program.

The folder needs none of the user's code to be opened again, and runs none: it holds `network.pt2`, which
edgegen.models.sources.program_archive reads, with `config.json` and `edgegen.json` as in other generator folders.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.export import Dim

from edgegen.errors import DataError, ExportError, RecipeError
from edgegen.flow.condition import condition_spec, made_up, upscale_of
from edgegen.models.generator import ABOUT, CONFIG, Loaded
from edgegen.models.sources.own_network import FlatProgram, make_network
from edgegen.models.sources.program_archive import load_program
from edgegen.program.generator import save_program
from edgegen.support.storage import read_json, write_json
from edgegen.support.vendor_logs import EXPORT, quiet
from edgegen.types import Signature

KIND, PROGRAM = "CapturedVelocity", "network.pt2"


@dataclass(frozen=True)
class VelocityConfig:
    """What `config.json` holds beside the class name; `image_shape` is (channels, height, width).

    Of a network of signals it is (channels, length). `upscale` as in EdgeUNetConfig.
    """

    image_shape: tuple[int, int, int] | tuple[int, int]
    num_classes: int
    second_time: bool
    upscale: int | None = None

    @property
    def signature(self) -> Signature:
        return Signature.of_shape(self.image_shape, num_classes=self.num_classes, upscale=self.upscale)

    def to_dict(self) -> dict[str, Any]:
        """`upscale` only where there is one, so that files of networks without it stay."""
        fields: dict[str, Any] = TypeAdapter(VelocityConfig).dump_python(self)
        return {name: value for name, value in fields.items() if name != "upscale" or value}


class OwnVelocity(nn.Module):
    """net(x, t, condition[, r=r]) as a velocity network; `condition` is None where nothing is conditional."""

    def __init__(self, net: nn.Module, config: VelocityConfig) -> None:
        super().__init__()
        self.net, self.config, self.second_time = net, config, config.second_time
        self.image_channels, self.num_classes = config.image_shape[0], config.num_classes
        self.upscale = config.upscale

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, r: Tensor | None = None) -> Tensor:
        times = {"r": t if r is None else r} if self.second_time else {}
        out: Tensor = self.net(x, t, condition, **times)
        return out


class CapturedVelocity(OwnVelocity):
    """The same, of the program in a generator folder, whose inputs are those that it has."""

    net: FlatProgram

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, r: Tensor | None = None) -> Tensor:
        given = () if condition is None else (condition,)
        out: Tensor = self.net(x, t, *given, *((t if r is None else r,) if self.second_time else ()))
        return out

    def weights(self) -> dict[str, Tensor]:
        """By the names that they have in the OwnVelocity which was captured."""
        return {name.removeprefix("network."): tensor for name, tensor in self.net.net.state_dict().items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CapturedVelocity":
        """Also the device of the tensors that the program makes itself, which a capture writes into it."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = next(self.parameters()).device
        graph = self.net.net.graph
        for node in graph.nodes:
            if node.kwargs.get("device") not in (None, device):
                node.kwargs = {**node.kwargs, "device": device}
        self.net.net.recompile()
        return self


class _FlatVelocity(nn.Module):
    """Of the inputs alone that there are: x, t, the condition, r."""

    def __init__(self, network: OwnVelocity) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        config = self.network.config
        condition = None if condition_spec(config.signature) is None else inputs[2]
        out: Tensor = self.network(inputs[0], inputs[1], condition, inputs[-1] if config.second_time else None)
        return out


def new_own_velocity(source: str, signature: Signature, *, second_time: bool, base: Path) -> OwnVelocity:
    """The network of a factory, file.py:NAME (relative to `base`) or package.module:NAME. Raises RecipeError."""
    try:
        net = make_network(source, base=base)
    except DataError as e:
        raise RecipeError(f"slim.network: {e}") from e
    if second_time and "r" not in inspect.signature(net.forward).parameters:
        raise RecipeError(
            f"slim.network = '{source}': a method of the recipe needs a second time, and {type(net).__name__}.forward "
            "takes none; needed is forward(x, t, condition, r)"
        )
    shape: Any = signature.sample_shape
    config = VelocityConfig(shape, signature.num_classes, second_time, upscale_of(signature))
    return OwnVelocity(net.float(), config)


def captured(network: OwnVelocity) -> torch.export.ExportedProgram:
    """The program of x, t, the condition where there is one, and r where it has a second time; for any batch.

    Raises ExportError where the network does not run on these, gives another shape, or cannot be captured.
    """
    config, name = network.config, type(network.net).__name__
    condition = made_up(config.signature, 2)
    images, r = torch.zeros(2, *config.image_shape), torch.zeros(2) if config.second_time else None
    given = tuple(value for value in (images, torch.ones(2), condition, r) if value is not None)
    flat, axes = _FlatVelocity(network).eval(), (tuple({0: Dim.DYNAMIC} for _ in given),)
    try:
        with torch.no_grad(), quiet(EXPORT):
            out = flat(*given)
            program = torch.export.export(flat, given, dynamic_shapes=axes)
    except Exception as e:
        form = f"forward(x, t, condition{', r' * config.second_time})"
        raise ExportError(f"{name}: {form} cannot be captured: {_line(e)}") from e
    if not isinstance(out, Tensor) or out.shape != images.shape:
        kind = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ExportError(f"{name} gives {kind} for images {tuple(images.shape)}; needed: a velocity like them")
    return program


def save(network: OwnVelocity, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Writes a generator folder. `about` says what it is: role, lineage."""
    folder.mkdir(parents=True, exist_ok=True)
    save_program(captured(network), folder / PROGRAM)
    write_json(folder / CONFIG, {"_class_name": KIND, **network.config.to_dict()})
    signature = network.config.signature.to_dict()
    write_json(folder / ABOUT, {"schema": "edgegen.generator/1", "signature": signature, **about})


def load(folder: Path, config: Mapping[str, Any]) -> Loaded:
    """A generator folder that `save` wrote, with what its `config.json` holds. Raises DataError."""
    try:
        fields = {key: value for key, value in config.items() if key != "_class_name"}
        settings = TypeAdapter(VelocityConfig).validate_python(fields)
    except ValueError as e:
        raise DataError(f"{folder / CONFIG}: not what a network of this kind takes: {_line(e)}") from e
    network = CapturedVelocity(FlatProgram(load_program(folder / PROGRAM)), settings)
    expected = 2 + (condition_spec(settings.signature) is not None) + settings.second_time
    if len(network.net.names) != expected:
        raise DataError(f"{folder}: {PROGRAM} takes {len(network.net.names)} inputs, {CONFIG} says {expected}")
    about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    return Loaded(network.eval().requires_grad_(False), settings.signature, about)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
