"""ATen ops that coremltools 9.0 converts wrongly, or not at all, replaced by other ATen ops before the conversion.

Its reader of torch.export programs drops keyword arguments (a GELU's approximate="tanh", an addition's alpha) and
knows some 500 of torch's ops. FIXES are for the first kind: each with what goes wrong without it. For the second kind
torch itself has decompositions. Found by comparing 200 functions with PyTorch: tests/exporters/coreml/test_fixes.py.
Masks get numbers that float16 holds.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram, default_decompositions
from torch.fx.node import map_aggregate

from edgegen.errors import ExportError

if TYPE_CHECKING:
    from edgegen.types import TensorSpec

Fix = Callable[..., Any]
aten = torch.ops.aten


def gelu(x: Tensor, approximate: str = "none") -> Any:
    """`approximate` is dropped: wrong by 4e-4. In this form (Hendrycks, Gimpel, arXiv:1606.08415, section 2)
    coremltools recognizes the approximation and writes its single op.
    """
    if approximate == "none":
        return NotImplemented
    return 0.5 * x * (torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))) + 1)


def reciprocal(x: Tensor) -> Any:
    """MIL's `inverse` adds 1e-4 to x, which coremltools does not take back."""
    return torch.true_divide(1.0, x)


def add(x: Tensor, other: Any, *, alpha: float = 1) -> Any:
    """`alpha` is dropped."""
    return NotImplemented if alpha == 1 else x + alpha * other


def sub(x: Tensor, other: Any, *, alpha: float = 1) -> Any:
    """`alpha` is dropped."""
    return NotImplemented if alpha == 1 else x - alpha * other


def rsub(x: Tensor, other: Any, alpha: float = 1) -> Any:
    """`alpha` is refused."""
    return NotImplemented if alpha == 1 else other - alpha * x


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    """`threshold` is ignored. At 20 of beta x it changes nothing that float32 holds, below it does."""
    return NotImplemented if threshold >= 20 else torch.where(beta * x > threshold, x, aten.softplus(x, beta, 20))


def rms_norm(x: Tensor, shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Any:
    """coremltools adds its epsilon elsewhere: not finite where a token is zero, 61 dB where a channel is large (its
    issue 2821). x rsqrt(mean(x^2) + eps) is y rsqrt(mean(y^2) + eps / m^2) for y = x / m, whose squares fit float16.
    """
    dims = list(range(-len(shape), 0))
    root = math.sqrt(torch.finfo(x.dtype).eps if eps is None else eps)
    largest = x.abs().amax(dims, keepdim=True).clamp(min=max(root, torch.finfo(torch.float16).tiny))
    y = x / largest
    out = y * torch.rsqrt(y.square().mean(dims, keepdim=True) + (root / largest).square())
    return out if weight is None else out * weight


def instance_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, use_input_stats: bool, *others: Any) -> Any:
    """The running statistics are ignored: each channel would be normed by its own."""
    if use_input_stats:
        return NotImplemented
    momentum, eps, cudnn = others
    return aten.batch_norm(x, weight, bias, mean, var, False, momentum, eps, cudnn)


def addmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """Integer `beta` and `alpha` are multiplied with floats, which coremltools' own check then refuses."""
    return NotImplemented if alpha == beta == 1 else float(beta) * bias + float(alpha) * torch.mm(x, y)


def baddbmm(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """As addmm. With beta 0 torch does not read `bias` at all: diffusers' plain attention gives it unset memory."""
    if alpha == beta == 1:
        return NotImplemented
    product = float(alpha) * torch.bmm(x, y)
    return product if beta == 0 else float(beta) * bias + product


def trunc(x: Tensor) -> Any:
    """MIL has no such op."""
    return torch.sign(x) * torch.floor(torch.abs(x))


def log_sigmoid(x: Tensor) -> Any:
    """Unknown, and torch's decomposition makes an empty tensor, which Core ML has not."""
    return -aten.softplus(-x)


def lerp(x: Tensor, end: Tensor, weight: Any) -> Any:
    """Unknown, and torch's decomposition tests the signs of the weight."""
    return x + weight * (end - x)


def fmod(x: Tensor, y: Any) -> Any:
    """MIL has no such op: its `mod` has the sign of the divisor."""
    return x - y * torch.sign(x / y) * torch.floor(torch.abs(x / y))


def max_pool(pool: Fix) -> Fix:
    """Without a stride, which is then the kernel, it is refused."""

    def fix(x: Tensor, kernel: Any, stride: Any = (), *others: Any) -> Any:
        return NotImplemented if stride else pool(x, kernel, kernel, *others)

    return fix


def pad(x: Tensor, amounts: list[int], mode: str = "constant", value: float | None = None) -> Any:
    """A circular padding and one that cuts off (negative) are refused."""
    cuts = any(amount < 0 for amount in amounts)
    if mode != "circular" and not cuts:
        return NotImplemented
    for place, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=1):
        size = x.shape[-place]
        if mode == "circular":
            x = torch.cat([x.narrow(-place, size - before, before), x, x.narrow(-place, 0, after)], -place)
        else:
            start = max(0, -before)
            x = x.narrow(-place, start, size - start - max(0, -after))
    return x if mode == "circular" else aten.constant_pad_nd(x, [max(0, amount) for amount in amounts], value or 0)


FIXES: dict[Any, Fix] = {
    aten.add.Tensor: add,
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
    aten.fmod.Scalar: fmod,
    aten.fmod.Tensor: fmod,
    aten.gelu.default: gelu,
    aten.instance_norm.default: instance_norm,
    aten.lerp.Scalar: lerp,
    aten.lerp.Tensor: lerp,
    aten.log_sigmoid.default: log_sigmoid,
    aten.max_pool1d.default: max_pool(aten.max_pool1d),
    aten.max_pool2d.default: max_pool(aten.max_pool2d),
    aten.max_pool3d.default: max_pool(aten.max_pool3d),
    aten.pad.default: pad,
    aten.reciprocal.default: reciprocal,
    aten.rms_norm.default: rms_norm,
    aten.rsub.Scalar: rsub,
    aten.rsub.Tensor: rsub,
    aten.softplus.default: softplus,
    aten.sub.Tensor: sub,
    aten.trunc.default: trunc,
}
# Registered with coremltools, but not as torch.export writes them: antialiasing is dropped, defaults are required.
MISREAD = ("_upsample_bilinear2d_aa", "cosine_similarity", "mse_loss")
FLOAT16_MAX = 65504.0
MASK = 3e4  # two of them, as a causal and a padding mask add up to, are finite in float16; exp(-3e4 + x) is 0 for any x
COPIES = (aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default, aten.detach.default)


def fixed(program: ExportedProgram, *, half: bool = False) -> ExportedProgram:
    """`program` in ops that coremltools reads correctly; `program` itself stays as it is, the weights are shared.

    `half`: it will compute in float16. Raises ExportError that names every op which neither coremltools nor a
    decomposition covers.
    """
    if any("grid_sampler" in str(node.target) and node.args[0].meta["val"].ndim == 5 for node in program.graph.nodes):
        raise ExportError(
            "Core ML resamples images, and no volumes: write the network without grid_sample of 5D, or take "
            "the runtime onnx with opset = 20"
        )
    changed: ExportedProgram = program.run_decompositions(FIXES)  # also: coremltools refuses torch's training dialect
    decompositions = default_decompositions()
    while missing := {op for op in _ops(changed) if not _readable(op) and op in decompositions}:
        changed = changed.run_decompositions({**FIXES, **{op: decompositions[op] for op in missing}})
    _drop_copies(changed)
    _separate_outputs(changed)
    if half:
        _fit_float16(changed)
    unsupported = sorted({str(op) for op in _ops(changed) if not _readable(op)})
    if unsupported:
        raise ExportError(
            f"coremltools cannot convert {', '.join(unsupported)}; write the network without "
            f"{'it' if len(unsupported) == 1 else 'them'}, or try another runtime"
        )
    return changed


def to_pixels(program: ExportedProgram, image: "TensorSpec") -> None:
    """Append to `program`, in place: the output image in [low, high] of `image` as whole numbers 0 to 255, still NCHW.

    Rounded to the nearest, as edgegen.program.one_step.ToPixels does, so that it does not matter how a device rounds.
    """
    graph = program.graph
    (result,) = graph.find_nodes(op="output")
    (output,) = result.args[0]
    low, high = image.image_range
    steps: tuple[tuple[Any, Any], ...] = (
        (aten.mul.Tensor, (255 / (high - low),)),
        (aten.add.Tensor, (0.5 - 255 * low / (high - low),)),
        (aten.clamp.default, (0.0, 255.0)),
        (aten.floor.default, ()),
    )
    value = output
    with graph.inserting_before(result):
        for op, arguments in steps:
            value = graph.call_function(op, (value, *arguments))
            value.meta["val"] = output.meta["val"]
    result.args = ((value,),)
    program.graph_signature.replace_all_uses(output.name, value.name)


def _ops(program: ExportedProgram) -> set[Any]:
    return {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}


def _drop_copies(program: ExportedProgram) -> None:
    """Ops that give their input again: coremltools does not know `alias`."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.target in COPIES and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _separate_outputs(program: ExportedProgram) -> None:
    """Times one, in place, where an output is an input: Core ML has no tensor of two names."""
    graph = program.graph
    (result,) = graph.find_nodes(op="output")
    outputs = list(result.args[0])
    for position, (output, spec) in enumerate(zip(outputs, program.graph_signature.output_specs, strict=True)):
        if output.op == "placeholder":
            with graph.inserting_before(result):
                outputs[position] = graph.call_function(aten.mul.Tensor, (output, 1.0))
            outputs[position].meta["val"] = output.meta["val"]
            spec.arg.name = outputs[position].name
    result.args = (tuple(outputs),)


def _fit_float16(program: ExportedProgram) -> None:
    """Cuts constants that float16 does not hold to +-MASK, in place: a mask's finfo.min is infinite there, and 0 times
    it no number. Infinity itself stays: it is meant.
    """

    def fit(value: Any) -> Any:
        too_large = isinstance(value, float) and FLOAT16_MAX < abs(value) < math.inf
        return math.copysign(MASK, value) if too_large else value

    for node in program.graph.nodes:
        if node.op == "call_function":
            node.args, node.kwargs = map_aggregate(node.args, fit), map_aggregate(node.kwargs, fit)
    program._constants = dict(program.constants)  # the one of the program before is the same object
    for constants in (program.state_dict, program.constants):
        for name, value in list(constants.items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                too_large = (value.abs() > FLOAT16_MAX) & value.isfinite()
                if too_large.any():
                    constants[name] = torch.where(too_large, MASK * value.sign(), value)


def _readable(op: Any) -> bool:
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY
    from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind

    name = op.name().removeprefix("aten::").split(".")[0]
    return name not in MISREAD and sanitize_op_kind(op.name()) in _TORCH_OPS_REGISTRY
