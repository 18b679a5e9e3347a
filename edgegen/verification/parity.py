"""An artifact against PyTorch on the same inputs: peak signal-to-noise ratio over a floor, or the reason why not."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.exporters.base import Session
from edgegen.support.ssim import RADIUS, ssim
from edgegen.types import Origin, Parity, Signature

OUTPUT = "out_sample"
UNTRAINED = 0.5  # share of a network's numbers beyond its range; a trained one's pictures hardly leave it
WORST_SHARE = 0.1  # of the samples: their mean must reach the floor, too
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

    The latter also where most of the reference lies beyond that range, as random weights and networks that are not
    one-step generators give.
    """
    low, high = signature.outputs[0].image_range
    return high - low if is_stated(signature, reference) else float(reference.max() - reference.min()) or 1.0


def is_stated(signature: Signature, reference: NDArray[Any]) -> bool:
    """Whether PSNR is relative to the range that the signature gives the output; see `psnr_range`."""
    output = signature.outputs[0]
    return None not in (output.low, output.high) and share_beyond(signature, reference) <= UNTRAINED


def share_beyond(signature: Signature, reference: NDArray[Any]) -> float:
    """The share of the reference's values that lie beyond `low` to `high` of the output (of images, -1 to 1)."""
    low, high = signature.outputs[0].image_range
    return float(np.mean((reference < low) | (reference > high)))


def check(
    session: Session,
    inputs: Mapping[str, NDArray[Any]],
    reference: NDArray[Any],
    *,
    floor_db: float,
    data_range: float = 2.0,
    output: str = OUTPUT,
    origin: Origin = "noise",
    images: bool = False,
) -> Parity:
    """Run an opened artifact and compare its output with PyTorch's.

    Args:
        session: what a backend's `open` gave.
        inputs: arrays by name, (batch, ...).
        reference: PyTorch's output of the same inputs, (batch, ...).
        floor_db: least PSNR that passes.
        data_range: that PSNR is relative to: 2 for images in [-1, 1].
        output: name of the output that is compared.
        origin: of the inputs.
        images: whether the output is (batch, channels, height, width) of an image, which gets an SSIM.

    Returns:
        "ok"; or "failed" with its reason, where the output is missing, of another shape, not finite, or below
        `floor_db` in the mean of the worst tenth of the samples.

    Raises:
        ExportError: the runtime refuses the inputs.
    """
    outputs = session(inputs)
    fault = _fault(outputs, reference, output)
    if fault:
        return Parity("failed", session.method, floor_db, samples=len(reference), reason=fault, origin=origin)
    actual = outputs[output].astype(np.float64)
    squares = np.sort(((actual - reference) ** 2).reshape(len(reference), -1).mean(axis=1))[::-1]
    psnr = psnr_of(float(squares.mean()), data_range=data_range)
    tenth = psnr_of(float(squares[: math.ceil(WORST_SHARE * len(squares))].mean()), data_range=data_range)
    passed = tenth >= floor_db
    judged = f"{psnr:.1f} dB" if psnr < floor_db else f"{psnr:.1f} dB, and {tenth:.1f} dB on the worst tenth,"
    return Parity(
        "ok" if passed else "failed",
        session.method,
        floor_db,
        samples=len(reference),
        psnr_db=psnr,
        max_abs_error=float(np.abs(actual - reference).max()),
        reason="" if passed else f"{judged} is below the floor of {floor_db:.1f} dB",
        data_range=data_range,
        worst_db=psnr_of(float(squares[0]), data_range=data_range),
        ssim=_ssim(reference, actual, data_range) if images else None,
        origin=origin,
    )


def _ssim(reference: NDArray[Any], actual: NDArray[Any], data_range: float) -> float | None:
    if reference.ndim != 4 or min(reference.shape[2:]) <= 2 * RADIUS:
        return None
    return float(ssim(reference, actual, data_range=data_range).mean())


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
