"""Names the nodes of an ONNX file after the block of the network that they compute: "net.up.0.0.norm1/group_norm".

What has to stay float32 in a file of float16 has a name that ends in NAME_END, which quantize/onnx.py looks for.

Tools that look at the file, and the trace of a runtime that runs it, show these names; the part before the last slash
is the module's path. A node of an unknown block keeps a name without a slash.
"""

import ast
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"  # torch.onnx: the modules around a node, and the node of the program itself


def name_nodes(exported: Any) -> None:
    """Renames the nodes of a torch.onnx program in place, by the notes in its exported program."""
    from edgegen.program.float16_range import NAME_END, stays_float32  # here, because it imports torch
    from edgegen.program.module_paths import block_of

    nodes = {node.name: node for node in exported.exported_program.graph.nodes}
    blocks = {name: block_of(node) for name, node in nodes.items()}
    for node in exported.model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        block = blocks.get(scopes[-1]) if scopes else None
        if block is not None:
            node.name = f"{block}/{node.name.removeprefix('node_')}"
        if scopes and scopes[-1] in nodes and stays_float32(nodes[scopes[-1]]):
            node.name += NAME_END
