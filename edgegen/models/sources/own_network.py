"""A user's own network: the factory that they name, or a `.pt2`, with the signature that they give."""

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgegen.errors import DataError, UsageError, unknown_name
from edgegen.models.sources.inference_mode import require_inference
from edgegen.models.sources.program_archive import load_program
from edgegen.models.sources.program_signature import guess
from edgegen.models.sources.signature_file import SignatureFile, read_signature, try_out
from edgegen.models.sources.source import NamedInputs, Source, about, finish
from edgegen.models.weights import load_weights
from edgegen.models.zero_layers import randomize_zero_layers
from edgegen.support.bounded_files import user_path

NEEDED = """\
a TOML file that says what goes in and out:
    [[inputs]]
    name = "sample"
    shape = ["batch_size", 3, 64, 64]
    role = "noise"
    [[outputs]]
    shape = ["batch_size", 3, 64, 64]
    role = "image\""""


class OwnNetwork(NamedInputs):
    """net(*inputs, time_argument=time): the fixed time, if any, is given as a (batch,) tensor."""

    def __init__(self, net: nn.Module, *, time: float | None, time_argument: str | None) -> None:
        super().__init__()
        self.net, self.time_argument = net, time_argument
        self.register_buffer("time", None if time is None else torch.tensor([time]), persistent=False)
        self.time: Tensor | None

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(inputs.values()))
        times = {} if self.time is None else {str(self.time_argument): self.time.expand(first.shape[0])}
        out: Tensor = self.net(*inputs.values(), **times)
        return out


def load_factory(source: str, *, signature: Path | None, random_weights: int | None) -> Source:
    """`package.module:factory` or `path/to/file.py:factory`. Raises DataError, or UsageError without a signature."""
    if signature is None:
        raise UsageError(f"{source}: a network of your own needs --signature FILE, {NEEDED}")
    declared = read_signature(signature)
    place, _, name = source.rpartition(":")
    factory = _factory(source, place, name)
    net = _call_factory(source, factory, random_weights)
    notes = []
    if random_weights is not None:
        randomize_zero_layers(net, random_weights)
    elif declared.weights is not None:
        notes += _load_weights(net, signature.parent / declared.weights)
    else:
        notes.append("weights are those that the factory gave: the signature names no file of weights")
    source_of_net = _source(
        name, net, declared, source=source, family=type(net).__name__, random_weights=random_weights, notes=notes
    )
    return _as_declared(source_of_net, declared, signature.parent)


def make_network(source: str, *, base: Path) -> nn.Module:
    """The network that a factory makes; the path of a file.py:NAME is relative to `base`. Raises DataError."""
    place, _, name = source.rpartition(":")
    where = str(user_path(place, base=base)) if place.endswith(".py") else place
    return _call_factory(source, _factory(source, where, name), None)


def load_pt2(path: Path, *, signature: Path | None) -> Source:
    """A program of torch.export.save; without a signature one is guessed from it. Raises DataError."""
    program = load_program(path)
    notes = []
    if signature is None:
        declared = guess(program, path)
        notes.append("the signature is guessed from the program; --signature FILE sets it")
    else:
        declared = read_signature(signature)
        if declared.weights is not None:
            raise DataError(f"{signature}: weights: a .pt2 has its own; leave the key out")
    net = FlatProgram(program)
    source = _source(path.stem, net, declared, source=path.name, family="torch.export program", notes=notes)
    if signature is not None:
        return _as_declared(source, declared, signature.parent)
    return replace(source, unstated=tuple(table.name for table in declared.inputs if table.role != "class"))


def _as_declared(source: Source, declared: SignatureFile, folder: Path) -> Source:
    """`source` with what its signature file in `folder` says of real inputs, and does not say of images."""
    samples = {table.name: folder / table.samples for table in declared.inputs if table.samples is not None}
    rangeless = (table for table in declared.inputs if table.role == "image" and None in (table.low, table.high))
    return replace(source, samples=samples, unstated=tuple(table.name for table in rangeless))


class FlatProgram(nn.Module):
    """An exported program as a module: its inputs one after the other, or by name; its one output."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.names = program.graph_signature.user_inputs
        unlifted = program.module(check_guards=False)
        graph = unlifted.graph
        # Flat inputs and outputs in place of the arguments that it was exported with, and train() and eval() again.
        graph.set_codegen(fx.graph.CodeGen())
        self.net = fx.GraphModule(unlifted, graph)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        unknown = [name for name in kwargs if name not in self.names]
        if unknown or len(args) + len(kwargs) != len(self.names):
            raise TypeError(f"the program takes {', '.join(map(str, self.names))}")
        rest = iter(args)
        out = self.net(*(kwargs[name] if name in kwargs else next(rest) for name in map(str, self.names)))
        return out[0] if isinstance(out, list | tuple) and len(out) == 1 else out


def _source(
    name: str,
    net: nn.Module,
    declared: SignatureFile,
    *,
    source: str,
    family: str,
    random_weights: int | None = None,
    notes: list[str],
) -> Source:
    names = [table.name for table in declared.inputs]
    module = finish(
        OwnNetwork.with_inputs(names)(finish(net), time=declared.time, time_argument=declared.time_argument)
    )
    signature = declared.signature()
    try_out(module, signature, of=source)
    require_inference(module, signature, of=source)
    origin = "torch.export program" if isinstance(net, FlatProgram) else "factory"
    description = about(
        module, family=family, origin=origin, time=declared.time, random_weights=random_weights, notes=notes
    )
    return Source(name, module, signature, description)


def _factory(source: str, place: str, name: str) -> Callable[[], Any]:
    with _importing(source, place):
        module = _file_module(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    factory = getattr(module, name, None)
    if factory is None:
        factories = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError(f"{source}: {unknown_name('factory', name, factories)}")
    if not callable(factory):
        raise DataError(f"{source}: {name} is a {type(factory).__name__}; needed is a function that makes the network")
    return factory  # type: ignore[no-any-return]


def _call_factory(source: str, factory: Callable[[], Any], random_weights: int | None) -> nn.Module:
    required = [
        p.name for p in _parameters(factory) if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if required:
        raise DataError(f"{source}: the factory needs {', '.join(required)}; it is called without arguments")
    try:
        with torch.random.fork_rng(devices=[], enabled=random_weights is not None):
            if random_weights is not None:
                torch.manual_seed(random_weights)
            net = factory()
    except (Exception, SystemExit) as e:
        raise DataError(f"{source}: the factory failed: {_in_one_line(e)}") from e
    if not isinstance(net, nn.Module):
        raise DataError(f"{source}: the factory gives a {type(net).__name__}; needed is a torch.nn.Module")
    return net


def _parameters(factory: Callable[[], Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # a function of C has none to show
        return []


def _load_weights(net: nn.Module, path: Path) -> list[str]:
    if path.suffix != ".safetensors":
        raise DataError(
            f"{path}: weights are read from .safetensors only: loading a pickle can run any code. Convert it on a "
            "machine that you trust: safetensors.torch.save_file(net.state_dict(), 'net.safetensors')"
        )
    return load_weights(net, [path])


def _file_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"edgegen_source_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look modules up there
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importing(source: str, place: str) -> Iterator[None]:
    """Around the import of a user's code, which may import modules beside it (or in the current folder).

    Turns its exceptions into DataError.
    """
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise DataError(f"{source}: no file {place}")
    folder = str(Path(place).resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    except (Exception, SystemExit) as e:
        raise DataError(f"{source}: {place} cannot be imported: {_in_one_line(e)}") from e
    finally:
        sys.path.remove(folder)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
