"""What an ONNX file says beside its graph: edgegen's fields and names of axes, nothing of the machine that wrote it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

NAMESPACE = "edgegen."
BATCH_AXIS = "batch_size"
AXES = {0: BATCH_AXIS, 2: "height", 3: "width"}  # of the first input


def clean(model: Any) -> None:
    """Drop torch's notes on its own run, such as source paths, and name the symbolic axes."""
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    for part in [model, graph, *graph.node, *graph.initializer, *values]:
        del part.metadata_props[:]
        part.ClearField("doc_string")
    first = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    for axis, name in AXES.items():
        for dim in _symbolic(values) if first[axis : axis + 1] not in ([], [""]) else ():
            dim.dim_param = re.sub(rf"\b{re.escape(first[axis])}\b", name, dim.dim_param)


def _symbolic(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from (dim for dim in value.type.tensor_type.shape.dim if dim.dim_param)


def stamp(model: Any, metadata: Mapping[str, str]) -> None:
    model.producer_name = "edgegen"
    model.producer_version = version("edgegen")
    for key in sorted(metadata):
        model.metadata_props.add(key=NAMESPACE + key, value=metadata[key])
