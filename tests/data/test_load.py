"""`load` finds the loader for what the recipe says, and helps where there is nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegen.data import SOURCES, load
from edgegen.errors import DataError


def test_digits_by_the_stated_formula() -> None:
    from sklearn.datasets import load_digits

    dataset = load("digits", base=Path("/nowhere"))
    values, labels = load_digits(return_X_y=True)
    assert dataset.images.shape == (1797, 8, 8, 1)
    exact = [int(value * 255 / 16 + 0.5) for value in range(17)]
    assert (exact[0], exact[8], exact[16]) == (0, 128, 255)
    np.testing.assert_array_equal(dataset.images.reshape(1797, 64), np.array(exact)[values.astype(int)])
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.classes, dataset.source, dataset.heldout) == (tuple("0123456789"), "digits", None)


def test_relative_places_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "digits").mkdir()
    for i in range(2):
        Image.new("L", (4, 4)).save(tmp_path / "digits" / f"{i}.png")
    assert len(load("x.npz", base=tmp_path)) == 3
    assert len(load(str(tmp_path / "x.npz"), base=Path("/elsewhere"))) == 3
    assert len(load("./digits", base=tmp_path)) == 2
    assert len(load("digits", base=tmp_path)) == 1797


def test_nothing_there_names_what_is_near(tmp_path: Path) -> None:
    np.savez(tmp_path / "fashion_mnist.npz", images=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"'fashion-mnist\.npz': nothing at .*Did you mean 'fashion_mnist\.npz'\?"):
        load("fashion-mnist.npz", base=tmp_path)
    (tmp_path / "flowers.toml").write_text("")
    with pytest.raises(DataError, match=r"'flowers\.zip': nothing at \S+flowers\.zip\. A source is one of"):
        load("flowers.zip", base=tmp_path)
    with pytest.raises(DataError, match=r"'digit': nothing at .*Did you mean 'digits'\? A source is one of: digits"):
        load("digit", base=tmp_path)
    with pytest.raises(DataError, match=r"nothing at .*there is no folder .*deep"):
        load("deep/x.npz", base=tmp_path)


def test_an_unknown_kind_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(DataError) as caught:
        load("x.csv", base=tmp_path)
    assert "'x.csv' is a file of an unknown kind" in str(caught.value)
    assert all(look in str(caught.value) for look in SOURCES)


def test_a_missing_source_is_an_error_without_torch() -> None:
    code = "import sys, edgegen.data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
