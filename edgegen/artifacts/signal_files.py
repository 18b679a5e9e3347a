"""Generated signals as files: .npz and .csv in the user's units, .wav where they have a sample rate, .svg as a plot."""

import csv
import io
import wave
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError, UsageError
from edgegen.formats.picture import KEYWORD
from edgegen.formats.signal_units import SignalUnits
from edgegen.report.signals import signal_sheet
from edgegen.support.storage import write_bytes

SUFFIXES = (".npz", ".csv", ".wav", ".svg")
SIGNALS = "signals"  # the array of a .npz
FULL = 2**15 - 1  # of 16 bits
MOST_CHANNELS, RATES_HZ = 2, (1.0, 2.0**31)  # of a .wav: what players play, and its head holds


def write_signals(
    path: Path,
    signals: NDArray[np.float32],
    units: SignalUnits | None,
    *,
    labels: NDArray[np.int64] | None,
    recipe: str | None = None,
) -> None:
    """Writes signals (n, channels, length) as a network makes them; `units` None leaves the values as they are.

    .npz: `signals`, and where there are any `labels`, `sample_rate` and, as "edgegen", the text of `recipe`. .csv: a
    line for each value of all channels.

    Raises UsageError for a .wav of several signals, of more than two channels or without a sample rate it can have;
    DataError for values that are not finite.
    """
    if not np.isfinite(signals).all():
        raise DataError("signals hold values that are not finite (NaN or infinity): the network is broken")
    writers: Mapping[str, Callable[..., bytes]] = {
        ".npz": partial(_npz, recipe=recipe),
        ".csv": _csv,
        ".wav": _wav,
        ".svg": _svg,
    }
    write_bytes(path, writers[path.suffix.lower()](signals, units, labels))


def _npz(
    signals: NDArray[np.float32], units: SignalUnits | None, labels: NDArray[np.int64] | None, *, recipe: str | None
) -> bytes:
    arrays: dict[str, Any] = {SIGNALS: signals if units is None else units.restored(signals)}
    if labels is not None:
        arrays["labels"] = labels
    if units is not None and units.sample_rate_hz is not None:
        arrays["sample_rate"] = np.float64(units.sample_rate_hz)
    if recipe is not None:
        arrays[KEYWORD] = np.array(recipe)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _csv(signals: NDArray[np.float32], units: SignalUnits | None, labels: NDArray[np.int64] | None) -> bytes:
    rate = None if units is None else units.sample_rate_hz
    values = signals if units is None else units.restored(signals)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    label = [] if labels is None else ["label"]
    channels = [f"channel_{channel}" for channel in range(values.shape[1])]
    writer.writerow(["signal", *label, "index" if rate is None else "seconds", *channels])
    for number, signal in enumerate(values):
        known = [number] if labels is None else [number, int(labels[number])]
        for index, row in enumerate(signal.T.tolist()):
            at = index if rate is None else f"{index / rate:.9g}"
            writer.writerow([*known, at, *(f"{value:.7g}" for value in row)])
    return text.getvalue().encode()


def _wav(signals: NDArray[np.float32], units: SignalUnits | None, labels: NDArray[np.int64] | None) -> bytes:
    rate = None if units is None else units.sample_rate_hz
    count, channels, _ = signals.shape
    lacking = ""
    if count > 1 or channels > MOST_CHANNELS:
        lacking = f"these are {count} of {channels} channels"
    elif rate is None or not RATES_HZ[0] <= rate < RATES_HZ[1]:
        lacking = "no sample rate is known" if rate is None else f"this rate is {rate:g} Hz"
    if lacking or rate is None:
        raise UsageError(
            f"a .wav holds one signal (--count 1) of 1 or {MOST_CHANNELS} channels, with a sample rate from 1 Hz on, "
            f"and {lacking}; take .npz or .csv"
        )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(round(rate))
        file.writeframes((np.clip(signals[0].T, -1, 1) * FULL).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _svg(signals: NDArray[np.float32], units: SignalUnits | None, labels: NDArray[np.int64] | None) -> bytes:
    return signal_sheet(signals).encode()
