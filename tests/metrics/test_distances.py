"""Distances against independent references: closed forms, scipy's matrix root, and slow double loops in float64."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.linalg
import torch

from edgegen.errors import DataError
from edgegen.metrics import density_coverage, frechet, frechet_of, kernel_distance, moments, precision_recall
from edgegen.metrics import distances as module


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def relu_features(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rank-deficient on purpose: 12 features made from 3, of which 4 never fire."""
    features = np.maximum(rng.normal(size=(n, 3)) @ rng.normal(size=(3, 12)), 0)
    features[:, 3:7] = 0
    return features


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = np.cov(a.T), np.cov(b.T)
    root = np.real(scipy.linalg.sqrtm(c1 @ c2))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * root))


def test_frechet_equals_scipys_root_on_full_rank(rng: np.random.Generator) -> None:
    a = rng.normal(size=(200, 9)) @ rng.normal(size=(9, 9)) + 3
    b = rng.normal(size=(150, 9)) @ rng.normal(size=(9, 9))
    assert frechet(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def whitened(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Samples whose mean is exactly 0 and whose covariance is exactly 1."""
    x = rng.normal(size=(n, d))
    x -= x.mean(axis=0)
    return np.asarray(x @ np.linalg.inv(scipy.linalg.cholesky(np.cov(x.T))))


def test_frechet_of_diagonal_gaussians_in_closed_form(rng: np.random.Generator) -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    m1, m2, s1, s2 = rng.normal(size=5), rng.normal(size=5), rng.uniform(size=5), rng.uniform(size=5)
    s1[0] = s2[1] = 0.0
    a, b = whitened(rng, 50, 5) * s1 + m1, whitened(rng, 70, 5) * s2 + m2
    assert frechet(a, b) == pytest.approx(((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum(), rel=1e-10)


def test_frechet_of_one_feature(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(40, 1)), rng.normal(size=(30, 1)) * 2 + 1
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet(a, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_of_a_set_with_itself_is_zero_also_where_rank_is_missing(rng: np.random.Generator) -> None:
    full, poor = rng.normal(size=(100, 12)) * 50, relu_features(rng, 100)
    few = rng.normal(size=(5, 12))
    for a in (full, poor, few):
        scale = float(np.trace(np.cov(a.T)))
        assert 0.0 <= frechet(a, a) < 1e-12 * scale
        assert frechet(a, a + 1.0) == pytest.approx(12.0, rel=1e-9)


def test_frechet_of_rank_deficient_features_is_that_of_their_span(rng: np.random.Generator) -> None:
    """Features in a 3-dimensional subspace: turning them into it leaves full-rank sets, which sqrtm can do."""
    turn = scipy.linalg.qr(rng.normal(size=(12, 12)))[0]
    a, b = rng.normal(size=(80, 3)) * [1, 2, 3], rng.normal(size=(60, 3)) + 1
    wide = [np.hstack([x, np.zeros((len(x), 9))]) @ turn for x in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet(wide[0], wide[1]) == pytest.approx(by_sqrtm(a, b), rel=1e-7)


def slow_kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((float(np.dot(x, y)) / len(x) + 1) ** 3)

    m, n = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_b = sum(k(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (m * n)


@pytest.mark.parametrize("block", [1, 7, 256])
def test_kernel_distance_equals_the_double_loop(
    rng: np.random.Generator, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    a, b = relu_features(rng, 40), relu_features(rng, 31) + 0.3
    assert kernel_distance(a, b) == pytest.approx(slow_kernel_distance(a, b), rel=1e-10)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a), rel=1e-10)


def test_kernel_distance_is_unbiased(rng: np.random.Generator) -> None:
    """Its mean over many draws of one distribution is 0 within 4 standard errors, although single ones are not."""
    draws = np.array([kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(400)])
    assert abs(draws.mean()) < 4 * draws.std() / 20
    assert draws.min() < 0 < draws.max()


def slow_share_inside(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    inside = 0
    radii = []
    for i, centre in enumerate(centres):
        others = sorted(float(np.linalg.norm(centre - c)) for j, c in enumerate(centres) if j != i)
        radii.append(others[k - 1])
    for point in points:
        inside += any(float(np.linalg.norm(point - c)) <= radius for c, radius in zip(centres, radii, strict=True))
    return inside / len(points)


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_equals_the_loops(
    rng: np.random.Generator, block: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    real, fake = rng.normal(size=(60, 4)), rng.normal(size=(45, 4)) * 0.7 + 0.8
    shares = precision_recall(real, fake, k=k)
    assert shares == (slow_share_inside(fake, real, k), slow_share_inside(real, fake, k))
    assert 0 < shares[1] < shares[0] < 1


def test_precision_recall_with_points_on_edges_and_on_each_other(rng: np.random.Generator) -> None:
    """Whole numbers: many equal points, balls of radius 0, and points exactly on the edge of a ball."""
    real = rng.integers(0, 4, (50, 2)).astype(np.float64) + 1000
    fake = rng.integers(2, 7, (40, 2)).astype(np.float64) + 1000
    assert precision_recall(real, fake) == (slow_share_inside(fake, real, 3), slow_share_inside(real, fake, 3))
    same = np.ones((9, 5)) * 0.1
    assert precision_recall(same, same) == (1.0, 1.0)
    assert precision_recall(same, same + 1e-4) == (0.0, 0.0)


def test_balls_of_radius_zero_hold_their_centre_although_products_round(rng: np.random.Generator) -> None:
    for count in (5, 41, 301):
        for width in (64, 65):
            for _ in range(4):
                points = rng.normal(size=(count, width)) * 7 + 30
                assert precision_recall(np.repeat(points, 5, axis=0), points)[0] == 1.0


def test_precision_recall_of_known_answers(rng: np.random.Generator) -> None:
    real = rng.normal(size=(300, 8))
    assert precision_recall(real, real.copy()) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    two_modes = np.vstack([real, real + 100])
    assert precision_recall(two_modes, real) == (1.0, 0.5)
    assert precision_recall(real, two_modes) == (0.5, 1.0)


@pytest.mark.parametrize("distance", [frechet, kernel_distance, precision_recall, density_coverage])
def test_what_cannot_be_compared(distance: object) -> None:
    assert callable(distance)
    good = np.random.default_rng(0).normal(size=(9, 3))
    with pytest.raises(DataError, match=r"shapes \(9, 3\) and \(9, 2\) cannot be compared"):
        distance(good, good[:, :2])
    with pytest.raises(DataError, match=r"shapes \(9,\) and"):
        distance(good[:, 0], good)
    with pytest.raises(DataError, match="of 9 and 1 images cannot be compared; needed: 2 or more"):
        distance(good, good[:1])
    with pytest.raises(DataError, match="not finite"):
        distance(good, np.full((9, 3), np.nan))
    with pytest.raises(DataError, match="more than k = 3 images; found 9 real, 3 fake"):
        precision_recall(good, good[:3])
    with pytest.raises(DataError, match="density and coverage need more than k = 5 images; found 5 real, 9 fake"):
        density_coverage(good[:5], good)


def test_moments_do_not_depend_on_how_the_rows_are_divided(rng: np.random.Generator) -> None:
    """Also far from 0, where sums of squares would lose half of their digits."""
    rows = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 1e6
    whole = np.cov(rows, rowvar=False)
    for sizes in ((500,), (1, 499), (7,) * 71 + (3,), (250, 0, 250)):
        parts = np.split(rows, np.cumsum(sizes)[:-1])
        streamed = moments(part for part in parts)
        assert streamed.count == 500
        np.testing.assert_allclose(streamed.mean, rows.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(streamed.covariance, whole, rtol=1e-8)
    other = rng.normal(size=(90, 6)) + 1e6
    assert frechet_of(streamed, moments([other])) == pytest.approx(frechet(rows, other), rel=1e-6)


def test_moments_hold_one_part_at_a_time() -> None:
    alive: list[int] = []

    class Part(np.ndarray):
        def __del__(self) -> None:
            if self.base is None:
                alive.remove(id(self))

    def parts() -> Iterator[np.ndarray]:
        for _ in range(20):
            part = np.ones((50, 3)).view(Part).copy()
            alive.append(id(part))
            assert len(alive) <= 2
            yield part

    assert moments(parts()).count == 1000


def test_moments_of_what_has_none() -> None:
    with pytest.raises(DataError, match="features of 1 images cannot be compared; needed: 2 or more"):
        moments([np.ones((1, 3))])
    with pytest.raises(DataError, match=r"features of shape \(2, 4\) cannot be added to others; needed: \(n, 3\)"):
        moments([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(DataError, match="not finite"):
        moments([np.ones((2, 3)), np.full((2, 3), np.inf)])


def slow_density_coverage(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Eq. 5 and 6 of arXiv:2002.09797, as they are written."""
    radii = []
    for i, x in enumerate(real):
        radii.append(sorted(float(np.linalg.norm(x - other)) for j, other in enumerate(real) if j != i)[k - 1])
    inside = [[float(np.linalg.norm(y - x)) <= radius for x, radius in zip(real, radii, strict=True)] for y in fake]
    density = sum(sum(row) for row in inside) / (k * len(fake))
    coverage = sum(any(row[i] for row in inside) for i in range(len(real))) / len(real)
    return density, coverage


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("k", [1, 5])
def test_density_coverage_equals_the_loops(
    rng: np.random.Generator, block: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    real, fake = rng.normal(size=(60, 4)), rng.normal(size=(45, 4)) * 0.7 + 0.3
    assert density_coverage(real, fake, k=k) == pytest.approx(slow_density_coverage(real, fake, k))


def test_density_coverage_of_sets_that_are_alike_and_of_fewer_modes(rng: np.random.Generator) -> None:
    """The expectations of arXiv:2002.09797: density 1, coverage 1 - 2^-k; and what either notices."""
    real, alike = rng.normal(size=(2, 600, 8))
    density, coverage = density_coverage(real, alike)
    assert density == pytest.approx(1.0, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)
    modes = np.vstack([real[:300], real[300:] + 100])
    assert density_coverage(modes, np.vstack([alike[:300], alike[300:] + 100]))[1] > 0.9
    assert density_coverage(modes, alike)[1] == pytest.approx(0.5, abs=0.02)
    coverages = [density_coverage(real, np.resize(alike[:distinct], (600, 8)))[1] for distinct in (600, 200, 60, 6)]
    assert coverages == sorted(coverages, reverse=True)
    noisy = [density_coverage(real, alike + size * rng.normal(size=alike.shape))[0] for size in (0.0, 0.5, 1.0, 2.0)]
    assert noisy == sorted(noisy, reverse=True)


def test_memory_is_bounded_by_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of all pairs: the largest product has BLOCK rows."""
    rows: list[int] = []
    original = torch.addmm

    def counting(bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **options: float) -> torch.Tensor:
        rows.append(len(a))
        return original(bias, a, b, **options)

    monkeypatch.setattr(torch, "addmm", counting)
    precision_recall(rng.normal(size=(700, 4)), rng.normal(size=(600, 4)))
    assert max(rows) == module.BLOCK
