"""How long a shape will take, guessed from the shapes that were measured: it orders candidates and is shown nowhere.

A sum of what a net has to do, each share with a price that is not negative (non-negative least squares). The prices are
found anew after every measurement, for times near one budget: what is as fast as the budget counts most.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgegen.search.complexity import Work

# In the order in which they are added: with two measurements the first two are all that can be told apart.
SHARES = ("filled_macs", "layers", "activations", "macs", "attention_macs", "weights")
LEAST_SHARES = 2
NEARNESS = 0.3  # a time 1.35 times the budget counts half as much as one that meets it


def predicted_ms(measured: Mapping[Work, float], shapes: Sequence[Work], *, near_ms: float) -> NDArray[np.float64]:
    """The times of `shapes` (n,) in ms, from those in `measured`, best for times near `near_ms`."""
    from scipy.optimize import nnls

    times = np.array(list(measured.values()))
    names = SHARES[: max(LEAST_SHARES, len(times) - 1)]
    known, asked = _shares(list(measured), names), _shares(shapes, names)
    scale = known.max(axis=0, initial=1.0)
    # Errors are relative to the time, and weighed by how near it is to the budget.
    weight = 1.0 / times / (NEARNESS + np.abs(np.log(times / near_ms)))
    prices, _ = nnls(known / scale * weight[:, None], times * weight)
    made: NDArray[np.float64] = asked / scale @ prices
    return made


def _shares(shapes: Sequence[Work], names: Sequence[str]) -> NDArray[np.float64]:
    """(shapes, names)."""
    return np.array([[getattr(one, name) for name in names] for one in shapes], dtype=np.float64)
