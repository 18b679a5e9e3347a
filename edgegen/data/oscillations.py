"""Free vibrations of damped oscillators: signals there without a download, whose statistics are known.

    q(s) = A exp(-d w s) sin(w s + p)        its position in mm, s the time in seconds
    v(s) = dq/ds                             its velocity in mm/s

with frequency w / 2 pi uniform in `FREQUENCIES_HZ` of its class, A uniform in `AMPLITUDES_MM`, the damping ratio d in
`DAMPING`, and the phase p anywhere.
"""

import numpy as np

from edgegen.data.images import ImageSet
from edgegen.data.signals import signal_set
from edgegen.noise import philox4x32

COUNT, LENGTH, SAMPLE_RATE_HZ = 3000, 128, 100.0
FREQUENCIES_HZ = {"slow": (2.0, 4.0), "fast": (7.0, 10.0)}
AMPLITUDES_MM, DAMPING = (0.5, 1.0), (0.02, 0.06)
STREAM = 2  # second word of the Philox counter; noise.normal uses 0, the split of a set 1


def load() -> ImageSet:
    """float64 (3000, 2, 128): the channels are position and velocity; the classes "slow" and "fast" in turn."""
    counter = np.zeros((COUNT, 4), dtype=np.uint64)
    counter[:, 1], counter[:, 2] = STREAM, np.arange(COUNT, dtype=np.uint64)
    uniform = philox4x32(counter, (0, 0)) / 2.0**32
    labels = np.arange(COUNT) % len(FREQUENCIES_HZ)
    low, high = np.array([*FREQUENCIES_HZ.values()])[labels].T
    w = 2 * np.pi * (low + (high - low) * uniform[:, 0])[:, None]
    a, d = (least + (most - least) * uniform[:, i, None] for i, (least, most) in ((1, AMPLITUDES_MM), (2, DAMPING)))
    p, s = 2 * np.pi * uniform[:, 3, None], np.arange(LENGTH) / SAMPLE_RATE_HZ
    envelope, angle = a * np.exp(-d * w * s), w * s + p
    q = envelope * np.sin(angle)
    v = envelope * w * (np.cos(angle) - d * np.sin(angle))
    signals = np.stack([q, v], axis=1)
    return signal_set(
        signals, labels, source="oscillations", sample_rate_hz=SAMPLE_RATE_HZ, names=tuple(FREQUENCIES_HZ)
    )
