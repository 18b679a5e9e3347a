"""Reads XNNPACK's graph of a delegate in a .pte: operations, multiplications and stored tensors."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgegen.inspection.record import Tally, Weight, product

DTYPES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "qint8": "int8",
    "quint8": "uint8",
    "qint32": "int32",
    "qcint8": "int8",
    "qcint32": "int32",
    "qcint4": "int4",
    "qbint4": "int4",
    "int32": "int32",
}
INLINE = "inside "  # begins the key of a tensor that lies in the payload itself
CONVOLUTIONS = {"XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d"}


@dataclass(frozen=True)
class Graph:
    """One decoded graph; `stored` are its tensors by the key (or place) of their bytes, which methods may share."""

    operations: Mapping[str, int]
    stored: Mapping[str, Weight]


def read(graph: Mapping[str, Any], place: str, tally: Tally, constant: Sequence[bool]) -> Graph:
    """`place` names this delegate where its bytes have no key of their own; multiplications go to `tally`.

    `constant` says of each argument of the delegate's call whether it is a weight.
    """
    values = {tensor["id_out"]: tensor for tensor in map(_tensor, graph["xvalues"])}
    constants = graph.get("constant_data") or []
    stored: dict[str, Weight] = {}
    operations: Counter[str] = Counter()
    constant_ids = {number for number, tensor in values.items() if _is_constant(tensor, constant)}
    for node in graph["xnodes"]:
        kind, fields = node["xnode_union_type"], node["xnode_union"]
        operations[kind] += 1
        if all(fields[name] in constant_ids for name in fields if _is_input(name) and fields[name] in values):
            constant_ids.add(fields["output_id"])
            continue
        _count(kind, fields, values, constant_ids, tally)
    for tensor in values.values():
        index = tensor["constant_buffer_idx"]
        if 0 < index < len(constants):
            stored.update(_weight(constants[index], tensor, place, len(stored)))
    used = {tensor["constant_buffer_idx"] for tensor in values.values()}
    for index, entry in enumerate(constants):
        if index and index not in used and entry["size"]:
            scales = Weight(f"{place} scales", "float32 scales", (entry["size"] // 4,), entry["size"])
            stored.setdefault(_key(entry, place), scales)
    return Graph(dict(operations.most_common()), stored)


def _tensor(value: Mapping[str, Any]) -> Mapping[str, Any]:
    union = value["xvalue_union"]
    tensor: Mapping[str, Any] = union.get("tensor_value", union)
    return {**tensor, "dims": tensor.get("dims") or []}


def _is_constant(tensor: Mapping[str, Any], arguments: Sequence[bool]) -> bool:
    external = tensor["external_id"]
    return bool(tensor["constant_buffer_idx"]) or (external < len(arguments) and arguments[external])


def _is_input(name: str) -> bool:
    return name.endswith("_id") and not name.startswith("output")


def _key(entry: Mapping[str, Any], place: str) -> str:
    return str(entry.get("named_key") or f"{INLINE}{place} at {entry['offset']}")


def _weight(entry: Mapping[str, Any], tensor: Mapping[str, Any], place: str, number: int) -> dict[str, Weight]:
    dtype = tensor["datatype"].removeprefix("xnn_datatype_")
    name = f"{place} constant {number}"
    return {_key(entry, place): Weight(name, DTYPES.get(dtype, dtype), tuple(tensor["dims"]), entry["size"])}


def _count(
    kind: str, fields: Mapping[str, Any], values: Mapping[int, Mapping[str, Any]], constant_ids: set[int], tally: Tally
) -> None:
    """`constant_ids` are the values that are weights, or made of weights alone."""

    def shape(name: str) -> list[int] | None:
        return values[fields[name]]["dims"] if fields[name] in values else None

    if kind in CONVOLUTIONS:
        kernel = [fields["kernel_height"], fields["kernel_width"]]
        if kind == "XNNConv2d":
            macs = product(shape("output_id"), kernel, [fields["group_input_channels"]])
        elif kind == "XNNDepthwiseConv2d":
            macs = product(shape("output_id"), kernel)
        else:
            macs = product(shape("input1_id"), kernel, [fields["group_output_channels"]])
        tally.add(kind, macs, computed=False)
    elif kind in ("XNNFullyConnected", "XNNBatchMatrixMultiply"):
        first = shape("input1_id")
        second = fields.get("filter_id", fields.get("input2_id"))
        computed = fields["input1_id"] not in constant_ids and second not in constant_ids
        tally.add(kind, product(shape("output_id"), first[-1:] if first else None), computed=computed)
    elif kind == "XNNScaledDotProductAttention":
        query, keys = shape("query_id"), shape("key_id")
        macs = 2 * math.prod(query) * keys[-2] if query and keys else None
        tally.add(kind, macs, computed=True)
