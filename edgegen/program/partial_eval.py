"""Partial evaluation of a captured program: which values are constants, which depend on the class alone.

    constant   computed from weights and the fixed time only           -> one value
    class      computed from those and `class_labels`                  -> one row of a table for each class
    variable   everything else

All values come from one evaluation on a batch of all classes. A constant must be equal in all samples: a value that
differs from sample to sample (an index of the batch) is variable.
"""

import operator
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, fx

from edgegen.types import Signature

SAME = 1e-6  # of the largest number
SMALL = 1024  # elements; a constant of repeated numbers is stored up to this size
ATEN = torch.ops.aten
# Operators that read the shape of their first argument, not its values.
SHAPE_ONLY = (
    ATEN.full_like.default,
    ATEN.ones_like.default,
    ATEN.zeros_like.default,
    ATEN.new_full.default,
    ATEN.new_ones.default,
    ATEN.new_zeros.default,
)
EXPANSIONS = (
    *SHAPE_ONLY,
    ATEN.expand.default,
    ATEN.repeat.default,
    ATEN.full.default,
    ATEN.ones.default,
    ATEN.zeros.default,
)


class Kind(IntEnum):
    CONSTANT = 0
    CLASS = 1
    VARIABLE = 2


class PartialEvaluation:
    """Of one program: the `kinds` of its nodes, the `values` of all that are not variable, and the class `labels`.

    `runtime_constants` are those that the runtime computes; `labels` is None where there is no class, or where a table
    would need more memory than the class branch.
    """

    def __init__(self, module: fx.GraphModule, signature: Signature, *, dynamic: bool) -> None:
        self.module, self.signature, self.dynamic = module, signature, dynamic
        self.inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
        shape = self.inputs[0].meta["val"].shape
        self.symbol = shape[0].node.expr if dynamic else None
        roles = [spec.role for spec in signature.inputs]
        self.labels = self.inputs[roles.index("class")] if "class" in roles and dynamic else None
        self.runtime_constants: set[fx.Node] = set()
        self.kinds = self._kinds()
        self.values = self._evaluate(batch=2)
        if self.labels is not None and not self._table_pays():
            self.labels = None
            self.kinds = self._kinds()
            self.values = self._evaluate(batch=2)
        if self.labels is not None:
            self.values = self._evaluate(batch=max(2, signature.num_classes))
        self.runtime_constants = self._find_runtime_constants()

    def _kinds(self) -> dict[fx.Node, Kind]:
        kinds: dict[fx.Node, Kind] = {}
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                kinds[node] = Kind.CLASS if node is self.labels else Kind.VARIABLE
            elif node.op == "get_attr" or self.is_batch_size(node):
                kinds[node] = Kind.CONSTANT
            elif node.op != "call_function" or not self._has_value(node):
                kinds[node] = Kind.VARIABLE
            else:
                reads = node.all_input_nodes[node.target in SHAPE_ONLY :]
                kinds[node] = max((kinds[n] for n in reads), default=Kind.CONSTANT)
        return kinds

    def is_batch_size(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        return isinstance(value, torch.SymInt) and value.node.expr == self.symbol

    def _has_value(self, node: fx.Node) -> bool:
        """Whether the node gives tensors and sizes, and no size depends on anything but the batch."""
        values = node.meta.get("val")
        values = values if isinstance(values, (list, tuple)) else [values]
        sizes = [size for v in values for size in (v.shape if isinstance(v, Tensor) else [v])]
        typed = all(isinstance(v, (Tensor, torch.SymInt)) for v in values)
        symbolic = [size for size in sizes if isinstance(size, torch.SymInt)]
        return typed and all(size.node.expr.free_symbols <= {self.symbol} for size in symbolic)

    def _is_storable(self, node: fx.Node) -> bool:
        """Whether one sample can be expanded to the batch: at most one axis is symbolic, and that is the batch."""
        value = node.meta.get("val")
        symbolic = [size for size in getattr(value, "shape", ()) if isinstance(size, torch.SymInt)]
        return isinstance(value, Tensor) and len(symbolic) <= 1 and all(s.node.expr == self.symbol for s in symbolic)

    def _evaluate(self, *, batch: int) -> dict[fx.Node, Any]:
        """The values of all constants and classes on `batch` samples, sample i of class i."""
        values: dict[fx.Node, Any] = {}
        batch = batch if self.dynamic else 1
        with torch.no_grad():
            for node in self.module.graph.nodes:
                if self.kinds[node] == Kind.VARIABLE:
                    continue
                if node is self.labels:
                    values[node] = torch.arange(batch) % self.signature.num_classes
                elif node.op == "get_attr":
                    values[node] = operator.attrgetter(node.target)(self.module)
                elif self.is_batch_size(node):
                    values[node] = batch
                else:
                    inputs = {n: values[n] if n in values else self._shape_of(n, batch) for n in node.all_input_nodes}
                    arguments, keywords = fx.map_arg((node.args, node.kwargs), inputs.__getitem__)
                    values[node] = node.target(*arguments, **keywords)
        for node, value in values.items():
            if self.kinds[node] == Kind.CONSTANT and not self._same_in_all_samples(node, value):
                self._make_variable(node)
        return {node: value for node, value in values.items() if self.kinds[node] != Kind.VARIABLE}

    def _shape_of(self, node: fx.Node, batch: int) -> Tensor:
        """A tensor of the shape of a variable, of which only the shape is read."""
        value = node.meta["val"]
        sizes = [batch if isinstance(size, torch.SymInt) else size for size in value.shape]
        return torch.zeros((), dtype=value.dtype).expand(sizes)

    def _same_in_all_samples(self, node: fx.Node, value: Any) -> bool:
        axis = self.batch_axis(node)
        if axis is None or not self._is_storable(node):
            return True
        first_sample = value.narrow(axis, 0, 1).expand_as(value)
        if not value.is_floating_point():
            return bool(torch.equal(first_sample, value))
        # With a tolerance: a matrix product may add up the last rows of a batch in another order than the first ones.
        return float((first_sample - value).abs().max()) <= SAME * float(value.abs().max())

    def _make_variable(self, node: fx.Node) -> None:
        if self.kinds[node] == Kind.VARIABLE:
            return
        self.kinds[node] = Kind.VARIABLE
        for user in node.users:
            self._make_variable(user)

    def batch_axis(self, node: fx.Node) -> int | None:
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, Tensor) else ()
        return next((axis for axis, size in enumerate(sizes) if isinstance(size, torch.SymInt)), None)

    def _find_runtime_constants(self) -> set[fx.Node]:
        """The constants that something variable reads and that are computed by the runtime, not stored.

        These are those that only repeat numbers, because a file must not grow by folding, and those whose shape is
        computed from the batch, such as (2 batch_size, 16), which cannot be expanded from one sample.
        """
        constants: set[fx.Node] = set()
        for node in reversed(self.module.graph.nodes):
            if self.kinds[node] == Kind.VARIABLE or node.op != "call_function" or self.is_batch_size(node):
                continue
            is_read = any(self.kinds[user] == Kind.VARIABLE or user in constants for user in node.users)
            value = node.meta.get("val")
            repeats = node.target in EXPANSIONS and isinstance(value, Tensor) and self.values[node].numel() > SMALL
            has_parts = isinstance(value, (list, tuple))  # its getitems are read
            if is_read and not has_parts and (repeats or not self._is_storable(node)):
                constants.add(node)
        return constants

    def frontier(self, kind: Kind) -> list[fx.Node]:
        """The nodes of `kind` that something variable reads."""
        return [
            node
            for node in self.module.graph.nodes
            if self.kinds[node] == kind
            and node.op == "call_function"
            and isinstance(node.meta.get("val"), Tensor)
            and node not in self.runtime_constants
            and any(self.kinds[user] == Kind.VARIABLE or user in self.runtime_constants for user in node.users)
        ]

    def _table_pays(self) -> bool:
        """Whether the table has fewer numbers than the weights that only the class branch reads."""
        frontier, values = self.frontier(Kind.CLASS), self.values
        storable = all(self.batch_axis(node) == 0 and self._is_storable(node) for node in frontier)
        if not storable or not all(values[node].is_floating_point() for node in frontier):
            return False
        table = sum(values[node][0].numel() for node in frontier) * self.signature.num_classes
        freed = sum(
            values[node].numel()
            for node in self.module.graph.nodes
            if node.op == "get_attr"
            and node in values
            and all(self.kinds[user] != Kind.VARIABLE for user in node.users)
        )
        return 0 < table <= freed
