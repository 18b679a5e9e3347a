"""What coremltools misreads: after the fixes a package computes what PyTorch computes, without them it does not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgegen.errors import ExportError
from edgegen.exporters.coreml.evaluator.program import MilEvaluator
from edgegen.formats import mlpackage

pytest.importorskip("coremltools")

from edgegen.exporters.coreml import fixes
from edgegen.exporters.coreml.fixes import FIXES

Function = Callable[[Tensor], Tensor]
TABLE = torch.linspace(0.5, 2, 16).reshape(4, 4)
ROW, MATRIX = torch.arange(8.0) / 4, torch.linspace(-1, 1, 40).reshape(8, 5)

# Converted without a word, to other numbers.
WRONG: dict[str, Function] = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.01),
    "add": lambda x: torch.add(x, x * x, alpha=2),
    "sub": lambda x: torch.sub(x, x * x, alpha=2),
    "softplus": lambda x: F.softplus(x, beta=2, threshold=1),
    "instance_norm": lambda x: F.instance_norm(x, TABLE[0], TABLE[1], TABLE[2], TABLE[3], use_input_stats=False),
    "instance_norm_bare": lambda x: F.instance_norm(x, TABLE[0], TABLE[1], use_input_stats=False),
    "rms_norm_silent": lambda x: F.rms_norm(x * (x[..., :1] > 0), (8,), ROW, 1e-6),
}
# Refused by coremltools, one by one, though Core ML can do it.
REFUSED: dict[str, Function] = {
    "rsub": lambda x: torch.rsub(x, 2.0, alpha=3),
    "addmm": lambda x: torch.addmm(MATRIX[0], x[0, 0], MATRIX, beta=2, alpha=3),
    "baddbmm": lambda x: torch.baddbmm(x[0, :, :, :6], x[0], x[0].mT, beta=0, alpha=0.3),
    "baddbmm_added": lambda x: torch.baddbmm(x[0, :, :, :6], x[0], x[0].mT, beta=2, alpha=3),
    "trunc": lambda x: torch.trunc(3 * x),
    "fmod": lambda x: torch.fmod(x, 0.3),
    "log_sigmoid": F.logsigmoid,
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "rms_norm": lambda x: F.rms_norm(0.001 * x, (8,)),
    "rms_norm_weight": lambda x: F.rms_norm(0.001 * x, (8,), ROW),
    "rms_norm_epsilon": lambda x: F.rms_norm(x, (8,), eps=0.1),
    "pad_circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "pad_cut": lambda x: F.pad(x, (-1, 2, 0, -3), value=0.5),
    # by torch's own decompositions
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "celu": lambda x: F.celu(x, alpha=0.5),
    "exact": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest-exact"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
    "logaddexp": lambda x: torch.logaddexp(x, 2 * x),
    "cosine": lambda x: F.cosine_similarity(x, x * x, 1),
    "alias": lambda x: torch.ops.aten.alias(x) * 2,
    "and": lambda x: ((x > 0) & (x < 1)).float(),
}
# Right as they are: what a fix must leave alone.
RIGHT: dict[str, Function] = {
    "gelu_exact": F.gelu,
    "instance_norm_plain": F.instance_norm,
    "add_plain": lambda x: torch.add(x, x * x),
    "sub_plain": lambda x: torch.sub(x, 2.0),
    "rsub_plain": lambda x: torch.rsub(x, 2.0),
    "softplus_plain": lambda x: F.softplus(x, beta=2),
    "addmm_plain": lambda x: torch.addmm(MATRIX[0], x[0, 0], MATRIX),
    "baddbmm_plain": lambda x: torch.baddbmm(x[0, :, :, :6], x[0], x[0].mT),
    "max_pool_full": lambda x: F.max_pool2d(x, 3, 2, 1),
    "pad_constant": lambda x: F.pad(x, (1, 2), value=0.7),
    "pad_reflect": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "silu": F.silu,
    "sdpa_scale": lambda x: F.scaled_dot_product_attention(x, 2 * x, x, scale=0.3),
    "var": lambda x: x.var((2, 3), unbiased=False),
    "mish": F.mish,
    "normalize": lambda x: F.normalize(x, dim=1),
}


class Each(nn.Module):
    """Every function of a table on the same tensor."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions.values())


def export(functions: Mapping[str, Function]) -> tuple[ExportedProgram, Tensor]:
    x = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    with mlpackage.silent():
        return torch.export.export(Each(functions).eval(), (x,)), x


def fixed(program: ExportedProgram) -> ExportedProgram:
    with mlpackage.silent():
        return fixes.fixed(program)


def plain(program: ExportedProgram) -> ExportedProgram:
    with mlpackage.silent():
        return program.run_decompositions({})


def convert(program: ExportedProgram, path: Path, target: str = "iOS17", *, half: bool = False) -> list[Any]:
    """The results of the saved package on the program's own example, computed in float32 or float16."""
    ct = mlpackage.coremltools("this test")
    with mlpackage.silent(), np.errstate(over="ignore"):  # as the backend does
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
    mlpackage.write(model.get_spec(), Path(model.weights_dir), path)
    (x,), _ = program.example_inputs
    return list(MilEvaluator(path, rounded=half)({"x": x.numpy()}).values())


def far(got: Any, expected: Tensor) -> bool:
    return not np.allclose(got, expected.numpy(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("target", ["iOS17", "iOS26"])
def test_fixed_programs_compute_what_pytorch_computes(target: str, tmp_path: Path) -> None:
    functions = {**WRONG, **REFUSED, **RIGHT}
    program, x = export(functions)
    results = convert(fixed(program), tmp_path / "a.mlpackage", target)
    assert [name for (name, f), got in zip(functions.items(), results, strict=True) if far(got, f(x))] == []


def test_without_the_fixes_the_numbers_are_wrong(tmp_path: Path) -> None:
    """When this fails, coremltools reads the op rightly now: take its fix out."""
    program, x = export(WRONG)
    results = convert(plain(program), tmp_path / "a.mlpackage")
    assert [name for (name, f), got in zip(WRONG.items(), results, strict=True) if far(got, f(x))] == list(WRONG)


def test_an_rms_norm_of_large_and_silent_channels_fits_float16(tmp_path: Path) -> None:
    functions: dict[str, Function] = {
        "large": lambda x: F.rms_norm(x * torch.tensor([500.0, *[1.0] * 7]), (8,), ROW, 1e-5),
        "silent": lambda x: F.rms_norm(x * (x[..., :1] > 0), (8,), ROW, 1e-5),
    }
    program, x = export(functions)
    results = convert(fixed(program), tmp_path / "a.mlpackage", half=True)
    for function, got in zip(functions.values(), results, strict=True):
        np.testing.assert_allclose(got, function(x), atol=0.01)


LEAST = torch.finfo(torch.float32).min


class Masked(nn.Module):
    """Attention weights under masks of float32's least number, a constant and a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("causal", torch.full((8, 8), LEAST).triu(1))
        self.causal: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, hidden = x[0] @ x[0].mT / 4, (x[0, :, :1] > 0).float() * LEAST
        scores = torch.cat([scores, scores[..., :2]], 2)[:, :1]
        both = torch.maximum(self.causal[:1] + hidden, torch.tensor(LEAST))
        return (scores + both).softmax(-1), scores.masked_fill(scores > 1, LEAST).softmax(-1)


def test_a_mask_fits_float16(tmp_path: Path) -> None:
    x = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    net = Masked()
    with mlpackage.silent():
        program = torch.export.export(net, (x,))
        changed = fixes.fixed(program, half=True)
    results = convert(changed, tmp_path / "a.mlpackage", half=True)
    for expected, got in zip(net(x), results, strict=True):
        np.testing.assert_allclose(got, expected, atol=0.005)
    assert net.causal.min() == LEAST
    with mlpackage.silent():
        torch.testing.assert_close(program.module()(x), net(x))


def test_the_approximate_gelu_is_one_op_in_the_package(tmp_path: Path) -> None:
    program, _ = export({"gelu": WRONG["gelu"]})
    convert(fixed(program), tmp_path / "a.mlpackage")
    assert [step.kind for step in MilEvaluator(tmp_path / "a.mlpackage").program.steps] == ["gelu"]


def test_every_fix_is_tested() -> None:
    called = {
        node.target for table in (WRONG, REFUSED) for node in export(table)[0].graph.nodes if node.op == "call_function"
    }
    sisters = {"rsub.Tensor", "fmod.Tensor", "lerp.Tensor", "max_pool1d.default", "max_pool3d.default"}
    names = {str(op).removeprefix("aten.") for op in FIXES} - sisters
    assert names <= {str(op).removeprefix("aten.") for op in called}


def test_the_program_itself_stays() -> None:
    program, _ = export({"gelu": WRONG["gelu"]})
    before = str(program.graph)
    fixed(program)
    assert str(program.graph) == before


def test_ops_that_nobody_converts_are_named() -> None:
    program, _ = export({"a": lambda x: torch.hypot(x, x) + x.prod(1), "b": F.silu})
    with pytest.raises(
        ExportError, match=r"cannot convert aten.hypot.default, aten.prod.dim_int; write the network without them"
    ):
        fixed(program)
