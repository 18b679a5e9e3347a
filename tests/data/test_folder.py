"""Folders and zips of images give the same set; what is unclear in them is refused by name."""

import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegen.data import ImageSet, load, split
from edgegen.data import folder as folder_loader
from edgegen.errors import DataError

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg75_test.zip"
CIFAR_TRAIN = CIFAR.with_name("cifar10_jpeg75_train.zip")


def image_file(
    mode: str = "L", size: tuple[int, int] = (6, 4), colour: object = 7, kind: str = "png", **options: object
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def grey(value: int) -> bytes:
    return image_file(colour=value)


def as_folder(tmp_path: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = tmp_path / "set" / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return "set"


def as_zip(tmp_path: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return "set.zip"


Maker = Callable[[Path, dict[str, bytes]], str]
both = pytest.mark.parametrize("make", [as_folder, as_zip], ids=["folder", "zip"])


def labels(dataset: ImageSet) -> list[int]:
    assert dataset.labels is not None
    return dataset.labels.tolist()


@both
def test_one_folder_per_class_in_sorted_order(tmp_path: Path, make: Maker) -> None:
    files = {
        "b/2.png": grey(3),
        "a/9.JPG": image_file(kind="jpeg", colour=1),
        "b/10.bmp": image_file(kind="bmp", colour=2),
    }
    files |= {
        "a/notes.txt": b"x",
        ".DS_Store": b"x",
        "__MACOSX/a/._9.jpg": b"x",
        ".hidden/x.png": b"x",
        "labels.csv": b"x",
    }
    dataset = load(make(tmp_path, files), base=tmp_path)
    assert dataset.images.shape == (3, 4, 6, 1)
    assert dataset.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert (labels(dataset), dataset.classes) == ([0, 1, 1], ("a", "b"))
    assert dataset.source == Path(make(tmp_path, files)).name


@both
def test_no_sub_folders_is_a_set_without_labels(tmp_path: Path, make: Maker) -> None:
    dataset = load(
        make(tmp_path, {f"{i}.webp": image_file("RGB", colour=(i, 0, 0), kind="webp") for i in range(3)}), base=tmp_path
    )
    assert (dataset.images.shape, dataset.labels, dataset.classes) == ((3, 4, 6, 3), None, ())


@both
def test_numbers_as_classes_come_by_value_and_a_wrapper_is_seen_through(tmp_path: Path, make: Maker) -> None:
    dataset = load(make(tmp_path, {f"my set/{i}/x.png": grey(i) for i in (10, 9, 1)}), base=tmp_path)
    assert dataset.classes == ("1", "9", "10")
    assert dataset.images[:, 0, 0, 0].tolist() == [1, 9, 10]


@both
@pytest.mark.parametrize("wrapper", ["", "set/"])
def test_train_and_test_parts(tmp_path: Path, make: Maker, wrapper: str) -> None:
    names = ["train/a/0", "train/a/1", "train/b/2", "train/c/3", "test/c/4", "test/b/5"]
    dataset = load(make(tmp_path, {f"{wrapper}{name}.png": grey(int(name[-1])) for name in names}), base=tmp_path)
    train, held = split(dataset, holdout=0.5, seed=0)
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert held.images[:, 0, 0, 0].tolist() == [5, 4]
    assert (labels(train), labels(held), held.classes) == ([0, 0, 1, 2], [1, 2], ("a", "b", "c"))


@both
def test_layouts_that_are_neither(tmp_path: Path, make: Maker) -> None:
    with pytest.raises(DataError, match=r"found x\.png and a/y\.png; needed: one sub-folder per class"):
        load(make(tmp_path, {"x.png": grey(1), "a/y.png": grey(1)}), base=tmp_path)


@both
def test_a_layout_too_deep(tmp_path: Path, make: Maker) -> None:
    with pytest.raises(DataError, match=r"found a/b/y\.png; needed: one sub-folder per class"):
        load(make(tmp_path, {"a/b/y.png": grey(1), "c/d/y.png": grey(1)}), base=tmp_path)


@both
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/x.png": grey(1), "a/y.png": grey(1), "empty/": b""}, "class 'empty' has no images; add some, or remove"),
        ({"a/x.png": grey(1), "a/y.png": grey(1), "docs/readme.txt": b""}, "class 'docs' has no images"),
        ({"a/readme.txt": b"", "b.csv": b""}, r"no images \(\.png, .*\); found a/readme\.txt, b\.csv"),
        ({"only/": b""}, "no images .*; found no files at all"),
        ({"a.tiff": b"", "b.png": grey(1)}, r"a\.tiff is of a kind that is not read; convert it to one of \.png"),
        ({"x.png": grey(1)}, r"1 image\(s\); at least 2"),
        (
            {"a/x.png": grey(1), "b/y.png": image_file(size=(8, 4))},
            r"differ in size .*a/x\.png is 6x4, b/y\.png is 8x4; resize them to one size first, such as: mogrify",
        ),
        ({"a/x.png": grey(1), "a/y.png": grey(1)[:-30]}, r"a/y\.png: not a whole image file"),
        ({"x.png": grey(1), "y.jpg": image_file(size=(64, 64), kind="jpeg")[:-90]}, r"y\.jpg: not a whole image file"),
        ({"x.png": grey(1), "y.png": b""}, r"y\.png: not a whole image file"),
        ({"x.png": grey(1), "y.png": b"GIF89a text"}, r"y\.png: not a whole image file"),
        (
            {"x.png": image_file("RGBA", colour=(1, 2, 3, 254))},
            r"has transparent pixels; put it on a background",
        ),
        ({"x.png": image_file("LA", colour=(1, 0))}, r"x\.png: has transparent pixels"),
        ({"x.png": image_file("P", colour=0, transparency=0)}, r"x\.png: has transparent pixels"),
        ({"x.png": image_file("L", colour=5, transparency=5)}, r"x\.png: has transparent pixels"),
        ({"x.png": image_file("I;16", colour=500)}, r"x\.png: more than 8 bits a channel \(mode I;16\)"),
        ({"x.png": image_file(size=(4097, 1))}, r"x\.png: 4097x1 pixels; the limit is 4096"),
    ],
)
def test_refusals(tmp_path: Path, make: Maker, files: dict[str, bytes], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(make(tmp_path, files), base=tmp_path)


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (i, i, i)) for i in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "webp", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"x\.webp: an animation of 2 frames; save the frames"):
        load(as_folder(tmp_path, {"x.webp": file.getvalue()}), base=tmp_path)


def first(tmp_path: Path, content: bytes, suffix: str = "png") -> np.ndarray:
    return load(as_folder(tmp_path, {f"{i}.{suffix}": content for i in range(2)}), base=tmp_path).images[0]


@pytest.mark.parametrize(
    ("content", "pixel"),
    [
        (image_file("1", colour=1), [255]),
        (image_file("L", colour=9), [9]),
        (image_file("LA", colour=(9, 255)), [9]),
        (image_file("RGB", colour=(1, 2, 3)), [1, 2, 3]),
        (image_file("RGB", colour=(1, 2, 3), transparency=(9, 9, 9)), [1, 2, 3]),
        (image_file("RGBA", colour=(1, 2, 3, 255)), [1, 2, 3]),
        (image_file("P", colour=0), [0, 0, 0]),
        (image_file("CMYK", colour=(0, 0, 0, 0), kind="jpeg"), [255, 255, 255]),
    ],
)
def test_modes(tmp_path: Path, content: bytes, pixel: list[int]) -> None:
    dataset = first(tmp_path, content, "jpg" if content[:2] == b"\xff\xd8" else "png")
    assert dataset.shape == (4, 6, len(pixel))
    assert dataset[0, 0].tolist() == pixel


def test_grey_among_colour_is_repeated(tmp_path: Path) -> None:
    files = {"0.png": grey(9), "1.png": image_file("RGB", colour=(1, 2, 3)), "2.png": grey(8)}
    dataset = load(as_folder(tmp_path, files), base=tmp_path)
    assert dataset.images[:, 3, 5].tolist() == [[9, 9, 9], [1, 2, 3], [8, 8, 8]]


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    file = io.BytesIO()
    image.save(file, "jpeg", exif=exif.tobytes(), quality=95)
    dataset = first(tmp_path, file.getvalue(), "jpg")
    assert dataset.shape == (16, 8, 3)
    assert dataset[:8].min() > 250
    assert dataset[8:].max() < 5


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (20, 5):  # 24 pixels: a warning of Pillow's, then an error of Pillow's
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"0\.png: refused, a decompression bomb"):
            first(tmp_path, grey(1))


def test_broken_camera_data_is_no_concern(tmp_path: Path) -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01\x03\x00"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first(tmp_path, image_file("RGB", colour=(9, 9, 9), kind="jpeg", exif=exif), "jpg").shape == (4, 6, 3)


def test_progress_counts_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegen.data.pixels.REPORT_EVERY", 4)
    seen: list[tuple[int, int]] = []
    files = {f"{i}.png": grey(i) for i in range(10)}
    load(as_zip(tmp_path, files), base=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_links_are_followed_and_a_loop_ends(tmp_path: Path) -> None:
    as_folder(tmp_path, {"a/x.png": grey(1)})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "y.png").write_bytes(grey(2))
    (tmp_path / "set" / "b").symlink_to(tmp_path / "other")
    assert load("set", base=tmp_path).classes == ("a", "b")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    with pytest.raises(DataError, match=r"a/up: leads to .*set, whose files would be read twice; remove the link"):
        load("set", base=tmp_path)


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_names_that_point_outside_the_zip(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"member '.*evil\.png' points outside the zip"):
        load(as_zip(tmp_path, {name: grey(1), "x.png": grey(1)}), base=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_a_zip_of_windows_and_one_with_dots(tmp_path: Path) -> None:
    assert load(as_zip(tmp_path, {"a\\x.png": grey(1), "./b/y.png": grey(2)}), base=tmp_path).classes == ("a", "b")


def test_zip_bombs_and_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("x.png", grey(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.png", grey(2))
    with pytest.raises(DataError, match=r"member 'x\.png' is there twice"):
        load("set.zip", base=tmp_path)
    monkeypatch.setattr(folder_loader, "LARGEST_IMAGE", 1000)
    with pytest.raises(DataError, match=r"member 'x\.png' unpacks to 1000000 bytes; an image has at most 1000"):
        load(as_zip(tmp_path, {"x.png": bytes(1_000_000), "y.png": grey(1)}), base=tmp_path)


def test_corrupt_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("x.png", grey(1))
        archive.writestr("y.png", grey(2))
    whole = bytearray((tmp_path / "set.zip").read_bytes())
    (tmp_path / "set.zip").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"set\.zip: not a zip file, or cut short"):
        load("set.zip", base=tmp_path)
    place = whole.index(b"IDAT")
    whole[place + 6] ^= 0xFF
    (tmp_path / "set.zip").write_bytes(whole)
    with pytest.raises(DataError, match=r"member 'x\.png' is corrupt \(Bad CRC-32"):
        load("set.zip", base=tmp_path)


def test_a_zip_with_a_password(tmp_path: Path) -> None:
    as_zip(tmp_path, {"x.png": grey(1), "y.png": grey(1)})
    content = bytearray((tmp_path / "set.zip").read_bytes())
    content[6] |= 1  # the "encrypted" bit of the first member, here and in the central directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"member 'x\.png' cannot be read .*make the zip without a password"):
        load("set.zip", base=tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    as_folder(tmp_path, {"a.png": grey(1)})
    (tmp_path / "set" / "b.png").symlink_to("nothing")
    with pytest.raises(DataError, match=r"no file .*b\.png"):
        load("set", base=tmp_path)


@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10_jpeg75_test.zip")
def test_cifar(tmp_path: Path) -> None:
    with zipfile.ZipFile(CIFAR) as whole, zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        for name in [name for name in whole.namelist() if name.endswith(("00.jpg", "50.jpg"))]:
            few.writestr(name, whole.read(name))
        with Image.open(io.BytesIO(whole.read("dog/0050.jpg"))) as image:
            dog = np.asarray(image.convert("RGB"))
    dataset = load("few.zip", base=tmp_path)
    assert dataset.images.shape == (200, 32, 32, 3)
    assert dataset.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert labels(dataset) == np.repeat(np.arange(10), 20).tolist()
    np.testing.assert_array_equal(dataset.images[101], dog)
    train, held = split(dataset, holdout=0.25, seed=0)
    assert np.bincount(labels(held)).tolist() == [5] * 10
    assert len(train) == 150


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR_TRAIN.exists(), reason="needs ../shared/data/cifar10_jpeg75_train.zip")
def test_all_of_cifar() -> None:
    dataset = load(str(CIFAR_TRAIN), base=Path())
    assert dataset.images.shape == (50_000, 32, 32, 3)
    assert np.bincount(labels(dataset)).tolist() == [5000] * 10
