"""How much other programs, a hypervisor and heat disturbed a measurement."""

from dataclasses import dataclass

from edgegen.profilers.devices.device import Busy

OTHERS, STOLEN = 0.10, 0.05  # cores used by other programs, kept by a hypervisor
DRIFT = 0.10  # of the fixed arithmetic's time, between before and after


@dataclass(frozen=True)
class Interference:
    """How much of the device other programs used in the warm runs, in cores; None where it does not say.

    `drift`: by how much a fixed piece of arithmetic took longer after them than before (0.1: a tenth). `heat`: what the
    device said of its own.
    """

    others_cores: float | None = None
    stolen_cores: float | None = None
    drift: float | None = None
    heat: str = ""

    def reasons(self) -> list[str]:
        """Why no time that was taken meanwhile should be believed; empty without a reason."""
        reasons = []
        if self.others_cores is not None and self.others_cores > OTHERS:
            reasons.append(f"other programs used {self.others_cores:.2f} cores")
        if self.stolen_cores is not None and self.stolen_cores > STOLEN:
            reasons.append(f"the hypervisor kept {self.stolen_cores:.2f} cores to itself")
        if self.heat:
            reasons.append(self.heat)
        if self.drift is not None and abs(self.drift) > DRIFT:
            change = "slower" if self.drift > 0 else "faster"
            reasons.append(f"the processor became {abs(self.drift):.0%} {change} meanwhile")
        return reasons


@dataclass(frozen=True)
class Usage:
    """At one moment: what the device's programs had used, and of that our workers; and the fixed arithmetic's time."""

    at_s: float
    device: Busy | None
    ours_s: float
    probe_ms: float | None


def interference(before: Usage, after: Usage) -> Interference:
    """What happened between two moments."""
    span_s = after.at_s - before.at_s
    drift = None
    if before.probe_ms and after.probe_ms:  # None: no worker left; 0: shorter than the clock can measure
        drift = after.probe_ms / before.probe_ms - 1
    if before.device is None or after.device is None or span_s <= 0:
        return Interference(drift=drift)
    others_s = after.device.used_s - before.device.used_s - (after.ours_s - before.ours_s)
    stolen_s = after.device.stolen_s - before.device.stolen_s
    return Interference(max(0.0, others_s / span_s), stolen_s / span_s, drift)
