"""NumPy files: the usual names, shapes and types; everything else is refused with the line that converts it."""

from pathlib import Path

import numpy as np
import pytest

from edgegen.data import load, split
from edgegen.data.npz import KEYS
from edgegen.errors import DataError

FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion_mnist.npz"
GREY = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def save(tmp_path: Path, **arrays: object) -> Path:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: keys[0][0] + "+" + keys[0][1])
def test_the_usual_names(tmp_path: Path, keys: tuple[tuple[str, str], tuple[str, str]]) -> None:
    (images, labels), (test_images, test_labels) = keys
    arrays = {images: GREY, labels: np.array([5, 3, 5])}
    if test_images:
        arrays |= {test_images: GREY[:2], test_labels: np.array([3, 5])}
    dataset = load("x.npz", base=save(tmp_path, **arrays))
    np.testing.assert_array_equal(dataset.images, GREY[..., None])
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.classes, dataset.source) == ([1, 0, 1], ("3", "5"), "x.npz")
    if test_images:
        train, held = split(dataset, holdout=0.5, seed=0)
        assert (len(train), len(held)) == (3, 2)
        assert held.labels is not None
        assert held.labels.tolist() == [0, 1]


def test_colour_no_labels_column_labels_and_names(tmp_path: Path) -> None:
    colour = np.zeros((2, 4, 5, 3), np.uint8)
    dataset = load("x.npz", base=save(tmp_path, images=colour))
    assert (dataset.images.shape, dataset.labels, dataset.classes) == ((2, 4, 5, 3), None, ())
    dataset = load("x.npz", base=save(tmp_path, x=GREY, y=np.array([[1], [0], [1]])))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1]
    assert load("x.npz", base=save(tmp_path, x=GREY, y=np.array(["b", "a", "b"]))).classes == ("a", "b")
    np.savez_compressed(tmp_path / "x.npz", images=GREY)
    assert len(load("x.npz", base=tmp_path)) == 3


UNIT = GREY / 255.0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": GREY}, r"no images under a known name; found pictures; known: train_images \+ train_labels"),
        ({"images": UNIT}, r"'images' is float64 with values 0 to 0\.23.*Convert: \(np\.rint\(x \* 255\)\)\.astype"),
        ({"images": (UNIT * 2 - 1).astype(np.float32)}, r"values -1 to .*\(np\.rint\(\(x \+ 1\) \* 127\.5\)\)"),
        ({"images": GREY.astype(np.float32)}, r"float32 with values 0 to 59.*\(np\.rint\(x\)\.clip\(0, 255\)\)"),
        ({"images": GREY.astype(np.int64)}, r"'images' is int64 with values 0 to 59; needed: uint8"),
        ({"images": GREY > 3}, r"bool with values 0 to 1.*\(x \* 255\)"),
        ({"images": np.array(["a", "b"])}, r"'images' is <U1; needed: uint8, 0 to 255$"),
        ({"images": GREY.reshape(3, 20)}, r"'images' has shape \(3, 20\); needed: \(n, height, width\)"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"channels come first; needed: .*x\.transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, r"4 channels; needed: 1 or 3\. Without the alpha"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8)}, r"2 channels; needed: 1 \(grey\) or 3"),
        ({"images": GREY[:1]}, r"x\.npz: 1 image\(s\); at least 2"),
        ({"images": GREY, "labels": np.array([0, 1])}, "2 labels for 3 images"),
        ({"images": GREY, "labels": np.array([0, 1, -1])}, "label -1 of image 2 is negative"),
        ({"images": GREY, "labels": np.array([0.0, 1.0, 2.0])}, r"'labels' is float64 \(3,\); needed: whole numbers"),
        ({"images": GREY, "labels": np.eye(3, dtype=np.int64)}, r"\(3, 3\).*one-hot.*argmax"),
        ({"x_train": GREY, "y_train": np.arange(3), "x_test": GREY}, "the test part has no labels"),
        ({"x_train": GREY, "y_train": np.zeros(3, int), "x_test": GREY, "y_test": np.arange(3)}, "'1' is in the test"),
        ({"x_train": GREY, "x_test": GREY.transpose(0, 2, 1)}, r"\(4, 5, 1\) in the training part, \(5, 4, 1\) in the"),
    ],
)
def test_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load("x.npz", base=save(tmp_path, **arrays))


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "x.npz", images=np.array([Trap(), GREY], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="'images' is an array of Python objects, which only pickle could read"):
        load("x.npz", base=tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_corrupt_files_name_the_member(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"x\.npz: not an \.npz file, or cut short"):
        load("x.npz", base=tmp_path)
    np.savez_compressed(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (9, 9, 9), dtype=np.uint8))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match="cut short"):
        load("x.npz", base=tmp_path)
    (tmp_path / "x.npz").write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(DataError, match=r"x\.npz: 'images' is corrupt"):
        load("x.npz", base=tmp_path)


def test_a_header_that_claims_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    shape = (10**9, 10**6, 10**3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(10))
    with pytest.raises(DataError, match="'images' is corrupt"):
        load("x.npz", base=tmp_path)
    monkeypatch.setattr("edgegen.data.npz.MAX_BYTES", 100)
    with pytest.raises(DataError, match=r"'images' unpacks to .* GiB, the limit is"):
        load("x.npz", base=tmp_path)


@pytest.mark.skipif(not FASHION.exists(), reason="needs ../shared/data/fashion_mnist.npz")
def test_fashion_mnist() -> None:
    dataset = load(str(FASHION), base=Path())
    assert dataset.images.shape == (60_000, 28, 28, 1)
    train, held = split(dataset, holdout=0.5, seed=0)
    assert held.images.shape == (10_000, 28, 28, 1)
    assert held.labels is not None
    assert np.bincount(held.labels).tolist() == [1000] * 10
    assert train.classes == tuple("0123456789")
