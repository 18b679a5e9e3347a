"""How far two sets of images are apart, in the features of an extractor: everything in float64.

Features are (n, d) arrays, one row an image. All of these depend on n: compare only figures of the same n, and print
beside them the floor, which is the distance between real held-out images and real training images at that n.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgegen.errors import DataError

Features = NDArray[np.float64]
BLOCK = 256  # rows at once: 256 x 50,000 distances are 100 MB
ROUNDING = 1e-12  # of squared distances by products in float64, relative to the squared norms: some 4000 epsilon
NEAREST = 3  # k of precision and recall, as in arXiv:1904.06991
NEAREST_OF_DENSITY = 5  # k of density and coverage, as in arXiv:2002.09797


@dataclass(frozen=True, eq=False)
class Moments:
    """Of a set of features: what the Frechet distance needs of it. `covariance` (d, d) is over count - 1."""

    count: int
    mean: Features
    covariance: Features

    @cached_property
    def root(self) -> Features:
        """The symmetric root of the covariance; rounding makes eigenvalues of 0 slightly negative."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: Features = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
        return root


def moments(parts: Iterable[NDArray[Any]]) -> Moments:
    """Of all rows of `parts`, each (n_i, d), added in their order; holds one part at a time.

    Each part is centred before it is added (Chan, Golub and LeVeque 1979, Eq. 2.1), so that no digits are lost where
    the mean is large. Raises DataError on fewer than 2 rows, on rows of other widths and on values that are not finite.
    """
    count, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for part in parts:
        rows = np.asarray(part, np.float64)
        _check_part(rows, None if not count else len(mean))
        if not len(rows):
            continue
        part_mean = rows.mean(axis=0)
        centred = rows - part_mean
        part_scatter = centred.T @ centred
        if not count:
            count, mean, scatter = len(rows), part_mean, part_scatter
            continue
        total, shift = count + len(rows), part_mean - mean
        scatter += part_scatter + np.outer(shift, shift) * (count * len(rows) / total)
        mean = mean + shift * (len(rows) / total)
        count = total
    if count < 2:
        raise DataError(f"features of {count} images cannot be compared; needed: 2 or more")
    return Moments(count, mean, scatter / (count - 1))


def frechet(a: Features, b: Features) -> float:
    """`frechet_of` the moments of two sets of features. Raises DataError on what cannot be compared."""
    _check(a, b)
    return frechet_of(moments([a]), moments([b]))


def frechet_of(a: Moments, b: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) of the means and covariances (FID's, arXiv:1706.08500).

    The last trace is the sum of the singular values of C1^1/2 C2^1/2 (their squares are the eigenvalues of the product
    above), with the roots by eigh: unlike a root of the product C1 C2, this holds for the rank-deficient covariances of
    ReLU features.
    """
    means = float(np.sum((a.mean - b.mean) ** 2))
    cross = float(np.linalg.svd(a.root @ b.root, compute_uv=False).sum())
    return max(0.0, means + float(np.trace(a.covariance) + np.trace(b.covariance)) - 2.0 * cross)


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
    _check_neighbours("precision and recall", real, fake, k)
    return float((_balls(real, fake, k)[0] > 0).mean()), float((_balls(fake, real, k)[0] > 0).mean())


def density_coverage(real: Features, fake: Features, *, k: int = NEAREST_OF_DENSITY) -> tuple[float, float]:
    """(density, coverage) of arXiv:2002.09797, Eq. 5 and 6, with the balls of `precision_recall` around `real` alone.

    Density: in how many balls an image of `fake` lies, over k; 1 where both sets are alike, and more where `fake` is in
    the thick of `real`. Coverage: the share of the balls that hold an image of `fake`; of sets that are alike and of
    the same size 1 - 2^-k, so give sets of the same size. Raises DataError on k or fewer rows.
    """
    _check(real, fake)
    _check_neighbours("density and coverage", real, fake, k)
    of_points, of_balls = _balls(real, fake, k)
    return float(of_points.mean() / k), float((of_balls > 0).mean())


def _check(a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features of shapes {a.shape} and {b.shape} cannot be compared; needed: (n, d) and (m, d)")
    if min(len(a), len(b)) < 2:
        raise DataError(f"features of {len(a)} and {len(b)} images cannot be compared; needed: 2 or more of each")
    for rows in (a, b):
        _check_part(rows, None)


def _check_part(rows: Features, width: int | None) -> None:
    if rows.ndim != 2 or width not in (None, rows.shape[1]):
        raise DataError(f"features of shape {rows.shape} cannot be added to others; needed: (n, {width or 'd'})")
    if not np.isfinite(rows).all():
        raise DataError("features hold values that are not finite, so the sets cannot be compared")


def _check_neighbours(names: str, real: Features, fake: Features, k: int) -> None:
    if min(len(real), len(fake)) <= k:
        raise DataError(f"{names} need more than k = {k} images; found {len(real)} real, {len(fake)} fake")


def _kernel(products: Features, width: int) -> Features:
    base = products / width + 1.0
    return base * base * base  # `** 3` takes seven times as long


def _kernel_sum(a: Features, b: Features) -> float:
    blocks = (a[start : start + BLOCK] for start in range(0, len(a), BLOCK))
    return float(sum(_kernel(block @ b.T, a.shape[1]).sum() for block in blocks))


def _balls(centres: Features, points: Features, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In how many balls each of `points` lies, and how many points lie in each ball.

    A ball is around one of `centres` and reaches to its k-th nearest other one.
    """
    queries, references = (torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in (points, centres))
    radii = []
    for start in range(0, len(references), BLOCK):
        squares = _squared_distances(references[start : start + BLOCK], references)
        squares.diagonal(start).fill_(torch.inf)  # a point is not its own neighbour
        radii.append(squares.topk(k, dim=1, largest=False).values.max(dim=1).values)
    # Products round where differences would not: a point on the edge, or equal to a centre, counts as inside.
    reach = torch.cat(radii) + ROUNDING * (queries.square().sum(dim=1).max() + references.square().sum(dim=1).max())
    of_points, of_balls = [], torch.zeros(len(references), dtype=torch.int64)
    for block in torch.split(queries, BLOCK):
        inside = _squared_distances(block, references) <= reach
        of_points.append(inside.sum(dim=1))
        of_balls += inside.sum(dim=0)
    return torch.cat(of_points).numpy(), of_balls.numpy()


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2.0).add_(a.square().sum(dim=1)[:, None])
