"""How far two sets of images are apart, in the features of an extractor: everything in float64.

Features are (n, d) arrays, one row an image. All of these depend on n: compare only figures of the same n, and print
beside them the floor, which is the distance between real held-out images and real training images at that n.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.errors import DataError

Features = NDArray[np.float64]
BLOCK = 256  # rows at once: 256 x 50,000 distances are 100 MB
ROUNDING = 1e-12  # of squared distances by products in float64, relative to the squared norms: some 4000 epsilon
NEAREST = 3  # k of precision and recall, as in arXiv:1904.06991


def frechet(a: Features, b: Features) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) of the means and covariances (FID's, arXiv:1706.08500).

    The last trace is the sum of the singular values of C1^1/2 C2^1/2 (their squares are the eigenvalues of the product
    above), with the roots by eigh: unlike a root of the product C1 C2, this holds for the rank-deficient covariances of
    ReLU features. Covariances are over n - 1. Raises DataError on fewer than 2 rows or values that are not finite.
    """
    _check(a, b)
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    means = float(np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2))
    cross = float(np.linalg.svd(_root(c1) @ _root(c2), compute_uv=False).sum())
    return max(0.0, means + float(np.trace(c1) + np.trace(c2)) - 2.0 * cross)


def kernel_distance(a: Features, b: Features) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 (KID, arXiv:1801.01401).

    Over the whole sets, not the mean over random subsets that KID's usual code takes: no random numbers, and the least
    variance. Being unbiased, it is a little below 0 about half of the time when both sets are of one distribution.
    """
    _check(a, b)
    within_a = (_kernel_sum(a, a) - _kernel(np.sum(a * a, axis=1), a.shape[1]).sum()) / (len(a) * (len(a) - 1))
    within_b = (_kernel_sum(b, b) - _kernel(np.sum(b * b, axis=1), b.shape[1]).sum()) / (len(b) * (len(b) - 1))
    return float(within_a + within_b - 2.0 * _kernel_sum(a, b) / (len(a) * len(b)))


def precision_recall(real: Features, fake: Features, *, k: int = NEAREST) -> tuple[float, float]:
    """(precision, recall) of arXiv:1904.06991: the share of `fake` inside the manifold of `real`, and back.

    A set's manifold is the union of balls around its points, each reaching to the point's k-th nearest other one.
    Raises DataError on k or fewer rows.
    """
    _check(real, fake)
    if min(len(real), len(fake)) <= k:
        raise DataError(f"precision and recall need more than k = {k} images; found {len(real)} real, {len(fake)} fake")
    return _share_inside(fake, real, k), _share_inside(real, fake, k)


@dataclass(frozen=True)
class Quality:
    """Generated images against real ones: `fd_local` is the mean over the noise seeds, `sd` its sample deviation.

    `kd_local`, `precision` and `recall` are means over the seeds; `n` is the images of a seed, `steps` the solver's.
    """

    fd_local: float
    sd: float
    kd_local: float
    precision: float
    recall: float
    n: int
    steps: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(real: Features, fakes: Sequence[Features], *, steps: int) -> Quality:
    """One set of fake features per noise seed, 2 or more, all of one size. Raises DataError."""
    if len(fakes) < 2 or len({len(fake) for fake in fakes}) != 1:
        sizes = [len(fake) for fake in fakes]
        raise DataError(f"a quality needs sets of 2 noise seeds or more, all of one size; found sets of {sizes} images")
    distances = np.array([frechet(real, fake) for fake in fakes])
    ratios = np.array([precision_recall(real, fake) for fake in fakes])
    return Quality(
        fd_local=float(distances.mean()),
        sd=float(distances.std(ddof=1)),
        kd_local=float(np.mean([kernel_distance(real, fake) for fake in fakes])),
        precision=float(ratios[:, 0].mean()),
        recall=float(ratios[:, 1].mean()),
        n=len(fakes[0]),
        steps=steps,
    )


def _check(a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features of shapes {a.shape} and {b.shape} cannot be compared; needed: (n, d) and (m, d)")
    if min(len(a), len(b)) < 2:
        raise DataError(f"features of {len(a)} and {len(b)} images cannot be compared; needed: 2 or more of each")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features hold values that are not finite, so the sets cannot be compared")


def _root(c: Features) -> Features:
    """The symmetric root of a covariance; rounding makes eigenvalues of 0 slightly negative."""
    values, vectors = np.linalg.eigh(c)
    root: Features = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root


def _kernel(products: Features, width: int) -> Features:
    base = products / width + 1.0
    return base * base * base  # `** 3` takes seven times as long


def _kernel_sum(a: Features, b: Features) -> float:
    blocks = (a[start : start + BLOCK] for start in range(0, len(a), BLOCK))
    return float(sum(_kernel(block @ b.T, a.shape[1]).sum() for block in blocks))


def _share_inside(points: Features, centres: Features, k: int) -> float:
    """The share of `points` within the k-th neighbour's distance of at least one of `centres`."""
    queries, references = (torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in (points, centres))
    radii = []
    for start in range(0, len(references), BLOCK):
        squares = _squared_distances(references[start : start + BLOCK], references)
        squares.diagonal(start).fill_(torch.inf)  # a point is not its own neighbour
        radii.append(squares.topk(k, dim=1, largest=False).values.max(dim=1).values)
    # Products round where differences would not: a point on the edge, or equal to a centre, counts as inside.
    reach = torch.cat(radii) + ROUNDING * (queries.square().sum(dim=1).max() + references.square().sum(dim=1).max())
    inside = [(_squared_distances(block, references) <= reach).any(dim=1) for block in torch.split(queries, BLOCK)]
    return float(torch.cat(inside).double().mean())


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2.0).add_(a.square().sum(dim=1)[:, None])
