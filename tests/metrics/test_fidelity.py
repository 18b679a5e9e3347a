"""PSNR and SSIM against the true image."""

import numpy as np
import pytest
import torch

from edgegen.metrics.fidelity import fidelity


def test_against_the_formula() -> None:
    truths = (torch.randint(256, (2, 3, 16, 16)) / 127.5 - 1).float()
    images = truths.clone()
    images[1, 0, 0, 0] += 0.8 if images[1, 0, 0, 0] < 0 else -0.8
    (equal, psnr_db), (one, similarity) = fidelity(images, truths).T
    assert equal > 100
    assert one == pytest.approx(1.0)
    steps = round(0.8 * 127.5)  # a screen shows whole steps of 255
    assert psnr_db == pytest.approx(10 * np.log10(255**2 / (steps**2 / 768)), abs=0.01)
    assert 0.5 < similarity < 1


def test_images_beyond_the_range_are_cut_and_small_ones_have_no_ssim() -> None:
    ((psnr_db, similarity),) = fidelity(torch.full((1, 1, 8, 8), 1.7), torch.ones(1, 1, 8, 8))
    assert psnr_db > 100
    assert np.isnan(similarity)
