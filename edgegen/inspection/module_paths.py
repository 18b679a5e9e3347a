"""Finds the block of the network that each operation of an exported file belongs to, from the file alone."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgegen.exporters.executorch.module_paths import KEY
from edgegen.inspection.executorch import metadata_of
from edgegen.inspection.pte import Pte, place_of, read_pte
from edgegen.support.bounded_files import mapped

ACTIVATIONS = {"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"}  # merged by ConvActivationFusion
Nodes = list[tuple[str, str | None]]  # of one delegate's graph, in order: the kind of a node and its block


def of_onnx(path: Path) -> dict[str, str]:
    """By the name of a node, and by the name of each of its outputs, its block.

    It is in names with slashes ("net.up.0/add", torch's older "/net/up/0/Add"); else the one module whose weight and
    bias the node reads. A convolution that onnxruntime merges with its activation gets the name of the latter's output,
    which therefore stands for the convolution. The weights themselves are not loaded.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    blocks = [_of_node(node, constants) for node in nodes]
    makers = {value: index for index, node in enumerate(nodes) for value in node.output}
    named = {node.name: block for node, block in zip(nodes, blocks, strict=True) if node.name}
    for value, index in makers.items():
        before = makers.get(nodes[index].input[0]) if nodes[index].op_type in ACTIVATIONS else None
        named[value] = blocks[before if before is not None and nodes[before].op_type == "Conv" else index]
    return {name: block for name, block in named.items() if block}


def _of_node(node: Any, constants: Collection[str]) -> str:
    block = str(node.name).rpartition("/")[0].strip("/").replace("/", ".")
    if block:
        return block
    stems = {name.rpartition(".")[::2] for name in node.input if name in constants}
    modules = {stem for stem, last in stems if last in ("weight", "bias")}
    return modules.pop() if len(modules) == 1 else ""


def of_pte(path: Path) -> list[Nodes]:
    """What each call of a delegate in `forward` computes, in the order of the calls.

    Other delegates than XNNPACK have no graph that can be read. Raises ValueError for a damaged file.
    """
    pte = read_pte(mapped(path))
    blocks = {handle: block for block, numbers in metadata_of(pte).get(KEY, {}).items() for handle in numbers}
    plan = next(plan for plan in pte.plans if plan["name"] == "forward")
    calls = [
        instruction["instr_args"]["delegate_index"]
        for chain in plan["chains"]
        for instruction in chain["instructions"] or []
        if instruction["instr_args_type"] == "DelegateCall"
    ]
    return [_nodes(pte, plan["delegates"][call], blocks) for call in calls]


def _nodes(pte: Pte, delegate: Mapping[str, Any], blocks: Mapping[int, str]) -> Nodes:
    graph = pte.graphs.get(place_of(delegate)) or {}
    return [(node["xnode_union_type"], blocks.get(node["debug_handle"])) for node in graph.get("xnodes", [])]
