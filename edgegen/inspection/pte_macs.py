"""Multiplications of a method of a `.pte` outside its delegates, and which of its values are constant."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgegen.inspection.record import Tally, product

# Product -> where its two factors stand among the arguments; they are counted outside the delegates.
FACTORS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2),
           "aten::linear": (0, 1), "aten::convolution": (0, 1)}  # fmt: skip


class ConstantTracker:
    """Tracks which values of a method are the same in every run: stored tensors, and what is computed from them alone.

    A view of a tensor has a number of its own and the same memory, which later results take over.
    """

    def __init__(self, values: Sequence[Mapping[str, Any]]) -> None:
        self.values = values
        self._places: set[tuple[int, ...]] = set()

    def constant(self, index: int) -> bool:
        value = self.values[index]
        if tensor_of(value) is None:  # numbers are constant, lists of tensors may be computed
            return "TensorList" not in value.get("val_type", "")
        return is_stored(value) or self._place(index) in self._places

    def record(self, result: int, *, constant: bool) -> None:
        """`result` is the last argument of an operator; a list there names the results of one that has several."""
        value = self.values[result]
        results = [result] if tensor_of(value) else (value.get("val") or {}).get("items") or []
        for index in results:
            (self._places.add if constant else self._places.discard)(self._place(index))

    def forget(self, arguments: Sequence[int]) -> None:
        """Which arguments a delegate only reads is unknown: no computed one counts as constant after it."""
        self._places.difference_update(self._place(index) for index in arguments)

    def shape(self, index: int) -> list[int]:
        return (tensor_of(self.values[index]) or {}).get("sizes") or []

    def _place(self, index: int) -> tuple[int, ...]:
        where = (tensor_of(self.values[index]) or {}).get("allocation_info") or {}
        return tuple(where.get(name, -1) for name in ("memory_id", "memory_offset_low", "memory_offset_high"))


def count_macs(name: str, arguments: Sequence[int], tracker: ConstantTracker, tally: Tally) -> None:
    """The multiplications of an operator outside the delegates; its last argument is the result."""
    result = arguments[-1]
    constant = all(tracker.constant(index) for index in arguments if index != result)
    tracker.record(result, constant=constant)  # where constant: a weight in another shape
    if constant or name not in FACTORS:
        return
    first, second = (arguments[position] for position in FACTORS[name])
    computed = not (tracker.constant(first) or tracker.constant(second))
    if name == "aten::convolution":
        transposed = (tracker.values[arguments[6]].get("val") or {}).get("bool_val", False)
        tally.add(
            name, product(tracker.shape(first if transposed else result), tracker.shape(second)[1:]), computed=computed
        )
    else:
        tally.add(name, product(tracker.shape(result), tracker.shape(first)[-1:]), computed=computed)


def tensor_of(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The tensor of a plan's value, None for a value of another type."""
    return value.get("val") if value.get("val_type") == "Tensor" else None


def is_stored(value: Mapping[str, Any]) -> bool:
    """Whether the file holds the numbers of a value."""
    tensor = tensor_of(value) or {}
    return bool(tensor.get("data_buffer_idx")) and not tensor.get("allocation_info")
