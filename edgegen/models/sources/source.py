"""A source of an export, loaded: a module with named inputs, its signature, and a description of its origin."""

import inspect
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from edgegen.formats.signal_units import SignalUnits
from edgegen.program.parameters import parameter_count
from edgegen.support.bounded_files import read_bytes
from edgegen.types import Dim, Signature

LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One network to be exported, ready: float32, on the CPU, in evaluation mode, without gradients.

    `name` is the stem of the files; `module` takes the signature's inputs in order, by position or by name, and gives
    one tensor, the fixed time inside; `about` is the result of the function `about`, for JSON. `samples` are files of
    real inputs by the input's name, as a signature names them; `unstated` are inputs of which nobody said what they
    are: those of a guessed signature, and images whose black and white it does not give. `class_names` are those of
    the classes 0, 1, ..., () where nothing knows them. `serves` are the classes that it is for, () for all. `units` are
    those of the signals that it makes, where they are known.
    """

    name: str
    module: nn.Module
    signature: Signature
    about: Mapping[str, Any]
    samples: Mapping[str, Path] = field(default_factory=dict)
    unstated: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    serves: tuple[int, ...] = ()
    units: SignalUnits | None = None


class NamedInputs(nn.Module):
    """A module whose `forward` takes inputs with names that are known only when it is made.

    A subclass says what to do with them in `compute`. torch.export names a program's inputs after the parameters of
    `forward`, and a network with or without classes, text or an image has other ones: so each set gets a subclass.
    """

    names: tuple[str, ...]

    @classmethod
    def with_inputs(cls, names: Sequence[str]) -> type[Self]:
        """This class with forward(<names in order>); one that Python does not take gets a "_" behind it there."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = _parameter_names(names)
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *parameters.values())])

        def forward(self: NamedInputs, /, *args: Tensor, **kwargs: Tensor) -> Tensor:
            by_parameter = {parameters.get(name, name): value for name, value in kwargs.items()}
            bound = signature.bind(self, *args, **by_parameter).arguments
            return self.compute({name: bound[parameter] for name, parameter in parameters.items()})

        forward.__signature__ = signature  # type: ignore[attr-defined]
        return type(cls.__name__, (cls,), {"forward": forward, "names": tuple(names), "__doc__": cls.__doc__})

    def compute(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The inputs by name -> out_sample."""
        raise NotImplementedError


def _parameter_names(names: Sequence[str]) -> dict[str, str]:
    """By the name of an input, that of its parameter: neither `self` nor a word of the language, and no other's."""
    parameters: dict[str, str] = {}
    for name in names:
        parameter = name
        while parameter == "self" or keyword.iskeyword(parameter) or (parameter != name and parameter in names):
            parameter += "_"
        parameters[name] = parameter
    return parameters


def finish(module: nn.Module) -> nn.Module:
    """`module` as every source has it, in place: float32, on the CPU, in evaluation mode, without gradients."""
    return module.cpu().float().eval().requires_grad_(False)


def about(
    module: nn.Module,
    *,
    family: str,
    origin: str,
    time: float | None = None,
    prediction: str | None = None,
    license_name: str | None = None,
    random_weights: int | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The description of a source: its family, where it is from, parameters, fixed time and what its output means."""
    if random_weights is not None:
        notes = (f"weights are random (seed {random_weights}): good for size and latency, not for pictures", *notes)
    return {
        "family": family,
        "from": origin,
        "parameters": parameter_count(module),
        "time": time,
        "prediction": prediction,
        "license": license_name,
        "random_weights": random_weights,
        "notes": list(notes),
    }


def license_of(*folders: Path) -> str | None:
    """The licence in the head of the first model card (README.md) that names one."""
    for folder in folders:
        card = folder / "README.md"
        if not card.is_file():
            continue
        text = read_bytes(card).decode("utf-8", errors="replace")
        head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") >= 2 else ""
        match = LICENSE.search(head)
        if match:
            return match[1]
    return None


def image_range(role: str) -> dict[str, Any]:
    """`low` and `high` of a tensor of this role: images are in [-1, 1]."""
    return {"low": -1.0, "high": 1.0} if role == "image" else {}


def batched(*sizes: int) -> tuple[Dim, ...]:
    """The shape ("batch_size", *sizes)."""
    return ("batch_size", *sizes)
