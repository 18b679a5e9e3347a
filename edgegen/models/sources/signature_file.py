"""The signature of a user's own network: a small TOML file with its inputs, its output and, if any, its fixed time."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from edgegen.errors import DataError
from edgegen.program.inputs import example_inputs
from edgegen.support.tables import Table, fault
from edgegen.types import Role, Signature, TensorSpec

EXAMPLES = 2  # samples of the trial run: a network that confuses the batch with another axis fails on two
UNION = ("constrained-int", "literal['batch_size']")  # the members of Size, as pydantic calls them
Size = Annotated[int, Field(ge=1)] | Literal["batch_size"]


class TensorTable(Table):
    """One [[inputs]] or [[outputs]] table."""

    name: str = Field("out_sample", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    shape: tuple[Size, ...] = Field(min_length=1)
    dtype: Literal["float32", "int64", "int32"] = "float32"
    role: Role
    low: float | None = None
    high: float | None = None
    margin: Annotated[int, Field(ge=0)] = 0  # of an output
    samples: Annotated[str, Field(min_length=1)] | None = None  # of an input: real ones, relative to the file

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "batch_size" in self.shape[1:]:
            raise ValueError('"batch_size" can only be the first axis of a shape')
        if self.role == "class":
            if self.high is None or self.high < 0 or self.high != int(self.high) or self.low not in (None, 0):
                raise ValueError(
                    "a class needs high, the number of the last class (low is 0): high = 9 for ten classes"
                )
            if len(self.shape) != 1 or not self.dtype.startswith("int"):
                raise ValueError('a class has shape = ["batch_size"] and dtype = "int64" or "int32"')
        if self.samples is not None and self.role in ("noise", "class"):
            raise ValueError(f"samples: {self.role} is drawn; samples are for images, features, latents, text")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        return self

    def spec(self) -> TensorSpec:
        low = 0.0 if self.role == "class" else self.low
        return TensorSpec(self.name, tuple(self.shape), self.dtype, self.role, low, self.high, self.margin)


class SignatureFile(Table):
    """The whole file. `time` goes to the parameter `time_argument` of the net's forward as a (batch,) float tensor."""

    weights: str | None = None
    time: float | None = None
    time_argument: str | None = None
    inputs: tuple[TensorTable, ...] = Field(min_length=1)
    outputs: tuple[TensorTable, ...] = Field(min_length=1, max_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.time is None) != (self.time_argument is None):
            raise ValueError('time and time_argument belong together: time = 1.0 and time_argument = "t"')
        names = [table.name for table in self.inputs]
        if len(set(names)) != len(names):
            raise ValueError(f"two inputs have the same name: {', '.join(names)}")
        if self.outputs[0].name in names:
            raise ValueError(
                f"an input and the output have the same name, {self.outputs[0].name}; files tell tensors apart by "
                "their names, so give the output another one"
            )
        if sum(table.role == "class" for table in self.inputs) > 1:
            raise ValueError("two inputs are classes; one can be, give the other the role features")
        for table in self.inputs:
            if table.dtype.startswith("int") and table.role != "class" and None in (table.low, table.high):
                raise ValueError(
                    f"{table.name}: whole numbers need low and high, from which those of trials are drawn: 0 and 1 for "
                    "a mask, 0 and the last token for a text's"
                )
        if any(table.margin for table in self.inputs):
            raise ValueError("margin is of the output: the pixels that it lacks beside a multiple of the input's")
        if self.outputs[0].samples is not None:
            raise ValueError("samples are given for an input, not for the output")
        batches = {table.shape[0] for table in (*self.inputs, *self.outputs)}
        if len(batches) > 1:
            raise ValueError(f"the first axes differ: {', '.join(sorted(map(str, batches)))}; all are the batch")
        return self

    def signature(self) -> Signature:
        inputs = tuple(table.spec() for table in self.inputs)
        classes = next((int(spec.high or 0) + 1 for spec in inputs if spec.role == "class"), 0)
        return Signature(inputs, (self.outputs[0].spec(),), classes)


def read_signature(path: Path) -> SignatureFile:
    """Reads a signature file. Raises DataError that names the key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return SignatureFile.model_validate(values)
    except FileNotFoundError as e:
        raise DataError(f"no signature file {path}") from e
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise DataError(f"{path}: not a TOML file: {e}") from e
    except ValidationError as e:
        raise DataError("\n".join(f"{path}: {_explain(error)}" for error in _independent(e.errors()))) from e


def try_out(module: nn.Module, signature: Signature, *, of: str) -> None:
    """Runs `module` once on inputs of the signature. Raises DataError where it refuses them or gives something else.

    `of` names the network in the message.
    """
    first = signature.inputs[0].shape[0]
    count = EXAMPLES if first == "batch_size" else int(first)
    arrays = example_inputs(signature, count, 0)
    inputs = [torch.from_numpy(arrays[spec.name]) for spec in signature.inputs]
    described = ", ".join(f"{s.name} {tuple(x.shape)} {s.dtype}" for s, x in zip(signature.inputs, inputs, strict=True))
    try:
        with torch.no_grad():
            out = module(*inputs)
    except Exception as e:
        reason = " ".join(str(e).split())[:300]
        raise DataError(
            f"{of}: the network refuses the inputs of its signature ({described}): {type(e).__name__}: {reason}"
        ) from e
    expected = (count, *signature.outputs[0].shape[1:])
    if not isinstance(out, Tensor):
        raise DataError(f"{of}: the network gives {_describe(out)} for {described}; it must give one tensor {expected}")
    if tuple(out.shape) != expected:
        raise DataError(
            f"{of}: the network gives {tuple(out.shape)} for {described}; its signature says "
            f"{signature.outputs[0].name} {expected}"
        )
    if str(out.dtype) != f"torch.{signature.outputs[0].dtype}":
        raise DataError(f"{of}: the network gives {out.dtype}; its signature says {signature.outputs[0].dtype}")


def _describe(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")


def _independent(errors: list[Any]) -> list[Any]:
    """Without errors that follow from another one.

    These are a list that is too short because its one table is wrong, and, of a value that fits no member of a union,
    all but the first error.
    """
    lists_with_errors = {error["loc"][0] for error in errors if len(error["loc"]) > 1}
    first_of: dict[tuple[Any, ...], Any] = {}
    for error in errors:
        place = tuple(part for part in error["loc"] if part not in UNION)
        if error["type"] != "too_short" or error["loc"][0] not in lists_with_errors:
            first_of.setdefault(place, {**error, "loc": place})
    return list(first_of.values())


def _explain(error: Any) -> str:
    # Numbers of tables as TOML's reader counts them, from one.
    keys = [f"[{part + 1}]" if isinstance(part, int) else str(part) for part in error["loc"]]
    key = ".".join(keys).replace(".[", "[") or "the signature"
    return fault(error, key, lambda: (TensorTable if len(keys) > 1 else SignatureFile).model_fields)
