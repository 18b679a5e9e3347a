"""Signals of a NumPy .npz file: (n, channels, length), in the user's units, with labels where there are any."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.data.images import ImageSet, check_memory, labelled
from edgegen.errors import DataError

LEAST_LENGTH = 16  # the extractor shortens a signal to a sixteenth
MOST_CHANNELS = 256


def signal_set(
    signals: NDArray[Any],
    labels: Any,
    *,
    source: str,
    sample_rate_hz: float | None = None,
    names: tuple[str, ...] | None = None,
) -> ImageSet:
    """Checks signals (n, channels, length), or (n, length) of one channel; labels as in `image_set`. Raises DataError.

    The values stay in the user's units.
    """
    if signals.dtype.kind not in "iuf":
        raise DataError(f"{source}: signals are {signals.dtype}; needed: real numbers")
    if signals.ndim == 2:
        signals = signals[:, None]
    if signals.ndim != 3:
        raise DataError(
            f"{source}: signals have the shape {signals.shape}; needed: (n, channels, length), or (n, length) of one "
            "channel"
        )
    count, channels, length = signals.shape
    if count < 2:
        raise DataError(f"{source}: {count} signal(s); at least 2 are needed, one to learn from and one to test")
    if not 1 <= channels <= MOST_CHANNELS:
        hint = "; is the length the second axis? Needed: x.transpose(0, 2, 1)" if channels > length else ""
        raise DataError(f"{source}: {channels} channels of {length} values; 1 to {MOST_CHANNELS} would do{hint}")
    if length < LEAST_LENGTH:
        hint = "; is the length the second axis? Needed: x.transpose(0, 2, 1)" if channels > length else ""
        raise DataError(f"{source}: signals of {length} values; {LEAST_LENGTH} is the least{hint}")
    check_memory(count, (channels, length, 4), source=source)  # bytes of a float32
    values = np.ascontiguousarray(signals, np.float64 if signals.dtype == np.float64 else np.float32)
    if not (finite := np.isfinite(values).all(axis=(1, 2))).all():
        where = int(finite.argmin())
        raise DataError(
            f"{source}: {int((~finite).sum())} of {count} signals hold values that are not finite (NaN or infinity), "
            f"signal {where} the first: fill or leave them out, such as x[np.isfinite(x).all(axis=(1, 2))]"
        )
    for channel in range(channels):
        if values[:, channel].min() == values[:, channel].max():
            raise DataError(
                f"{source}: channel {channel} is {values[0, channel, 0]:g} in all signals; there is nothing to learn: "
                "leave it out"
            )
    if sample_rate_hz is not None and not (np.isfinite(sample_rate_hz) and sample_rate_hz > 0):
        raise DataError(f"{source}: sample_rate is {sample_rate_hz}; needed: values per second, above 0")
    return labelled(values, labels, source=source, names=names, sample_rate_hz=sample_rate_hz)
