"""An artifact against PyTorch on the same inputs: peak signal-to-noise ratio over a floor, or the reason why not."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.exporters.base import Session
from edgegen.types import Parity, Signature

OUTPUT = "out_sample"
CAP_DB = 200.0  # stands for "equal": JSON has no infinity; float32 against itself recomputed gives 130 to 140 dB


def psnr_db(reference: NDArray[Any], actual: NDArray[Any], *, data_range: float = 2.0) -> float:
    """10 log10(data_range^2 / mean squared error), in float64 and at most CAP_DB; images in [-1, 1] have range 2."""
    return psnr_of(
        float(np.mean((np.asarray(reference, np.float64) - np.asarray(actual, np.float64)) ** 2)), data_range=data_range
    )


def psnr_of(mse: float, *, data_range: float) -> float:
    """The PSNR of a mean squared error."""
    return CAP_DB if mse == 0.0 else min(CAP_DB, 10.0 * math.log10(data_range**2 / mse))


def psnr_range(signature: Signature, reference: NDArray[Any]) -> float:
    """The range of values that PSNR is relative to: `high` - `low` of the output, else what the reference spans.

    The latter also where the reference lies far beyond that range, as random weights and networks that are not
    one-step generators give.
    """
    output = signature.outputs[0]
    if output.low is not None and output.high is not None:
        size, middle = output.high - output.low, (output.high + output.low) / 2
        if float(np.abs(reference - middle).max()) <= size:
            return size
    return float(reference.max() - reference.min()) or 1.0


def check(
    session: Session,
    inputs: Mapping[str, NDArray[Any]],
    reference: NDArray[Any],
    *,
    floor_db: float,
    data_range: float = 2.0,
    output: str = OUTPUT,
) -> Parity:
    """Run an opened artifact and compare its output with PyTorch's.

    Args:
        session: what a backend's `open` gave.
        inputs: arrays by name, (batch, ...).
        reference: PyTorch's output of the same inputs, (batch, ...).
        floor_db: least PSNR that passes.
        data_range: that PSNR is relative to: 2 for images in [-1, 1].
        output: name of the output that is compared.

    Returns:
        "ok"; or "failed" with its reason, where the output is missing, of another shape, not finite or below
        `floor_db`.

    Raises:
        ExportError: the runtime refuses the inputs.
    """
    outputs = session(inputs)
    fault = _fault(outputs, reference, output)
    if fault:
        return Parity("failed", session.method, floor_db, samples=len(reference), reason=fault)
    actual = outputs[output].astype(np.float64)
    psnr = psnr_db(reference, actual, data_range=data_range)
    passed = psnr >= floor_db
    return Parity(
        "ok" if passed else "failed",
        session.method,
        floor_db,
        samples=len(reference),
        psnr_db=psnr,
        max_abs_error=float(np.abs(actual - reference).max()),
        reason="" if passed else f"{psnr:.1f} dB is below the floor of {floor_db:.1f} dB",
        data_range=data_range,
    )


def _fault(outputs: Mapping[str, NDArray[Any]], reference: NDArray[Any], output: str) -> str:
    if output not in outputs:
        return f"no output '{output}'; there are: {', '.join(sorted(outputs))}"
    actual = outputs[output]
    if actual.shape != reference.shape:
        return f"'{output}' has shape {actual.shape}, PyTorch gives {reference.shape}"
    if not np.isfinite(reference).all():
        return "PyTorch's own output is not finite"
    not_finite = int(actual.size - np.isfinite(actual).sum())
    return f"{not_finite} of {actual.size} values of '{output}' are not finite" if not_finite else ""
