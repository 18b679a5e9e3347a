"""Names the nodes of an ONNX file after the block of the network that they compute: "net.up.0.0.norm1/group_norm".

Tools that look at the file, and the trace of a runtime that runs it, show these names; the part before the last slash
is the module's path. A node of an unknown block keeps a name without a slash.
"""

import ast
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"  # torch.onnx: the modules around a node, and the node of the program itself


def name_nodes(exported: Any) -> None:
    """Renames the nodes of a torch.onnx program in place, by the notes in its exported program."""
    from edgegen.program.module_paths import block_of  # here, because it imports torch

    blocks = {node.name: block_of(node) for node in exported.exported_program.graph.nodes}
    for node in exported.model.graph:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
        block = blocks.get(scopes[-1]) if scopes else None
        if block is not None:
            node.name = f"{block}/{node.name.removeprefix('node_')}"
