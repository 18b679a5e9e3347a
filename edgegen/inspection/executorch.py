"""`inspect` for ExecuTorch: methods, delegates and what they left outside, with the reason and the rewrite for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen.errors import DataError, EdgegenError, ExportError
from edgegen.exporters.executorch.session import METADATA
from edgegen.formats.signature_values import signature_of
from edgegen.inspection import xnnpack
from edgegen.inspection.pte import DelegateKey, Pte, place_of, read_pte
from edgegen.inspection.pte_macs import ConstantTracker, count_macs, is_stored, tensor_of
from edgegen.inspection.record import (
    Inspection,
    Method,
    OutsideOperation,
    Partition,
    Tally,
    Value,
    Weight,
    bytes_by_kind,
    common_hints,
    product,
)
from edgegen.support.bounded_files import mapped, parse_json

XNNPACK = "XnnpackBackend"
DTYPES = {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16", "LONG": "int64", "INT": "int32", "SHORT": "int16",
          "CHAR": "int8", "BYTE": "uint8", "BOOL": "bool", "BFLOAT16": "bfloat16"}  # fmt: skip

SIZES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}

SAFE_SOFTMAX = ("part of scaled_dot_product_attention's softmax, safe against rows of -inf", "attention_bmm")
BORDER = ("a copy between layouts or dtypes at a delegate's border: it goes when its neighbours are taken", None)
# Operator -> why XNNPACK's partitioner leaves it outside (executorch 1.5.1), and edgegen's rewrite, if there is one.
REASONS: dict[str, tuple[str, str | None]] = {
    "aten::native_group_norm": ("XNNPACK has no GroupNorm", "group_norm_spatial"),
    "aten::native_layer_norm": ("XNNPACK has no LayerNorm", None),
    "aten::upsample_nearest2d": ("XNNPACK has no nearest upsampling, only bilinear", "upsample_conv or upsample_cat"),
    "aten::expand_copy": ("a broadcast written as a copy, as torch.matmul does: XNNPACK has none", "attention_bmm"),
    **dict.fromkeys(("aten::eq", "aten::full_like", "aten::logical_not", "aten::any", "aten::where"), SAFE_SOFTMAX),
    "aten::split_with_sizes_copy": ("XNNPACK takes slices, not splits", "split_slices"),
    "aten::select_copy": ("XNNPACK takes slices, not selections", None),
    "aten::embedding": ("a row of a table looked up by class, next to no work: XNNPACK has no look-up", None),
    "aten::_softmax": ("XNNPACK's softmax runs over the last axis only", None),
    "aten::mean": ("XNNPACK averages only over the last two of four axes, and keeps them", None),
    "aten::cat": ("XNNPACK joins two to five tensors at once", None),
    "aten::convolution": ("XNNPACK convolves images only: 4 axes, constant weights", None),
    "aten::clone": BORDER,
    "aten::_to_copy": BORDER,
    "dim_order_ops::_to_dim_order_copy": BORDER,
    "dim_order_ops::_clone_dim_order": BORDER,
    "quantized_decomposed::quantize_per_tensor": BORDER,
    "quantized_decomposed::dequantize_per_tensor": BORDER,
    "executorch_prim::et_view": ("the same memory in another shape: it costs nothing", None),
}
# Further operators of XNNPACK's partitioner; one that stayed outside has arguments or neighbours that it refuses.
SUPPORTED = (
    "abs add addmm avg_pool2d bmm ceil clamp constant_pad_nd cos div exp floor gelu hardtanh hardswish leaky_relu "
    "linear log max maximum max_pool2d minimum mm mul neg permute_copy pow prelu relu rsqrt sigmoid sin slice_copy "
    "sqrt sub tanh unsqueeze_copy upsample_bilinear2d view_copy"
)
NO_DELEGATE = "nothing was delegated: it runs on the portable kernels, which are slow; lower with a partitioner"


def inspect(path: Path) -> Inspection:
    """Raises ExportError for a file that is cut short or holds no ExecuTorch program."""
    content = mapped(path)
    try:
        pte = read_pte(content)
        stored: dict[str, Weight] = {}
        constants = _constants(pte)
        metadata = _metadata(constants)
        methods = tuple(_method(plan, pte, metadata, stored) for plan in pte.plans if plan["name"] not in constants)
        if not methods:
            raise ValueError("it has no method that computes")
        kinds = _bytes(pte, stored)
    except EdgegenError:
        raise
    except Exception as e:
        raise ExportError(f"cannot read {path.name} ({len(content)} bytes): {e}; is it cut short?") from e
    weights = tuple(stored.values())
    return Inspection(
        file=path.name,
        kind="ExecuTorch",
        nbytes=len(content),
        methods=methods,
        weights=weights,
        bytes_by_kind=kinds,
        metadata={key: value for key, value in metadata.items() if isinstance(value, str)},
        signature=signature_of(metadata.get("signature")),
        constants={name: value for name, value in constants.items() if name != METADATA},
        needs=_needs(methods),
        notes=tuple(f"what {backend} runs inside its delegate: not read" for backend in _opaque(pte)),
        hints=(*common_hints(methods, weights), *_hints(methods)),
    )


def metadata_of(pte: Pte) -> dict[str, Any]:
    """What edgegen wrote into the file; {} in another's."""
    return _metadata(_constants(pte))


def _constants(pte: Pte) -> dict[str, Any]:
    return {plan["name"]: _constant(plan) for plan in pte.plans if not plan["chains"][0]["instructions"]}


def _opaque(pte: Pte) -> list[str]:
    return sorted({backend for (backend, _), graph in pte.graphs.items() if graph is None})


def _constant(plan: Mapping[str, Any]) -> Any:
    """What a method without instructions gives: a number, a text or a list of them."""
    numbers = []
    for index in plan["outputs"]:
        value = plan["values"][index].get("val") or {}
        numbers.append(next((v for name, v in value.items() if name.endswith("_val") or name == "items"), None))
    return numbers[0] if len(numbers) == 1 else numbers


def _metadata(constants: Mapping[str, Any]) -> dict[str, Any]:
    try:
        described = parse_json(constants.get(METADATA) or "{}", where=METADATA)
    except (TypeError, DataError):
        return {}
    return described if isinstance(described, dict) else {}


def _method(plan: Mapping[str, Any], pte: Pte, metadata: Mapping[str, Any], stored: dict[str, Weight]) -> Method:
    """`stored` gathers the weights of all methods."""
    tally, partitions, outside = Tally(), [], Counter[str]()
    tracker = ConstantTracker(plan["values"])
    for instruction in (entry for chain in plan["chains"] for entry in chain["instructions"]):
        call = instruction.get("instr_args") or {}
        if instruction["instr_args_type"] == "DelegateCall":
            place = place_of(plan["delegates"][call["delegate_index"]])
            partitions.append(
                _partition(place, pte, tally, stored, [tracker.constant(index) for index in call["args"]])
            )
            tracker.forget(call["args"])
        elif instruction["instr_args_type"] == "KernelCall":
            operator = plan["operators"][call["op_index"]]
            outside[".".join(filter(None, (operator["name"], operator["overload"])))] += 1
            count_macs(operator["name"], call["args"], tracker, tally)
    _store(plan, stored)
    operations = Counter(outside)
    for part in partitions:
        operations.update(part.operations)
    names = metadata if plan["name"] == "forward" else {"inputs": metadata.get("inputs")}
    backends = {part.backend for part in partitions}
    return Method(
        name=plan["name"],
        inputs=_values(plan, "inputs", names.get("inputs")),
        outputs=_values(plan, "outputs", names.get("outputs")),
        operations=dict(operations.most_common()),
        macs=tally.macs(),
        partitions=tuple(partitions),
        outside=tuple(_outside(name, count, backends) for name, count in outside.most_common()),
    )


def _partition(
    place: DelegateKey, pte: Pte, tally: Tally, stored: dict[str, Weight], constant: Sequence[bool]
) -> Partition:
    """`constant` says of each argument of the call whether it is a weight."""
    backend, graph, nbytes = place[0], pte.graphs[place], len(pte.delegate(place))
    if graph is not None and backend == XNNPACK:
        contents = xnnpack.read(graph, f"{backend} {place[1]}", tally, constant)
        for key, weight in contents.stored.items():
            stored.setdefault(key, weight)
        return Partition(backend, contents.operations, nbytes)
    tally.add(f"{backend} delegate", None, computed=False)
    calls = Counter(str(call["name"]) for call in (graph or {}).get("chain") or [])
    return Partition(backend, dict(calls.most_common()), nbytes)


def _store(plan: Mapping[str, Any], stored: dict[str, Weight]) -> None:
    """The tensors that stay with the program, outside the delegates; methods share them by their number."""
    for value in plan["values"]:
        tensor = tensor_of(value)
        if tensor is None or not is_stored(value):
            continue
        about = tensor.get("extra_tensor_info") or {}
        if about.get("location") == "EXTERNAL":
            continue
        dtype, shape, number = _dtype(tensor), tuple(tensor.get("sizes") or ()), tensor["data_buffer_idx"]
        nbytes = (product(shape) or 0) * SIZES.get(dtype, 1)
        name = about.get("fully_qualified_name") or f"constant {number}"
        stored.setdefault(f"program {number}", Weight(name, dtype, shape, nbytes))


def _dtype(tensor: Mapping[str, Any]) -> str:
    return DTYPES.get(tensor["scalar_type"], str(tensor["scalar_type"]).lower())


def _values(plan: Mapping[str, Any], kind: str, names: Any) -> tuple[Value, ...]:
    valid_names = names if isinstance(names, list) and len(names) == len(plan[kind]) else None
    values = []
    for number, index in enumerate(plan[kind]):
        name = str(valid_names[number]) if valid_names else f"{kind.removesuffix('s')}_{number}"
        tensor = tensor_of(plan["values"][index])
        if tensor is None:
            values.append(Value(name, str(plan["values"][index].get("val_type", "?")).lower(), ()))
        else:
            values.append(Value(name, _dtype(tensor), tuple(tensor.get("sizes") or ())))
    return tuple(values)


def _outside(kernel: str, count: int, backends: set[str]) -> OutsideOperation:
    operator = kernel.partition(".")[0]
    if not backends:
        return OutsideOperation(kernel, count, NO_DELEGATE)
    if XNNPACK not in backends:
        return OutsideOperation(kernel, count, f"{', '.join(sorted(backends))} did not take it")
    if operator in REASONS:
        return OutsideOperation(kernel, count, *REASONS[operator])
    if operator.removeprefix("aten::") in SUPPORTED.split():
        return OutsideOperation(
            kernel, count, "XNNPACK can take it, but not with these arguments or between these neighbours"
        )
    return OutsideOperation(kernel, count, "XNNPACK has no kernel for it")


def _bytes(pte: Pte, stored: Mapping[str, Weight]) -> dict[str, int]:
    """Constants that lie inside a delegate's payload are weights, the rest of it is its graph."""
    inside = sum(weight.nbytes for key, weight in stored.items() if key.startswith(xnnpack.INLINE))
    graphs = sum(len(pte.delegate(place)) for place in pte.graphs if place[1] >= 0) - inside
    weights = tuple(stored.values())
    if not pte.base:  # everything lies inside the program
        graphs, program = 0, len(pte.content) - sum(weight.nbytes for weight in weights)
    else:
        program = pte.program_bytes
    total = len(pte.content) + pte.around
    return bytes_by_kind(total, weights, delegates=graphs, program=program, golden_inputs_and_outputs=pte.around)


def _needs(methods: Sequence[Method]) -> tuple[str, ...]:
    backends = sorted({part.backend for method in methods for part in method.partitions})
    kernels = sorted({entry.operation for method in methods for entry in method.outside})
    return (
        f"backends linked into the app: {', '.join(backends) or 'none'}",
        f"kernels linked into the app: {', '.join(kernels) or 'none'}",
    )


def _hints(methods: Sequence[Method]) -> list[str]:
    wins: Counter[str] = Counter()
    for method in methods:
        for entry in method.outside:
            if entry.rewrite:
                wins[entry.rewrite] += entry.count
    hints = [
        f"rewrite {name}: would take {count} of the nodes outside into the delegate"
        for name, count in wins.most_common()
    ]
    if any(not method.partitions for method in methods):
        hints.append(NO_DELEGATE)
    return hints
