"""Evaluates saved Core ML packages on any machine: the program in the file, op by op, in torch.

Core ML runs on Apple's systems only. This walks the ML Program of the package (weights decompressed as the file says)
and so proves the conversion and the compression. It does not prove a device's arithmetic: Core ML's units add up in an
order and a precision of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgegen.errors import ExportError, NoRuntimeError
from edgegen.exporters.base import Arrays, one_by_one
from edgegen.exporters.coreml.evaluator import indexing, layers, ops, scatter
from edgegen.exporters.coreml.evaluator.ops import Op
from edgegen.formats import mlpackage

OPS: Mapping[str, Op] = {**ops.OPS, **indexing.OPS, **layers.OPS, **scatter.OPS}
FUNCTION = "main"  # the only function of a program that edgegen writes
NARROW = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "uint16": torch.uint16}


@dataclass(frozen=True, eq=False)
class Slot:
    """A value of the program as declared: `kind` is MIL's name of its type; a size left open is None."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def fits(self, shape: tuple[int, ...]) -> bool:
        pairs = zip(shape, self.shape, strict=False)
        return len(shape) == len(self.shape) and all(size in (None, actual) for actual, size in pairs)

    def settle(self, value: Any, *, rounded: bool) -> Tensor | str:
        """`value` as declared: float32 (rounded to fp16), int32 (wrapped to narrower types), bool or str."""
        if isinstance(value, str):
            return value
        if not isinstance(value, Tensor):
            array = np.array(value)
            # torch has next to no arithmetic on unsigned integers.
            value = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "ui" else array)
        tensor: Tensor = value
        if self.kind == "fp16" and rounded:
            return tensor.half().float()
        if self.kind in ("fp16", "fp32"):
            return tensor.float()
        return tensor.bool() if self.kind == "bool" else tensor.to(NARROW.get(self.kind, torch.int32)).int()


Value = Tensor | str
Operand = Slot | tuple[Slot, ...]


@dataclass(frozen=True)
class Operation:
    """One op of the program; `last_use` are the values that no later step reads."""

    kind: str
    name: str
    inputs: Mapping[str, Operand]
    outputs: tuple[Slot, ...]
    last_use: tuple[Slot, ...]

    def __call__(self, values: Mapping[Slot, Value]) -> tuple[Tensor, ...]:
        arguments = {
            name: [values[slot] for slot in source] if isinstance(source, tuple) else values[source]
            for name, source in self.inputs.items()
        }
        try:
            result = OPS[self.kind](**arguments)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as e:
            raise NoRuntimeError(f"Core ML op {self.kind} '{self.name}' cannot be evaluated: {e}") from e
        return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True)
class MilProgram:
    """The function `main` of a package, free of the vendor's objects; `constants` are the stored values, decompressed.

    `images` are the outputs that Core ML hands to an app as pixel buffers.
    """

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    constants: Mapping[Slot, Any]
    steps: tuple[Operation, ...]
    images: frozenset[str] = frozenset()


class MilEvaluator:
    """An opened package: named arrays of any batch in, named arrays out; the head of this file says what that proves.

    `rounded` rounds every result that the program declares fp16 to fp16, as a device that stores fp16 does; otherwise
    everything is computed in float32, which leaves the error of the conversion and of the stored weights.
    """

    def __init__(self, path: Path, *, rounded: bool = True) -> None:
        """Raises ExportError for a package that cannot be read or holds ops that are not in OPS."""
        self.rounded = rounded
        self.program = load(path)
        self.constants = {slot: self._settle(slot, value) for slot, value in self.program.constants.items()}

    @property
    def method(self) -> str:
        """The name of the evaluator, and what it does not check."""
        results = [slot for step in self.program.steps for slot in step.outputs]
        how = "fp16-rounded" if self.rounded and any(slot.kind == "fp16" for slot in results) else "computed in float32"
        return f"edgegen MIL evaluator ({how}), not a Neural Engine"

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every input is (batch, ...); a program of static batch 1 runs once per sample.

        Raises ExportError for a name or shape that the program does not have, and where an op fails.
        """
        names = sorted(slot.name for slot in self.program.inputs)
        if sorted(inputs) != names:
            raise ExportError(f"the Core ML program takes {', '.join(names)}; given: {', '.join(sorted(inputs))}")
        with torch.inference_mode():
            return one_by_one(inputs, self.run)

    def _settle(self, slot: Slot, value: Any) -> Value:
        return slot.settle(value, rounded=self.rounded)

    def run(self, inputs: Arrays) -> Arrays:
        """The program once, on arrays of exactly the shapes it declares."""
        values: dict[Slot, Value] = dict(self.constants)
        for slot in self.program.inputs:
            array = inputs[slot.name]
            if not slot.fits(array.shape):
                raise ExportError(f"input '{slot.name}' is {array.shape}; the Core ML program takes {slot.shape}")
            values[slot] = self._settle(slot, array)
        for step in self.program.steps:
            for slot, result in zip(step.outputs, step(values), strict=True):
                if not slot.fits(tuple(result.shape)):
                    raise NoRuntimeError(
                        f"Core ML op {step.kind} '{step.name}' gave {tuple(result.shape)}, the program declares "
                        f"{slot.shape}: a fault of edgegen's evaluator"
                    )
                values[slot] = self._settle(slot, result)
            for slot in step.last_use:
                del values[slot]
        outputs = {slot.name: values[slot] for slot in self.program.outputs}
        return {name: self._as_pixels(name, value) for name, value in outputs.items() if isinstance(value, Tensor)}

    def _as_pixels(self, name: str, value: Tensor) -> NDArray[Any]:
        """An image as the other runtimes give it, uint8 (1, height, width, channels); anything else as it is."""
        if name in self.program.images:
            value = value.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        array: NDArray[Any] = value.numpy()
        return array


def load(path: Path) -> MilProgram:
    """Read the package `path`. Raises ExportError as MilEvaluator does."""
    package = mlpackage.read(path)
    try:
        with mlpackage.silent():
            from coremltools.converters.mil.frontend.milproto.load import load as load_spec

            version = package.spec.specificationVersion
            program = load_spec(package.spec, version, file_weights_dir=str(package.weights))
            function = program.functions[FUNCTION]
            operations = list(function.operations)
            slots = _slots([*function.inputs.values(), *(var for op in operations for var in op.outputs)])
            constants = {slots[op.outputs[0]]: _stored(op) for op in operations if _is_constant(op)}
    except Exception as e:
        raise mlpackage.unreadable(path, e) from e
    computed = [op for op in operations if not _is_constant(op)]
    _check_known(computed, path)
    outputs = tuple(slots[var] for var in function.outputs)
    described = package.spec.description.output
    images = frozenset(entry.name for entry in described if entry.type.WhichOneof("Type") == "imageType")
    steps = _plan(computed, slots, keep={*constants, *outputs})
    return MilProgram(tuple(slots[var] for var in function.inputs.values()), outputs, constants, steps, images)


def _slots(variables: list[Any]) -> dict[Any, Slot]:
    """The vendor's variables (one object a value) and ours."""
    from coremltools.converters.mil.mil.types import builtin_to_string

    def sizes(var: Any) -> tuple[int | None, ...]:
        return tuple(int(size) if isinstance(size, (int, np.integer)) else None for size in var.shape)

    return {var: Slot(var.name, str(builtin_to_string(var.dtype)), sizes(var)) for var in variables}


def _is_constant(operation: Any) -> bool:
    return str(operation.op_type).startswith("const")


def _stored(operation: Any) -> Any:
    return operation.outputs[0].val if operation.op_type == "const" else operation.materialized_val_inference()


def _check_known(operations: list[Any], path: Path) -> None:
    unknown = {op.op_type: op.name for op in reversed(operations) if op.op_type not in OPS}
    if unknown:
        kind, name = unknown.popitem()  # the last one put in comes first in the program
        others = f" nor {len(unknown)} other op types in it ({', '.join(sorted(unknown))})" if unknown else ""
        raise NoRuntimeError(
            f"edgegen's evaluator of Core ML programs does not know the op {kind} ('{name}' in {path.name}){others}; "
            "Core ML itself may: check this package on a Mac"
        )


def _plan(operations: list[Any], slots: Mapping[Any, Slot], *, keep: set[Slot]) -> tuple[Operation, ...]:
    """The steps in order, each with the values to free after it: a big generator's would not all fit."""
    steps: list[Operation] = []
    needed = set(keep)
    for op in reversed(operations):
        inputs: dict[str, Operand] = {
            name: tuple(slots[var] for var in value) if isinstance(value, (list, tuple)) else slots[value]
            for name, value in op.inputs.items()
            if value is not None
        }
        outputs = tuple(slots[var] for var in op.outputs)
        read = [slot for source in inputs.values() for slot in (source if isinstance(source, tuple) else (source,))]
        last_use = tuple(dict.fromkeys(slot for slot in (*read, *outputs) if slot not in needed))
        needed.update(last_use)
        steps.append(Operation(op.op_type, op.name, inputs, outputs, last_use))
    return tuple(reversed(steps))
