"""The new graph of a partly evaluated program: its variable part, stored constants, a class table."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgegen.program.partial_eval import Kind, PartialEvaluation

ATEN = torch.ops.aten
# Pointwise on every argument, so that a constant of batch 1 is broadcast against the batch.
BROADCASTING = (ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor, ATEN.where.self)
COPIES = (ATEN.alias.default, ATEN.clone.default, ATEN.detach.default, ATEN.dropout.default, ATEN.contiguous.default)
CASTS = (ATEN.to.dtype, ATEN.to.dtype_layout, ATEN._to_copy.default)
SCALINGS = (ATEN.mul.Tensor, ATEN.div.Tensor)
NOTHING_TO_DO = (ATEN._assert_tensor_metadata.default, ATEN.sym_constrain_range_for_size.default)


class GraphRebuilder:
    """Makes a graph of the variable nodes alone; `table` is the shape of the class table, None where there is none."""

    def __init__(self, evaluation: PartialEvaluation) -> None:
        self.evaluation, self.values = evaluation, evaluation.values
        self.graph = fx.Graph()
        self.stored: dict[str, fx.Node] = {}
        self.root: dict[str, Any] = {}
        self.new = {node: self.graph.placeholder(node.name) for node in evaluation.inputs}
        for old, placeholder in self.new.items():
            placeholder.meta["val"] = old.meta["val"]
        noise = self.new[evaluation.inputs[0]]
        self.batch = self.graph.call_function(ATEN.sym_size.int, (noise, 0)) if evaluation.dynamic else None
        self.table = self._add_table()

    def module(self) -> fx.GraphModule:
        for node in self.evaluation.module.graph.nodes:
            if node in self.new or (
                self.evaluation.kinds[node] != Kind.VARIABLE and node not in self.evaluation.runtime_constants
            ):
                continue
            if node.op == "output":
                self.graph.output(fx.map_arg(_single(node.args[0]), self._whole_batch))
            elif _is_identity(node):
                self.new[node] = self._whole_batch(node.args[0])
            elif node.target not in NOTHING_TO_DO:
                read = self._one_sample if node.target in BROADCASTING else self._whole_batch
                self.new[node] = self.graph.node_copy(node, read)
        self.graph.eliminate_dead_code()
        used = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        return fx.GraphModule({name: value for name, value in self.root.items() if name in used}, self.graph).eval()

    def _one_sample(self, node: fx.Node) -> Any:
        """What replaces `node` for its readers; of a constant one sample, which broadcasts."""
        if node in self.new:
            return self.new[node]
        value = self.values[node]
        if not isinstance(value, Tensor):
            return self.batch if self.evaluation.is_batch_size(node) else value
        if node.op == "get_attr":
            return self._store(str(node.target), value)
        axis = self.evaluation.batch_axis(node)
        sample = value if axis is None else value.narrow(axis, 0, 1)
        # contiguous_format, because clone() alone keeps a stride of 0 of an expanded batch, which ExecuTorch refuses.
        return self._store(f"folded_{node.name}", sample.clone(memory_format=torch.contiguous_format))

    def _whole_batch(self, node: fx.Node) -> Any:
        """The same, with a constant expanded to the batch."""
        read = self._one_sample(node)
        axis = None if node in self.new else self.evaluation.batch_axis(node)
        if axis is None:
            return read
        sizes = [self.batch if i == axis else size for i, size in enumerate(self.values[node].shape)]
        expanded = self.graph.call_function(ATEN.expand.default, (read, sizes))
        expanded.meta["val"] = node.meta["val"]
        return expanded

    def _store(self, name: str, value: Tensor) -> fx.Node:
        if name not in self.stored:
            self.root[name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
            with self.graph.inserting_after(next(reversed(self.stored.values()), self.new[self.evaluation.inputs[-1]])):
                self.stored[name] = self.graph.get_attr(name)
            self.stored[name].meta["val"] = self.root[name]
        return self.stored[name]

    def _add_table(self) -> tuple[int, int] | None:
        """One gather reads all values that depend on the class; each reader gets its columns of the row."""
        labels = self.evaluation.labels
        frontier = [] if labels is None else self.evaluation.frontier(Kind.CLASS)
        if labels is None or not frontier:
            return None
        rows = [self.values[node][: self.evaluation.signature.num_classes].flatten(1) for node in frontier]
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


def _is_identity(node: fx.Node) -> bool:
    """Whether a call returns its first argument unchanged: copies, casts to its own type, dropout, times one."""
    if node.target in (*COPIES, *CASTS):
        result, argument = node.meta["val"], node.args[0].meta["val"]
        # A later view may need the layout that a copy makes.
        return result.dtype == argument.dtype and result.stride() == argument.stride()
    if node.target is ATEN.squeeze.dim:  # of an axis that is not 1: PyTorch ignores it, ONNX refuses it
        return node.args[0].meta["val"].shape[node.args[1]] != 1
    return node.target in SCALINGS and node.args[1] in (1, 1.0) and not isinstance(node.args[1], fx.Node)


def _single(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs
