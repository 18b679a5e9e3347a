"""`edgegen verify BUNDLE`: every kind of damage is refused by name, with the documented exit code."""

import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import bundled, edit_manifest, exported, hash_again, replace_file
from typer.testing import CliRunner

from edgegen.artifacts.bundle_check import raise_failed, verify_bundle
from edgegen.cli.main import app
from edgegen.errors import DataError, EdgegenError, ParityError, UsageError
from edgegen.formats.bundle import REMEDY
from edgegen.formats.bundle_folder import HASH, check_bundle
from edgegen.formats.bundle_zip import write_zip
from edgegen.formats.manifest import MANIFEST
from edgegen.support.progress import Silent

pytestmark = pytest.mark.usefixtures("in_process_of_module")
ONNX, PTE, MLPACKAGE = "net_onnx_fp32.onnx", "net_executorch_fp32.pte", "net_coreml_fp32.mlpackage"
GOLDEN = f"golden/{ONNX}.u8"
WEIGHTS = f"{MLPACKAGE}/Data/com.apple.CoreML/weights/weight.bin"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> Path:
    place = tmp_path_factory.mktemp("checked")
    return bundled(exported(place / "export"), place / "net")


@pytest.fixture(scope="module")
def other(bundle: Path) -> Path:
    """Of another network, whose files have the same names and sizes."""
    return bundled(exported(bundle.parent / "other-export", seed=1), bundle.parent / "other")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle, tmp_path / "net")
    return tmp_path / "net"


@pytest.fixture
def packed(bundle: Path, tmp_path: Path) -> Path:
    write_zip(bundle, tmp_path / "net.zip")
    return tmp_path / "net.zip"


def refused(path: Path) -> EdgegenError:
    """What the command ends with."""
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert isinstance(done.exception, EdgegenError), (done.exception, done.output)
    return done.exception


def flip(path: Path, position: int = -100) -> None:
    content = bytearray(path.read_bytes())
    content[max(position, -len(content))] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


FILES = [ONNX, PTE, WEIGHTS, GOLDEN, "README.md", "samples.png", MANIFEST, HASH]


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(copy: Path, file: str, damage: Callable[[Path], object]) -> None:
    damage(copy / file)
    error = refused(copy)
    assert (type(error), error.exit_code) == (DataError, 2)
    assert str(copy / file) in str(error)


@dataclass(frozen=True)
class Damage:
    """What is done to a bundle, and what the message says of it."""

    name: str
    do: Callable[[Path], object]
    message: str
    kind: type[EdgegenError] = DataError


def _edit(change: Change) -> Callable[[Path], object]:
    return lambda bundle: edit_manifest(bundle, change)


def _link(bundle: Path) -> None:
    (bundle / ONNX).rename(bundle.parent / "elsewhere.onnx")
    (bundle / ONNX).symlink_to(bundle.parent / "elsewhere.onnx")


def _link_folder(bundle: Path) -> None:
    (bundle / "golden").rename(bundle.parent / "elsewhere")
    (bundle / "golden").symlink_to(bundle.parent / "elsewhere")


def _swap(bundle: Path) -> None:
    first, second = bundle / ONNX, bundle / PTE
    first.rename(bundle / "third")
    second.rename(first)
    (bundle / "third").rename(second)


def _twice(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"name":', '"name": "mine",\n  "name":', 1))
    hash_again(bundle)


def _case(content: dict[str, Any]) -> None:
    content["files"].append({**content["files"][0], "path": content["files"][0]["path"].swapcase()})


def _huge(content: dict[str, Any]) -> None:
    content["signature"]["inputs"][0]["shape"] = ["batch_size", 1, 1 << 14, 1 << 14]


def _escape(path: str) -> Change:
    return lambda content: content["files"][0].update(path=path)


def _dark_golden(bundle: Path) -> None:
    replace_file(bundle, GOLDEN, bytes((bundle / GOLDEN).stat().st_size))


def _broken_onnx(bundle: Path) -> None:
    replace_file(bundle, ONNX, b"no protobuf")


DAMAGES = [
    Damage("a foreign file", lambda b: (b / "virus.so").write_bytes(b"x"), "virus.so: is not in manifest.json"),
    Damage("a hidden file", lambda b: (b / "golden" / ".x").write_bytes(b"x"), ".x: is not in manifest.json"),
    Damage("a file in a package", lambda b: (b / MLPACKAGE / "x").write_bytes(b""), "x: is not in manifest.json"),
    Damage("two files swapped", _swap, f"{ONNX}: has"),
    Damage("a link to a file", _link, f"{ONNX}: is a symbolic link"),
    Damage("a link to a folder", _link_folder, "golden: is a symbolic link"),
    Damage("a pipe", lambda b: os.mkfifo(b / "pipe"), "pipe: is a pipe; needed: a file"),
    Damage("a folder in place of a file", lambda b: ((b / ONNX).unlink(), (b / ONNX).mkdir()), f"{ONNX}: is missing"),
    Damage("an edited name", lambda b: edit_only(b, name="mine"), "manifest.json: was changed"),
    Damage("another hash file", lambda b: (b / HASH).write_text("0" * 64), "is not one line of sha256sum"),
    Damage("a hash file of hex alone", lambda b: (b / HASH).write_text("f" * 64 + "  other\n"), "is not one line"),
    Damage("a key that is there twice", _twice, "the key 'name' is there twice"),
    Damage("another version", _edit(lambda c: c.update(schema="edgegen.bundle/9")), "schema is 'edgegen.bundle/9'"),
    Damage("an unknown key", _edit(lambda c: c.update(run="rm")), "run: Extra inputs are not permitted"),
    Damage("a missing key", _edit(lambda c: c.pop("golden")), "golden: Field required"),
    Damage("another type", _edit(lambda c: c.update(name=3)), "name: Input should be a valid string"),
    Damage("no artifacts", _edit(lambda c: c.update(artifacts=[])), "artifacts: Tuple should have at least 1 item"),
    Damage("no object", lambda b: ((b / MANIFEST).write_text("[]"), hash_again(b)), "its schema is None"),
    Damage("deep lists", lambda b: ((b / MANIFEST).write_text("[" * 9999), hash_again(b)), "deeper than"),
    Damage("no JSON", lambda b: ((b / MANIFEST).write_text("mine"), hash_again(b)), "not JSON"),
    Damage("a path upwards", _edit(_escape("../../etc/passwd")), "files.0.path"),
    Damage("a path from the root", _edit(_escape("/etc/passwd")), "files.0.path"),
    Damage("a path of Windows", _edit(_escape("..\\x")), "files.0.path"),
    Damage("two names of one file", _edit(_case), "is there twice"),
    Damage("a file less in the list", _edit(lambda c: c["files"].pop(0)), "README.md: is not in manifest.json"),
    Damage("a wrong size", _edit(lambda c: c["artifacts"][0].update(nbytes=1)), f"{ONNX}: has 1 bytes, and its files"),
    Damage("a wrong hash", _edit(lambda c: c["artifacts"][0].update(sha256="0" * 64)), f"{ONNX}: its sha256 and that"),
    Damage("a wrong hash of a folder", _edit(lambda c: c["artifacts"][2].update(sha256="0" * 64)), "its SHA-256 as a"),
    Damage("an artifact twice", _edit(lambda c: c["artifacts"].append(c["artifacts"][0])), "is there twice"),
    Damage("fewer samples", _edit(lambda c: c["golden"]["samples"].pop()), "golden.shape: is [16, 8, 8, 1]"),
    Damage(
        "a class too many",
        _edit(lambda c: c["golden"]["samples"][0].update(label=10)),
        "labels of other than the 10 classes",
    ),
    Damage("a huge input", _edit(_huge), "their inputs are 4,294,967,312 numbers; at most 268,435,456 are read"),
    Damage("other colours", _edit(lambda c: c.update(colors="RGB")), "colors: is RGB, and an image has 1 channels"),
    Damage("class names", _edit(lambda c: c.update(class_names=["a"])), "class_names: are 1, and there are 10"),
    Damage("no image", _edit(lambda c: c["signature"]["outputs"][0].update(role="latent")), "no image as its one"),
    Damage("another input", _edit(lambda c: c["artifacts"][0]["inputs"].pop()), "inputs are other than those of the"),
    Damage("a floor of no number", _edit(lambda c: c["artifacts"][0]["golden"].update(floor_db=-1)), "floor_db"),
    Damage("golden images of nothing", _dark_golden, f"{ONNX}: failed, ", ParityError),
    Damage("a file that no runtime opens", _broken_onnx, f"{ONNX}: failed: ", ParityError),
]


def edit_only(bundle: Path, **values: object) -> None:
    """An edit by hand: the hash stays as it was."""
    content = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_refused_by_name(copy: Path, damage: Damage) -> None:
    damage.do(copy)
    error = refused(copy)
    assert type(error) is damage.kind, error
    assert error.exit_code == (4 if damage.kind is ParityError else 2)
    assert damage.message in str(error)


def test_the_files_of_another_network_do_not_make_the_golden_images(copy: Path, other: Path) -> None:
    """Every hash is right: only running the files shows it."""
    for file in (ONNX, PTE):
        replace_file(copy, file, (other / file).read_bytes())
    check_bundle(copy)
    checks = {check.file: check for check in verify_bundle(copy, progress=Silent())}
    assert {file: check.status for file, check in checks.items()} == {ONNX: "failed", PTE: "failed", MLPACKAGE: "ok"}
    assert all(check.psnr_db is not None and check.psnr_db < check.floor_db for check in (checks[ONNX], checks[PTE]))
    with pytest.raises(ParityError, match=rf"not the golden images:\n  {ONNX}: failed, .*\n  {PTE}: failed"):
        raise_failed(copy, list(checks.values()))


def test_one_wrong_image_of_all_is_seen(copy: Path) -> None:
    images = np.fromfile(copy / GOLDEN, np.uint8).reshape(16, 64)
    images[7] = 255 - images[7]
    replace_file(copy, GOLDEN, images.tobytes())
    with pytest.raises(ParityError, match=rf"{ONNX}: failed, .* dB at worst, floor 40"):
        raise_failed(copy, verify_bundle(copy, progress=Silent()))


def test_all_that_is_wrong_is_named_at_once(copy: Path) -> None:
    flip(copy / ONNX)
    (copy / PTE).unlink()
    with pytest.raises(DataError, match=rf"not as written:\n  .*{PTE}: is missing\n  .*{ONNX}: does not hold"):
        check_bundle(copy)


def test_a_single_fault_says_what_to_do(copy: Path) -> None:
    (copy / "foreign.txt").write_text("")
    with pytest.raises(DataError, match=rf"foreign.txt: is not in manifest.json; {REMEDY}"):
        check_bundle(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match=rf"manifest.json: is missing; {REMEDY}"):
        check_bundle(copy)
    with pytest.raises(DataError, match=r"nowhere: no bundle is there; give a folder or .zip that `edgegen bundle`"):
        check_bundle(copy / "nowhere")


def test_a_bundle_of_the_hub_has_further_files_of_its_own(copy: Path) -> None:
    (copy / ".gitattributes").write_text("*.onnx filter=lfs")
    (copy / ".cache" / "huggingface").mkdir(parents=True)
    (copy / ".cache" / "huggingface" / "x").write_text("")
    check_bundle(copy)


def test_a_zip_is_checked_like_the_folder(packed: Path, bundle: Path) -> None:
    assert {check.status for check in verify_bundle(packed, progress=Silent())} == {"ok"}
    names = zipfile.ZipFile(packed).namelist()
    assert names == sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())


def rewritten(packed: Path, change: Callable[[zipfile.ZipInfo, bytes], "list[tuple[zipfile.ZipInfo, bytes]]"]) -> None:
    """The zip with other entries."""
    with zipfile.ZipFile(packed) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(packed, "w") as archive:
        for info, content in entries:
            for changed, other_content in change(info, content):
                archive.writestr(changed, other_content)


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644, packing: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.compress_type = mode << 16, packing
    return info


LAST = "samples.png"  # of the entries, which are sorted
ADDED = {
    "is there twice": [(entry(ONNX), b"second")],
    "'net_ONNX_fp32.onnx' is there twice": [(entry("net_ONNX_fp32.onnx"), b"second")],
    "'../../x', which is no path of a file in a bundle": [(entry("../../x"), b"x")],
    "'/tmp/x', which is no path": [(entry("/tmp/x"), b"x")],
    "link is a link or something else": [(entry("link", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")],
    "bomb is compressed": [(entry("bomb", packing=zipfile.ZIP_DEFLATED), b"0" * 100_000)],
    f"{ONNX}/x lies in what is a file as well".lower(): [(entry(f"{ONNX}/x"), b"x")],
    "extra: is not in manifest.json": [(entry("extra"), b"x")],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")  # Python's own, of the zip that the test makes
@pytest.mark.parametrize("message", ADDED)
def test_a_zip_with_an_entry_too_many_is_refused(packed: Path, message: str) -> None:
    rewritten(packed, lambda info, content: [(info, content)] + (ADDED[message] if info.filename == LAST else []))
    error = refused(packed)
    assert (type(error), message in str(error)) == (DataError, True), error
    assert str(packed) in str(error)


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b"PK"), lambda path: flip(path, 2000)])
def test_a_damaged_zip_is_refused(packed: Path, damage: Callable[[Path], object]) -> None:
    damage(packed)
    error = refused(packed)
    assert type(error) is DataError
    assert "net.zip: not a zip, or damaged" in str(error)


def test_a_zip_without_a_manifest_or_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    assert "manifest.json" in str(refused(tmp_path / "x.zip"))
    assert "no file" in str(refused(tmp_path / "none.zip"))


def test_an_empty_zip_says_more_than_it_holds(packed: Path) -> None:
    """Two entries that share their bytes: what is unpacked is more than the file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(entry("a"), b"0" * 100_000)
        shared = archive.infolist()[0]
        for number in range(50):
            twin = entry(f"b{number}")
            twin.header_offset, twin.CRC = shared.header_offset, shared.CRC
            twin.file_size = twin.compress_size = shared.file_size
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # type: ignore[attr-defined]
    packed.write_bytes(content.getvalue())
    assert "is smaller than what it says is in it" in str(refused(packed))


def test_the_hash_is_one_of_sha256sum(bundle: Path) -> None:
    digest = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    assert (bundle / HASH).read_text() == f"{digest}  manifest.json\n"


def test_a_folder_that_is_neither_files_nor_bundle_is_said_to_be_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    with pytest.raises(UsageError, match=r"a folder without manifest.json; give one of `edgegen export`"):
        raise result.exception


def test_a_bundle_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "digits")])
    with pytest.raises(
        UsageError, match=r"digits: no bundle, no folder of files and no \.toml file is there, and no recipe"
    ):
        raise result.exception or AssertionError(result.output)
