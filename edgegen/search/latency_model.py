"""A linear model of latency, fitted to the measured shapes. It orders candidates; its predictions are not reported.

Latency is a sum of counts from `Complexity`, each times a coefficient found by non-negative least squares. The model is
fitted again after every round of measurements, with the largest weights for times near one budget.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgegen.search.complexity import Complexity

# In the order in which they enter the model: two measurements determine two coefficients, and so on.
TERMS = ("padded_macs", "layers", "activations", "macs", "attention_macs", "weights")
LEAST_TERMS = 2
NEARNESS = 0.3  # a time 1.35 times the budget counts half as much as one that meets it


def predicted_ms(
    measured: Mapping[Complexity, float], shapes: Sequence[Complexity], *, near_ms: float
) -> NDArray[np.float64]:
    """Predicted latencies of `shapes` in ms, (n,), fitted to `measured`; most accurate near `near_ms`."""
    from scipy.optimize import nnls

    times = np.array(list(measured.values()))
    terms = TERMS[: max(LEAST_TERMS, len(times) - 1)]
    known, wanted = _counts(list(measured), terms), _counts(shapes, terms)
    scale = known.max(axis=0, initial=1.0)
    # Relative errors, weighted by how near the time is to the budget.
    weight = 1.0 / times / (NEARNESS + np.abs(np.log(times / near_ms)))
    coefficients, _ = nnls(known / scale * weight[:, None], times * weight)
    predicted: NDArray[np.float64] = wanted / scale @ coefficients
    return predicted


def _counts(shapes: Sequence[Complexity], terms: Sequence[str]) -> NDArray[np.float64]:
    """(shapes, terms)."""
    return np.array([[getattr(shape, term) for term in terms] for shape in shapes], dtype=np.float64)
