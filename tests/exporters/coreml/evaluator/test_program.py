"""The evaluator of Core ML packages: fp16 rounding, stored weights, batches, and what it refuses. Its ops: mil/."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegen.errors import ExportError, MissingExtraError
from edgegen.exporters.coreml.backend import BACKEND
from edgegen.exporters.coreml.evaluator.program import MilEvaluator
from edgegen.formats import mlpackage
from edgegen.program.capture import capture, reference
from edgegen.recipe import Export
from edgegen.verification.parity import psnr_db

if TYPE_CHECKING:
    from tests.exporters.conftest import Tiny

pytest.importorskip("coremltools")
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


class Call(nn.Module):
    """A function of one tensor as a module, for torch.export."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def convert(function: Callable[[Tensor], Any], example: np.ndarray, path: Path, *, target: str = "iOS17") -> Path:
    ct = mlpackage.coremltools("this test")
    with mlpackage.silent():
        program = torch.export.export(Call(function), (torch.from_numpy(example),)).run_decompositions({})
        model = ct.convert(program, minimum_deployment_target=ct.target[target], skip_model_load=True)
    mlpackage.write(model.get_spec(), Path(model.weights_dir), path)
    return path


@pytest.fixture(scope="module")
def package(tiny: "Tiny", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class-conditional tiny generator in fp16."""
    path = tmp_path_factory.mktemp("mil") / "tiny.mlpackage"
    program = capture(tiny.module, tiny.signature, batch=1)
    options: dict[str, Any] = {"metadata": {}, "options": Export(), "variant": ""}
    BACKEND.lower(program, path, signature=tiny.signature, precision="fp16", **options)
    return path


def test_every_result_is_rounded_to_fp16_or_none(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    path = convert(lambda x: torch.exp(x * x) / 3.0, x, tmp_path / "net.mlpackage")
    half = x.astype(np.float16)
    half = (half.astype(np.float32) ** 2).astype(np.float16)
    half = np.exp(half.astype(np.float32)).astype(np.float16)
    half = (half.astype(np.float32) * np.float32(np.float16(1 / 3))).astype(np.float16)
    (rounded,) = MilEvaluator(path)({"x": x}).values()
    np.testing.assert_array_equal(rounded, half)
    exact = MilEvaluator(path, rounded=False)
    (computed,) = exact({"x": x}).values()
    np.testing.assert_allclose(computed, np.exp(x**2) * np.float32(np.float16(1 / 3)), rtol=1e-6)
    assert exact.method == "edgegen MIL evaluator (computed in float32), not a Neural Engine"


def test_fp16_overflow_is_seen(tmp_path: Path) -> None:
    x = np.full((1, 4), 300.0, np.float32)
    path = convert(lambda x: x * x, x, tmp_path / "net.mlpackage")
    assert all(np.isinf(a).all() for a in MilEvaluator(path)({"x": x}).values())
    assert all(np.isfinite(a).all() for a in MilEvaluator(path, rounded=False)({"x": x}).values())


def test_samples_do_not_see_each_other(tiny: "Tiny", package: Path) -> None:
    evaluator = MilEvaluator(package)
    together = evaluator(tiny.inputs)["out_sample"]
    assert (together.dtype, together.shape) == (np.float32, tiny.expected.shape)
    for i in (0, 5, 11):
        alone = evaluator({name: values[i : i + 1] for name, values in tiny.inputs.items()})["out_sample"]
        np.testing.assert_array_equal(together[i : i + 1], alone)


def test_every_result_is_forgotten_once_and_after_its_last_use(package: Path) -> None:
    program = MilEvaluator(package).program
    living = {*program.inputs, *program.constants}
    for step in program.steps:
        read = {
            slot for source in step.inputs.values() for slot in (source if isinstance(source, tuple) else (source,))
        }
        assert read <= living
        living |= set(step.outputs)
        assert set(step.last_use) <= living
        living -= set(step.last_use)
    assert living == {*program.constants, *program.outputs}


def compressions(ct: Any) -> dict[str, tuple[Callable[..., Any], Any]]:
    optimize = ct.optimize.coreml
    return {
        "lut_to_dense": (optimize.palettize_weights, optimize.OpPalettizerConfig(mode="uniform", nbits=6)),
        "affine_dequantize": (optimize.linear_quantize_weights, optimize.OpLinearQuantizerConfig(mode="linear")),
        "sparse_to_dense": (optimize.prune_weights, optimize.OpMagnitudePrunerConfig(target_sparsity=0.3)),
        "blockwise_shift_scale": (
            optimize.linear_quantize_weights,
            optimize.OpLinearQuantizerConfig(dtype="int4", granularity="per_block", block_size=32),
        ),
    }


@pytest.mark.parametrize("kind", ["lut_to_dense", "affine_dequantize", "sparse_to_dense", "blockwise_shift_scale"])
def test_compressed_weights(kind: str, tmp_path: Path) -> None:
    """The stored weights are those of the matrix that the same program applies to the identity."""
    ct = mlpackage.coremltools("this test")
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    target = "iOS18" if kind == "blockwise_shift_scale" else "iOS17"
    path = convert(
        lambda x: nn.functional.linear(x, weight), np.eye(64, dtype=np.float32), tmp_path / "a.mlpackage", target=target
    )
    function, settings = compressions(ct)[kind]
    with mlpackage.silent():
        model = ct.models.MLModel(str(path), skip_model_load=True)
        small = function(model, ct.optimize.coreml.OptimizationConfig(global_config=settings))
    mlpackage.write(small.get_spec(), Path(small.weights_dir), tmp_path / "b.mlpackage")
    assert f"constexpr_{kind}" in (tmp_path / "b.mlpackage" / MODEL).read_bytes().decode("latin1")
    (got,) = MilEvaluator(tmp_path / "b.mlpackage").run({"x": np.eye(64, dtype=np.float32)}).values()
    groups, step, levels = grid(kind, weight.half().float().numpy())
    kept = got.T.reshape(groups.shape)
    # Half a step, and what coremltools loses by finding the nearest one in fp16.
    assert (np.abs(kept - groups) <= 0.6 * step + 1e-3).all()
    assert max(len(np.unique(group)) for group in kept) <= levels


def grid(kind: str, weight: np.ndarray) -> tuple[np.ndarray, Any, int]:
    """The weight in the groups (groups, size) that share a scale, the distance of the values kept, and their number."""
    if kind == "lut_to_dense":  # 6 bits over all
        return weight.reshape(1, -1), np.ptp(weight) / 63, 64
    if kind == "affine_dequantize":  # 8 bits over [min, max] of each row
        return weight, np.ptp(weight, axis=1, keepdims=True) / 255, 256
    if kind == "sparse_to_dense":  # the smallest 30 % become zero, the rest stays
        small = np.abs(weight) < np.quantile(np.abs(weight), 0.3)
        return np.where(small, 0, weight), 0.0, 64
    blocks = weight.reshape(-1, 32)  # 4 bits over [-max, max] of each run of 32
    return blocks, np.abs(blocks).max(axis=1, keepdims=True) / 7, 16


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {
        "strided": nn.Conv2d(4, 6, 3, stride=2, padding=1),
        "depthwise": nn.Conv2d(4, 4, 3, padding="same", groups=4),
        "transposed": nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
        "longer": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        "group_norm": nn.GroupNorm(2, 4),
        "batch_norm": nn.BatchNorm2d(4),
        "instance_norm": nn.InstanceNorm2d(4, affine=True),
        "layer_norm": nn.LayerNorm([4, 6, 8]),
        "average": nn.AvgPool2d(3, 2, padding=1),
        "average_inside": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "greatest": nn.MaxPool2d(3, 2, padding=1),
        "nearest": nn.Upsample(scale_factor=2.0),
        "bilinear": nn.Upsample(scale_factor=2.0, mode="bilinear"),
        "bilinear_corners": nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True),
        "shuffle": nn.PixelShuffle(2),
        "reflection": nn.ReflectionPad2d((1, 2, 2, 1)),
        "prelu": nn.PReLU(4),
        "softmax": nn.Softmax(dim=1),
    }
    return {name: layer.eval() for name, layer in made.items()}


def test_layers_as_coremltools_converts_them(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 6, 8)).astype(np.float32)
    made = layers()
    path = convert(lambda x: tuple(layer(x) for layer in made.values()), x, tmp_path / "net.mlpackage")
    with torch.no_grad():
        for (name, layer), got in zip(made.items(), MilEvaluator(path, rounded=False)({"x": x}).values(), strict=True):
            expected = layer(torch.from_numpy(x)).numpy()
            # Half of fp16's last place: the inputs and the weights are stored so.
            np.testing.assert_allclose(got, expected, atol=4e-3, err_msg=name)


def test_a_wrong_conversion_is_seen(tmp_path: Path) -> None:
    """Without edgegen's fixes coremltools 9.0 makes the exact GELU of an approximate one: the evaluator tells."""
    x = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    path = convert(lambda x: nn.functional.gelu(x, approximate="tanh"), x, tmp_path / "net.mlpackage")
    (got,) = MilEvaluator(path, rounded=False)({"x": x}).values()
    exact, approximate = (nn.functional.gelu(torch.from_numpy(x), approximate=a).numpy() for a in ("none", "tanh"))
    np.testing.assert_allclose(got, exact, atol=1e-6)
    assert np.abs(got - approximate).max() > 3e-4


def test_unknown_ops_are_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)
    path = convert(lambda x: (x.argsort(1) * 2, x.topk(3).values * 2), x, tmp_path / "odd.mlpackage")
    message = r"does not know the op argsort \('\w+' in odd.mlpackage\) nor 1 other op types in it \(topk\)"
    with pytest.raises(ExportError, match=message):
        MilEvaluator(path)


def test_inputs_that_do_not_fit(tiny: "Tiny", package: Path) -> None:
    evaluator = MilEvaluator(package)
    sample, labels = tiny.inputs["sample"], tiny.inputs["class_labels"]
    with pytest.raises(ExportError, match="the Core ML program takes class_labels, sample; given: sample"):
        evaluator({"sample": sample})
    with pytest.raises(ExportError, match=r"'sample' is \(1, 1, 8, 4\); the Core ML program takes \(1, 1, 8, 8\)"):
        evaluator({"sample": sample[..., :4], "class_labels": labels})
    with pytest.raises(ExportError, match=r"Core ML op gather '.*' cannot be evaluated: index out of range"):
        evaluator({"sample": sample, "class_labels": labels + 100})


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, r"\(nothing there\): no Manifest.json"),
    "a file": (lambda p: (shutil.rmtree(p), p.write_text("x")), r"\(a file of 1 bytes, not a folder\)"),
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), r"model.mlmodel \d+ bytes.*: no Manifest.json"),
    "cut manifest": (lambda p: cut(p / "Manifest.json", 100), r"Manifest.json 100 bytes.*not JSON, or cut short"),
    "no model": (lambda p: (p / MODEL).unlink(), r"\(weight.bin \d+ bytes, Manifest.json \d+ bytes\)"),
    "cut model": (lambda p: cut(p / MODEL, 9000), r"model.mlmodel 9000 bytes.*(pars|corrupt)"),
    "empty model": (lambda p: cut(p / MODEL, 0), r"model.mlmodel 0 bytes.*holds nothing, not an ML Program"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), r"Could not open .*weight.bin"),
    "cut weights": (lambda p: cut(p / WEIGHTS, 5000), r"weight.bin 5000 bytes.*out of bounds"),
    "empty weights": (lambda p: cut(p / WEIGHTS, 0), r"weight.bin 0 bytes.*Unable to mmap"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_packages_give_one_error(fault: str, package: Path, tmp_path: Path) -> None:
    breaking, message = FAULTS[fault]
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    breaking(broken)
    with pytest.raises(
        ExportError, match=rf"(?s)cannot read the Core ML package broken.mlpackage .*{message}"
    ) as raised:
        MilEvaluator(broken)
    assert str(tmp_path) not in str(raised.value)


def test_without_the_extra_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"reading a Core ML package needs 'coremltools'.*edgegen\[coreml\]"):
        MilEvaluator(tmp_path / "a.mlpackage")


def test_the_two_modes_differ_by_the_rounding_only(tiny: "Tiny", package: Path) -> None:
    expected = reference(tiny.module, tiny.inputs)
    rounded, computed = (MilEvaluator(package, rounded=mode)(tiny.inputs)["out_sample"] for mode in (True, False))
    assert psnr_db(expected, computed) > psnr_db(expected, rounded) + 3 > 55
