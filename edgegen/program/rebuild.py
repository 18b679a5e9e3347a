"""The graph that is left of a partly evaluated program: the variable part, stored constants, a class table."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgegen.program.partial_eval import Kind, Partial

ATEN = torch.ops.aten
# Pointwise on every argument, so that a constant of batch 1 is broadcast against the batch.
BROADCASTING = (ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor, ATEN.where.self)
COPIES = (ATEN.alias.default, ATEN.clone.default, ATEN.detach.default, ATEN.dropout.default, ATEN.contiguous.default)
CASTS = (ATEN.to.dtype, ATEN._to_copy.default)
SCALINGS = (ATEN.mul.Tensor, ATEN.div.Tensor)
NOTHING_TO_DO = (ATEN._assert_tensor_metadata.default, ATEN.sym_constrain_range_for_size.default)


class Rebuilt:
    """A graph of the variable nodes alone; `table` is the shape of the class table, None where there is none."""

    def __init__(self, partial: Partial) -> None:
        self.partial, self.values = partial, partial.values
        self.graph = fx.Graph()
        self.stored: dict[str, fx.Node] = {}
        self.root: dict[str, Any] = {}
        self.new = {node: self.graph.placeholder(node.name) for node in partial.inputs}
        for old, placeholder in self.new.items():
            placeholder.meta["val"] = old.meta["val"]
        noise = self.new[partial.inputs[0]]
        self.batch = self.graph.call_function(ATEN.sym_size.int, (noise, 0)) if partial.dynamic else None
        self.table = self._add_table()

    def module(self) -> fx.GraphModule:
        for node in self.partial.module.graph.nodes:
            if node in self.new or (self.partial.kinds[node] != Kind.VARIABLE and node not in self.partial.left):
                continue
            if node.op == "output":
                self.graph.output(fx.map_arg(_single(node.args[0]), self._whole))
            elif _idle(node):
                self.new[node] = self._whole(node.args[0])
            elif node.target not in NOTHING_TO_DO:
                read = self._row if node.target in BROADCASTING else self._whole
                self.new[node] = self.graph.node_copy(node, read)
        self.graph.eliminate_dead_code()
        used = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        return fx.GraphModule({name: value for name, value in self.root.items() if name in used}, self.graph).eval()

    def _row(self, node: fx.Node) -> Any:
        """What a reader of `node` reads now; of a constant one sample, which broadcasts."""
        if node in self.new:
            return self.new[node]
        value = self.values[node]
        if not isinstance(value, Tensor):
            return self.batch if self.partial.is_batch_size(node) else value
        if node.op == "get_attr":
            return self._store(str(node.target), value)
        axis = self.partial.batch_axis(node)
        one = value if axis is None else value.narrow(axis, 0, 1)
        # Not clone() alone, which keeps a stride of 0 where the batch was expanded: ExecuTorch refuses those.
        return self._store(f"folded_{node.name}", one.clone(memory_format=torch.contiguous_format))

    def _whole(self, node: fx.Node) -> Any:
        """The same, of a constant as many samples as the batch has."""
        read = self._row(node)
        axis = None if node in self.new else self.partial.batch_axis(node)
        if axis is None:
            return read
        sizes = [self.batch if i == axis else size for i, size in enumerate(self.values[node].shape)]
        return self.graph.call_function(ATEN.expand.default, (read, sizes))

    def _store(self, name: str, value: Tensor) -> fx.Node:
        if name not in self.stored:
            self.root[name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
            with self.graph.inserting_after(next(reversed(self.stored.values()), self.new[self.partial.inputs[-1]])):
                self.stored[name] = self.graph.get_attr(name)
            self.stored[name].meta["val"] = self.root[name]
        return self.stored[name]

    def _add_table(self) -> tuple[int, int] | None:
        """One gather gives all that the class decides; each reader gets its columns of the row."""
        labels = self.partial.labels
        frontier = [] if labels is None else self.partial.frontier(Kind.CLASS)
        if labels is None or not frontier:
            return None
        rows = [self.values[node][: self.partial.signature.num_classes].flatten(1) for node in frontier]
        table = torch.cat(rows, dim=1)
        row = self.graph.call_function(ATEN.embedding.default, (self._store("class_table", table), self.new[labels]))
        start = 0
        for node, columns in zip(frontier, rows, strict=True):
            end = start + columns.shape[1]
            part = self.graph.call_function(ATEN.slice.Tensor, (row, 1, start, end)) if len(frontier) > 1 else row
            shape = [-1, *self.values[node].shape[1:]]
            self.new[node] = part if len(shape) == 2 else self.graph.call_function(ATEN.reshape.default, (part, shape))
            start = end
        return len(table), table.shape[1]


def _idle(node: fx.Node) -> bool:
    """Whether a call gives its first argument as it is: copies, casts to its own type, dropout, times one."""
    if node.target in (*COPIES, *CASTS):
        result, given = node.meta["val"], node.args[0].meta["val"]
        # A later view may need the layout that a copy makes.
        return result.dtype == given.dtype and result.stride() == given.stride()
    if node.target is ATEN.squeeze.dim:  # of an axis that is not 1: PyTorch leaves it, ONNX refuses it
        return node.args[0].meta["val"].shape[node.args[1]] != 1
    return node.target in SCALINGS and node.args[1] in (1, 1.0) and not isinstance(node.args[1], fx.Node)


def _single(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs
