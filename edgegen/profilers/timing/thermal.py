"""A warm phone computes slower: wait until it is cool, and doubt what was measured where it was not.

`told` is what `Device.probe` says. A device that tells nothing of its heat is taken as cool.
"""

import time
from collections.abc import Mapping
from typing import Any

from edgegen.profilers.devices.device import Device
from edgegen.support.progress import Progress

# react-native-executorch waits for 37 degrees before each case; Android's status 1 is "light", 2 "moderate" throttling
COOL_C, LIGHT, MODERATE = 37.0, 1, 2
WAIT_S, LOOK_S = 300.0, 10.0


def warmth(told: Mapping[str, Any]) -> str:
    """Why measuring should wait; "" where nothing says so."""
    battery, status = told["battery_c"], told["thermal_status"]
    if status is not None and status >= LIGHT:
        return f"thermal status {status}"
    return f"battery at {battery:g} °C" if battery is not None and battery > COOL_C else ""


def throttled(told: Mapping[str, Any]) -> str:
    """Why what was just measured should not be believed; "" where nothing says so."""
    status = told["thermal_status"]
    return f"thermal status {status}: the device slows itself down" if status is not None and status >= MODERATE else ""


def cooled(device: Device, told: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """What the device says once it is cool, or after WAIT_S."""
    until = time.monotonic() + WAIT_S
    if reason := warmth(told):
        progress.message(
            f"the device is warm ({reason}): waiting until it has cooled down, {WAIT_S / 60:g} min at most"
        )
    while warmth(told) and time.monotonic() < until:
        time.sleep(LOOK_S)
        told = device.probe()
    return told
