"""Which block of the network an operation of a `.pte` belongs to, written into its metadata at the export.

ExecuTorch numbers the operations of a program (its debug handles), and XNNPACK's graphs in the file keep the numbers.
Here they are still beside the nodes; edgegen/inspection/module_paths.py reads them again.
"""

import json
from typing import Any

KEY = "blocks"


def with_handles(described: str, edge: Any) -> str:
    """The metadata of a file (JSON), with the numbers of the operations in the delegates of `forward` by block."""
    return json.dumps({**json.loads(described), KEY: _handles(edge)}, sort_keys=True)


def _handles(edge: Any) -> dict[str, list[int]]:
    """A number that two blocks share is left out."""
    from edgegen.program.module_paths import block_of  # which imports torch: a plan does without

    found: dict[int, set[str]] = {}
    for module in edge.exported_program("forward").graph_module.modules():
        lowered = getattr(module, "original_module", None)
        for node in () if lowered is None else lowered.graph.nodes:
            block, handle = block_of(node), node.meta.get("debug_handle")
            if block is not None and isinstance(handle, int):
                found.setdefault(handle, set()).add(block)
    by_block: dict[str, list[int]] = {}
    for handle, blocks in sorted(found.items()):
        if len(blocks) == 1:
            by_block.setdefault(next(iter(blocks)), []).append(handle)
    return by_block
