"""Traced operations joined with the blocks of the network: only where the names, or equal counts, leave no doubt."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgegen.profilers.trace.operators import OUTSIDE, Leaf

# What onnxruntime 1.32's optimizers add to a node's name: a fusion's name, a layout's, a number that makes it unique.
ADDED = re.compile(r"(?:/\w+Fusion/|/duplicated|_nchwc|_token_\d+)$")
# XNNPACK's nodes as ExecuTorch's schema calls them, and the operators in its profile; others are not joined.
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
MOST_BLOCKS = 12  # rows of a table that is easy to read


@dataclass(frozen=True)
class BlockTime:
    """All operations of one block: how many, and their ms in one inference; `block` None is not known."""

    block: str | None
    count: int
    ms: float


def join_onnx(rows: Sequence[Leaf], blocks: Mapping[str, str]) -> list[Leaf]:
    """`blocks` by the names of the file's nodes and values; what the runtime inserted has none."""
    return [replace(row, block=_onnx_block(row, blocks)) for row in rows]


def _onnx_block(leaf: Leaf, blocks: Mapping[str, str]) -> str | None:
    name = leaf.name
    while name not in blocks:
        shorter = ADDED.sub("", name)
        if shorter in (name, leaf.kind):  # "Transpose_token_4" is the runtime's own
            return None
        name = shorter
    return blocks[name]


def join_pte(rows: Sequence[Leaf], delegates: Sequence[Sequence[tuple[str, str | None]]]) -> list[Leaf]:
    """`delegates`: the nodes of each delegate's graph in order, as (kind, block).

    XNNPACK runs a graph's nodes in their order and may merge some; so those of a family are joined one by one where as
    many ran as the graph has, else none of them.
    """
    joined = list(rows)
    places = list(dict.fromkeys(row.place for row in rows if row.place != OUTSIDE))
    if len(places) != len(delegates):
        return joined
    for place, nodes in zip(places, delegates, strict=True):
        for family in set(FAMILIES.values()):
            ran = [index for index, row in enumerate(rows) if row.place == place and _family(row.kind) == family]
            written = [block for kind, block in _unmerged(nodes) if FAMILIES.get(kind) == family]
            if len(ran) == len(written):
                for index, block in zip(ran, written, strict=True):
                    joined[index] = replace(joined[index], block=block)
    return joined


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
    paths = [None if row.block is None else row.block.split(".") for row in rows]
    depth = 1
    while depth < max((len(path) for path in paths if path), default=1):
        if len({tuple(path[: depth + 1]) for path in paths if path}) > most:
            break
        depth += 1
    totals: dict[str | None, tuple[int, float]] = {}
    for row, path in zip(rows, paths, strict=True):
        block = None if path is None else ".".join(path[:depth])
        count, ms = totals.get(block, (0, 0.0))
        totals[block] = count + 1, ms + row.ms
    times = [BlockTime(block, count, ms) for block, (count, ms) in totals.items()]
    return sorted(times, key=lambda time: -time.ms)
