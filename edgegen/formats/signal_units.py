"""From a network's signals to the user's: the scale and the zero of each channel, and the sample rate.

Networks make signals (batch, channels, length) with each channel in [-1, 1]; a user has volts, metres, degrees:

    x = offset + scale y        of each channel
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from edgegen.errors import DataError

UNITS = "units"  # the key in data.json, in edgegen.json of a generator folder, and in manifest.json


@dataclass(frozen=True)
class SignalUnits:
    """`offset` and `scale` (channels,) as above; `sample_rate_hz` is None where the data did not give it."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    sample_rate_hz: float | None = None

    @staticmethod
    def spanning(signals: NDArray[Any], *, sample_rate_hz: float | None) -> "SignalUnits":
        """By which the least value of each channel of signals (n, channels, length) becomes -1, the largest 1."""
        low, high = (end(signals.astype(np.float64), axis=(0, 2)) for end in (np.min, np.max))
        return SignalUnits(tuple(((low + high) / 2).tolist()), tuple(((high - low) / 2).tolist()), sample_rate_hz)

    def normalised(self, signals: NDArray[Any]) -> NDArray[np.float32]:
        """The user's signals (n, channels, length) as networks make them."""
        offset, scale = self._columns()
        return np.ascontiguousarray((signals - offset) / scale, np.float32)

    def restored(self, signals: NDArray[np.float32]) -> NDArray[np.float32]:
        """A network's signals (n, channels, length) in the user's units."""
        offset, scale = self._columns()
        return np.ascontiguousarray(offset + scale * signals, np.float32)

    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        offset, scale = (np.array(values)[:, None] for values in (self.offset, self.scale))
        return offset, scale

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of_record(record: Mapping[str, Any], *, channels: int, where: str) -> "SignalUnits | None":
        """Those under the key "units" of a record; None where it has none. Raises DataError for damaged ones."""
        if record.get(UNITS) is None:
            return None
        try:
            units = ADAPTER.validate_python(record[UNITS])
        except ValidationError as e:
            first = e.errors()[0]
            raise DataError(f"{where}: units.{'.'.join(map(str, first['loc']))}: {first['msg']}") from e
        if not len(units.offset) == len(units.scale) == channels:
            raise DataError(f"{where}: units are of {len(units.scale)} channels, and the signals have {channels}")
        return units


ADAPTER = TypeAdapter(SignalUnits)
