"""Writes into the metadata of a `.pte` which block of the network each operation belongs to.

ExecuTorch numbers the operations of a program (its debug handles), and XNNPACK's graphs in the file keep the numbers.
At the export the nodes have both number and block; edgegen/inspection/module_paths.py reads them from the file.
"""

import json
from typing import Any

KEY = "blocks"


def with_handles(described: str, edge: Any) -> str:
    """The metadata of a file (JSON), with the numbers of the operations in the delegates of `forward` by block."""
    return json.dumps({**json.loads(described), KEY: _handles(edge)}, sort_keys=True)


def _handles(edge: Any) -> dict[str, list[int]]:
    """A number that two blocks share is left out."""
    from edgegen.program.module_paths import block_of  # here, because it imports torch

    blocks_by_handle: dict[int, set[str]] = {}
    for module in edge.exported_program("forward").graph_module.modules():
        lowered = getattr(module, "original_module", None)
        for node in () if lowered is None else lowered.graph.nodes:
            block, handle = block_of(node), node.meta.get("debug_handle")
            if block is not None and isinstance(handle, int):
                blocks_by_handle.setdefault(handle, set()).add(block)
    by_block: dict[str, list[int]] = {}
    for handle, blocks in sorted(blocks_by_handle.items()):
        if len(blocks) == 1:
            by_block.setdefault(next(iter(blocks)), []).append(handle)
    return by_block
