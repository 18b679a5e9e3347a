"""Every tensor of a `.pte` in the contiguous layout that its signature promises, whatever strides PyTorch took.

PyTorch lets an operator pass on the strides of what it reads, and a transposed tensor of tokens that becomes a picture
is channels-last by them. ExecuTorch writes them down: the picture leaves the file in that layout, which an app reads
as (batch, channels, height, width), and its kernels refuse operands of different layouts ("dim orders").
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx


def contiguous_layout() -> Any:
    """A pass for `to_edge_transform_and_lower`; it leaves a program alone that is contiguous throughout.

    In an edge program, strides come from copies that name a layout and from constants, which
    edgegen.exporters.rewrites makes contiguous; all others follow from these.
    """
    from executorch.exir.pass_base import ExportPass, PassResult

    class ContiguousLayout(ExportPass):  # type: ignore[misc]
        def call(self, graph_module: "fx.GraphModule") -> Any:
            if _is_contiguous(graph_module):
                return PassResult(graph_module, False)
            return super().call(graph_module)

        def call_operator(self, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
            if kwargs.get("dim_order") is not None:
                kwargs = {**kwargs, "dim_order": list(range(len(kwargs["dim_order"])))}
            return super().call_operator(op, args, kwargs, meta)

    return ContiguousLayout()


def _is_contiguous(graph_module: "fx.GraphModule") -> bool:
    from torch import Tensor

    values = [node.meta.get("val") for node in graph_module.graph.nodes]
    return all(value.is_contiguous() for value in values if isinstance(value, Tensor))
