"""Traced operations joined with the blocks of the network: only where the names, or equal numbers, leave no doubt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgegen.profilers.trace.operators import OUTSIDE, Leaf

# What onnxruntime 1.32's optimizers add to a node's name: a fusion's name, a layout's, a number that makes it unique.
ADDED = re.compile(r"(?:/\w+Fusion/|/duplicated|_nchwc|_token_\d+)$")
# XNNPACK's nodes as ExecuTorch's schema calls them, and the operators that its profile tells; others are not joined.
# A 1x1 convolution may run as "Fully Connected".
LAYER, MEAN = "Convolution", "Mean"
FAMILIES: Mapping[str, str] = {
    "XNNConv2d": LAYER,
    "XNNDepthwiseConv2d": LAYER,
    "XNNFullyConnected": LAYER,
    "XNNBatchMatrixMultiply": "Batch Matrix Multiply",
    "XNNSoftmax": "Softmax",
    "XNNGlobalAvgPooling2d": MEAN,
    "XNNAdd": "Add",
    "XNNSubtract": "Subtract",
    "XNNMultiply": "Multiply",
    "XNNDiv": "Divide",
    "XNNSigmoid": "Sigmoid",
    "XNNTanh": "Tanh",
    "XNNReciprocalSquareRoot": "Reciprocal Square Root",
    "XNNConvert": "Convert",
    "XNNStaticTranspose": "Transpose",
    "XNNStaticSlice": "Slice",
}
SAME = {"Fully Connected": LAYER, "Mean Squared": MEAN}
MOST_BLOCKS = 12  # rows of a table that a reader takes in


@dataclass(frozen=True)
class BlockTime:
    """All operations of one block: how many, and their ms in one inference; `block` None is not known."""

    block: str | None
    count: int
    ms: float


def join_onnx(rows: Sequence[Leaf], blocks: Mapping[str, str]) -> list[Leaf]:
    """`blocks` by the names of the file's nodes and values; what the runtime put in itself has none."""
    return [replace(one, block=_onnx_block(one, blocks)) for one in rows]


def _onnx_block(one: Leaf, blocks: Mapping[str, str]) -> str | None:
    name = one.name
    while name not in blocks:
        shorter = ADDED.sub("", name)
        if shorter in (name, one.kind):  # "Transpose_token_4" is the runtime's own
            return None
        name = shorter
    return blocks[name]


def join_pte(rows: Sequence[Leaf], delegates: Sequence[Sequence[tuple[str, str | None]]]) -> list[Leaf]:
    """`delegates`: the nodes of each delegate's graph in order, as (kind, block).

    XNNPACK runs a graph's nodes in their order and may merge some; so those of a family are joined one by one where as
    many were run as the graph has, and none of them where not.
    """
    found = list(rows)
    places = list(dict.fromkeys(one.place for one in rows if one.place != OUTSIDE))
    if len(places) != len(delegates):
        return found
    for place, nodes in zip(places, delegates, strict=True):
        for family in set(FAMILIES.values()):
            ran = [index for index, one in enumerate(rows) if one.place == place and _family(one.kind) == family]
            written = [block for kind, block in _unmerged(nodes) if FAMILIES.get(kind) == family]
            if len(ran) == len(written):
                for index, block in zip(ran, written, strict=True):
                    found[index] = replace(found[index], block=block)
    return found


def _family(kind: str) -> str:
    """ "Convolution (NHWC, F32) IGEMM" is of "Convolution"."""
    own = kind.partition(" (")[0]
    return SAME.get(own, own)


def _unmerged(nodes: Sequence[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Without the squares right before a mean: XNNPACK computes both at once, as "Mean Squared"."""
    following = [kind for kind, _ in nodes[1:]] + [""]
    merged = ("XNNMultiply", "XNNGlobalAvgPooling2d")
    return [node for node, after in zip(nodes, following, strict=True) if (node[0], after) != merged]


def by_block(rows: Sequence[Leaf], *, most: int = MOST_BLOCKS) -> list[BlockTime]:
    """The operations summed by block, the slowest first; paths are cut to as many parts as give at most `most` rows."""
    paths = [None if one.block is None else one.block.split(".") for one in rows]
    depth = 1
    while depth < max((len(path) for path in paths if path), default=1):
        if len({tuple(path[: depth + 1]) for path in paths if path}) > most:
            break
        depth += 1
    totals: dict[str | None, tuple[int, float]] = {}
    for one, path in zip(rows, paths, strict=True):
        block = None if path is None else ".".join(path[:depth])
        count, ms = totals.get(block, (0, 0.0))
        totals[block] = count + 1, ms + one.ms
    found = [BlockTime(block, count, ms) for block, (count, ms) in totals.items()]
    return sorted(found, key=lambda one: -one.ms)
