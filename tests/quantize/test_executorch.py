"""executorch w8a8: the quantized program against PyTorch before any lowering, its dtypes, and what is refused."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgegen.capture import OneStep, capture
from edgegen.errors import ExportError
from edgegen.parity import psnr_db
from edgegen.quantize.calibrate import calibration_batches
from edgegen.quantize.executorch import quantize_w8a8
from edgegen.types import Signature

if TYPE_CHECKING:
    from tests.quantize.conftest import Tiny


def test_the_quantized_program_is_true_and_holds_int8_kernels(tiny: "Tiny", capfd: pytest.CaptureFixture[str]) -> None:
    program = capture(tiny.module, tiny.signature, batch=1)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    batches = calibration_batches(tiny.signature, samples=64, seed=3, batch=1)
    quantized = quantize_w8a8(program, batches)
    assert capfd.readouterr() == ("", "")
    assert list(quantized.graph_signature.user_inputs) == [spec.name for spec in tiny.signature.inputs]
    kernels = [value for value in quantized.state_dict.values() if value.dtype == torch.int8 and value.ndim == 4]
    assert len(kernels) == sum(value.ndim == 4 for value in tiny.module.state_dict().values())
    run = quantized.module()
    rows = [[torch.from_numpy(values[i : i + 1]) for values in tiny.inputs.values()] for i in range(len(tiny.expected))]
    with torch.no_grad():
        got = np.concatenate([run(*row).numpy() for row in rows])
    assert 30.0 < psnr_db(tiny.expected, got) < 60.0, "quantized, and still the same function"
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())


def test_a_batch_that_the_program_does_not_take_is_refused() -> None:
    signature = Signature.of(channels=1, size=8, num_classes=0)
    program = capture(OneStep(torch.nn.Conv2d(1, 1, 3, padding=1)), signature, batch=1)
    with pytest.raises(ExportError, match=r"shape \[\(2, 1, 8, 8\)\], the program takes \[\(1, 1, 8, 8\)\]"):
        quantize_w8a8(program, calibration_batches(signature, samples=2, seed=3, batch=2))


def test_what_pt2e_refuses_is_an_export_error(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = Signature.of(channels=1, size=8, num_classes=0)
    program = capture(OneStep(torch.nn.Conv2d(1, 1, 3, padding=1)), signature, batch=1)
    monkeypatch.setattr(program, "module", lambda: torch.nn.Identity())
    with pytest.raises(ExportError, match="torchao PT2E could not quantize the program"):
        quantize_w8a8(program, calibration_batches(signature, samples=1, seed=3, batch=1))
