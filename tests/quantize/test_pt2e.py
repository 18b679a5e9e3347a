"""w8a8: the quantized program against PyTorch before any lowering, its dtypes, what is refused, and three runtimes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from edgegen.artifacts.build import build
from edgegen.artifacts.target import Target
from edgegen.errors import ExportError
from edgegen.inspection.integer_kernels import INTEGER, arithmetic
from edgegen.program.capture import capture
from edgegen.program.inputs import InputSource
from edgegen.program.one_step import OneStep
from edgegen.quantize.calibration import calibration_batches
from edgegen.quantize.pt2e import quantize
from edgegen.quantize.schemes import DEFAULT_OPTIONS
from edgegen.recipe import Quantize
from edgegen.registry import load
from edgegen.types import Signature
from edgegen.verification.parity import psnr_db

if TYPE_CHECKING:
    from tests.quantize.conftest import Tiny

ALIKE_DB = 30.0  # the project's goal for one quantization in three runtimes
PICTURE = Signature.of(channels=1, size=8, num_classes=0)


def quantized(module: nn.Module, signature: Signature = PICTURE, samples: int = 64) -> nn.Module:
    batches = calibration_batches(InputSource(signature, 3), samples=samples, batch=32)
    return quantize(capture(module, signature, batch=None), "w8a8", batches, Quantize())


def outputs(module: nn.Module, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: Tensor = module(*(torch.from_numpy(values) for values in inputs.values()))
    return found.numpy()


def test_the_quantized_program_is_true_and_holds_int8_kernels(tiny: "Tiny", capfd: pytest.CaptureFixture[str]) -> None:
    program = capture(tiny.module, tiny.signature, batch=None)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    batches = calibration_batches(InputSource(tiny.signature, 3), samples=64, batch=32)
    made = quantize(program, "w8a8", batches, Quantize())
    assert capfd.readouterr() == ("", "")
    kernels = [value for value in made.state_dict().values() if value.dtype == torch.int8 and value.ndim == 4]
    assert len(kernels) == sum(value.ndim == 4 for value in tiny.module.state_dict().values())
    assert max(int(kernel.abs().max()) for kernel in kernels) == 64, "two products of a uint8 and a weight fit 16 bits"
    assert 30.0 < psnr_db(tiny.expected, outputs(made, tiny.inputs)) < 60.0, "quantized, and still the same function"
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())


def test_a_layer_is_what_the_formula_gives() -> None:
    """y = Q(sum s_x (q_x - z_x) s_w q_w + b), with scales and sums worked out here in float64."""
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 1, 1)
    inputs = calibration_batches(InputSource(PICTURE, 3), samples=16, batch=16)
    program = capture(layer, PICTURE, batch=None)
    got = outputs(quantize(program, "w8a8", inputs, Quantize()), inputs[0])
    x = inputs[0]["sample"].astype(np.float64)
    assert layer.bias is not None
    weight, bias = float(layer.weight.detach()), float(layer.bias.detach())
    expected = rounded(rounded(x, x) * weight + bias, x * weight + bias)  # one weight is +-64 steps: exact
    step = np.ptp(x * weight + bias) / 255
    assert np.abs(got - expected).max() <= step * 1.01  # a step, where float32 rounds to the other side
    assert np.mean(np.abs(got - expected) > step / 2) < 0.01


def rounded(values: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine int8 over the range of `seen`, which is widened to hold 0."""
    low, high = min(0.0, float(seen.min())), max(0.0, float(seen.max()))
    scale = (high - low) / 255
    zero = np.round(-128 - low / scale)
    return (np.clip(np.round(values / scale) + zero, -128, 127) - zero) * scale


def test_small_weights_use_all_their_bits() -> None:
    """XNNPACK's own least scale, 2^-12, would leave 8 of 64 steps to weights of 0.002."""
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(0.002 / layer.weight.abs().max())
    (kernel,) = (v for v in quantized(OneStep(layer)).state_dict().values() if v.dtype == torch.int8)
    assert int(kernel.abs().max()) == 64


def test_one_dimensional_and_dense_layers_are_quantized_too() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 8)

        def forward(self, sample: Tensor) -> Tensor:
            found: Tensor = self.second(self.first(sample[:, 0]))
            return found[:, None]

    whole = [value for value in quantized(Dense()).state_dict().values() if value.dtype == torch.int8]
    assert sorted(value.ndim for value in whole) == [2, 3]


def test_a_channel_of_zeros_and_a_picture_of_one_number() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.fill_(0.5)
    inputs = calibration_batches(InputSource(PICTURE, 1), samples=4, batch=4)[0]
    assert np.abs(outputs(quantized(layer), inputs) - 0.5).max() < 0.01


def test_a_range_that_is_not_finite_is_named() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ExportError, match="calibration saw values that are not finite, or none at all, at"):
        quantized(OneStep(layer))


def test_a_network_without_weights_is_refused() -> None:
    """Else a float file would be called w8a8."""
    with pytest.raises(ExportError, match="nothing to quantize: the network has no convolution and no dense layer"):
        quantized(nn.Tanh())


def test_what_pt2e_refuses_is_an_export_error(monkeypatch: pytest.MonkeyPatch) -> None:
    program = capture(OneStep(nn.Conv2d(1, 1, 3, padding=1)), PICTURE, batch=None)
    monkeypatch.setattr(program, "module", lambda **_: nn.Identity())
    with pytest.raises(ExportError, match="torchao PT2E could not quantize the program"):
        quantize(program, "w8a8", calibration_batches(InputSource(PICTURE, 3), samples=1, batch=1), Quantize())


@pytest.mark.long
def test_three_runtimes_make_the_same_picture(tiny: "Tiny", tmp_path: Path, in_process: None) -> None:
    found = {}
    for backend in ("onnx", "executorch", "coreml"):
        target = Target(backend, "w8a8")
        options: dict[str, Any] = {"quantization": Quantize(samples=256), "seed": 3, "metadata": {}}
        built = build(tiny.module, tiny.signature, name="t", target=target, folder=tmp_path, **options)
        found[backend] = load("backend", backend).open(tmp_path / built.artifact.file)(tiny.inputs)["out_sample"]
        assert psnr_db(tiny.expected, found[backend]) >= ALIKE_DB, backend
    for one, other in (("onnx", "executorch"), ("onnx", "coreml"), ("executorch", "coreml")):
        assert psnr_db(found[one], found[other]) >= ALIKE_DB, (one, other)
    model = onnx.load(tmp_path / "t_onnx_w8a8.onnx")
    tensors = [to_array(tensor) for tensor in model.graph.initializer]
    kernels = [value for value in tensors if value.dtype == np.int8 and value.ndim == 4]
    assert len(kernels) == sum(node.op_type == "Conv" for node in model.graph.node)
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert len(products) == 2, "attention"
    assert all(made_by[name] != "DequantizeLinear" for node in products for name in node.input), "stays float"


def test_every_convolution_runs_in_8_bits_in_onnxruntime(tiny: "Tiny", tmp_path: Path, in_process: None) -> None:
    """And not as dequantize, float convolution, quantize: it is read from what onnxruntime makes of the file."""
    import onnxruntime

    options: dict[str, Any] = {"quantization": Quantize(samples=32), "seed": 3, "metadata": {}}
    build(tiny.module, tiny.signature, name="t", target=Target("onnx", "w8a8"), folder=tmp_path, **options)
    path = tmp_path / "t_onnx_w8a8.onnx"
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    written = [node.op_type for node in onnx.load(path).graph.node]
    run = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert run.count("QLinearConv") == written.count("Conv") > 4
    assert "Conv" not in run
    assert arithmetic("onnx", path) == f"all {len(run_in_8_bits(run))} layers multiply in 8 bits"


def run_in_8_bits(operators: list[str]) -> list[str]:
    return [kind for kind in operators if kind in INTEGER]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("onnx-w8", DEFAULT_OPTIONS, "runs float: none of 6 layers multiplies in 8 bits"),
        ("executorch-w8a8", Quantize(samples=16), "all 6 layers multiply in 8 bits"),
        (
            "executorch-mixed",
            Quantize(samples=16, float_layers=("net.stem",)),
            "5 of 6 layers multiply in 8 bits, the others float",
        ),
    ],
)
def test_a_file_that_runs_float_is_called_so(
    tiny: "Tiny", target: str, options: Quantize, said: str, tmp_path: Path, in_process: None
) -> None:
    wanted = Target.parse(target)
    fixed: dict[str, Any] = {"name": "t", "folder": tmp_path, "seed": 3, "metadata": {}}
    built = build(tiny.module, tiny.signature, target=wanted, quantization=options, **fixed)
    assert arithmetic(wanted.backend, tmp_path / built.artifact.file) == said


def test_a_graph_of_thousands_of_operations_is_read_as_well(tmp_path: Path) -> None:
    """What is weights and what is not is followed along the graph: not by recursion, whose depth Python limits."""
    steps = 3000
    nodes = [onnx.helper.make_node("Sin", [f"x{step}"], [f"x{step + 1}"]) for step in range(steps)]
    nodes.append(onnx.helper.make_node("MatMul", [f"x{steps}", "weights"], ["out"]))
    of = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "deep",
        [of("x0", onnx.TensorProto.FLOAT, [1, 4])],
        [of("out", onnx.TensorProto.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "deep.onnx")
    assert arithmetic("onnx", tmp_path / "deep.onnx") == "runs float: none of 1 layers multiplies in 8 bits"
