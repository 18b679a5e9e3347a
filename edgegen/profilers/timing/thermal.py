"""A warm phone computes slower: wait until it is cool, and doubt what was measured where it was not.

`state` is what `Device.probe` says. A device that does not report its temperature is taken as cool.
"""

import time
from collections.abc import Mapping
from typing import Any

from edgegen.profilers.devices.device import Device
from edgegen.support.progress import Progress

# react-native-executorch waits for 37 degrees before each case; Android's status 1 is "light", 2 "moderate" throttling
COOL_C, LIGHT, MODERATE = 37.0, 1, 2
WAIT_S, LOOK_S = 300.0, 10.0


def warmth(state: Mapping[str, Any]) -> str:
    """Why measuring should wait; "" where nothing says so."""
    battery, status = state["battery_c"], state["thermal_status"]
    if status is not None and status >= LIGHT:
        return f"thermal status {status}"
    return f"battery at {battery:g} °C" if battery is not None and battery > COOL_C else ""


def throttled(state: Mapping[str, Any]) -> str:
    """Why what was just measured should not be believed; "" where nothing says so."""
    status = state["thermal_status"]
    return f"thermal status {status}: the device slows itself down" if status is not None and status >= MODERATE else ""


def cooled(device: Device, state: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """Waits until the device is cool, WAIT_S at most; returns its last state."""
    until = time.monotonic() + WAIT_S
    if reason := warmth(state):
        progress.message(
            f"the device is warm ({reason}): waiting until it has cooled down, {WAIT_S / 60:g} min at most"
        )
    while warmth(state) and time.monotonic() < until:
        time.sleep(LOOK_S)
        state = device.probe()
    return state
