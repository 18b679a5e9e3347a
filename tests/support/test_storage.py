"""Files are whole or absent; errors of a full disk, a read-only place and a truncated file say what to do."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from edgegen.errors import DataError, StorageError
from edgegen.support import storage


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def in_small_filesystem(tmp_path: Path, code: str, *, options: str = "size=64k") -> str:
    """Runs Python code with PLACE, a small tmpfs mounted for that process only; skips where mounting is not allowed."""
    place = tmp_path / "place"
    place.mkdir()
    mount = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'mount -t tmpfs -o {options} tmpfs "$1" && shift && exec "$@"',
        "sh",
        str(place),
    ]
    try:
        trial = subprocess.run([*mount, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here: it is part of util-linux")
    if trial.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {trial.stderr.strip()}")
    script = f"from pathlib import Path\nPLACE = Path({str(place)!r})\n" + textwrap.dedent(code)
    done = subprocess.run([*mount, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    out = in_small_filesystem(
        tmp_path,
        """
        import numpy as np
        from edgegen.errors import StorageError
        from edgegen.support.storage import load_tensors, save_tensors
        save_tensors(PLACE / "pairs.safetensors", {"x": np.zeros(16, np.float32)})
        try:
            save_tensors(PLACE / "pairs.safetensors", {"x": np.zeros(1 << 20, np.float32)})
        except StorageError as e:
            print(e)
        print(load_tensors(PLACE / "pairs.safetensors")["x"].shape, sorted(p.name for p in PLACE.iterdir()))
        """,
    )
    message, rest = out.strip().split("\n")
    place = tmp_path / "place"
    assert message.startswith("disk full: ")
    assert f"bytes free at {place}, too few to write pairs.safetensors" in message
    assert message.endswith("free some space and run the same command again")
    assert rest == "torch.Size([16]) ['pairs.safetensors']"


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    out = in_small_filesystem(
        tmp_path,
        """
        from edgegen.errors import StorageError
        from edgegen.support.storage import write_json
        for target in (PLACE / "a.json", PLACE / "new" / "a.json"):
            try:
                write_json(target, {})
            except StorageError as e:
                print(e)
        """,
        options="ro",
    )
    for line, name in zip(out.strip().split("\n"), ("a.json", "new/a.json"), strict=True):
        assert line.startswith(f"no permission to write {tmp_path / 'place' / name} (it is on a read-only file system)")


@pytest.mark.parametrize(
    ("code", "words"),
    [("EACCES", "no permission to write .*Permission denied.*choose another place"), ("EDQUOT", "disk full: .*quota")],
)
def test_errors_of_the_system_say_what_to_do(tmp_path: Path, code: str, words: str) -> None:
    import errno

    number = getattr(errno, code)
    with pytest.raises(StorageError, match=words), storage.storage_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*a\.json: File exists \(.*runs\)"):
        storage.write_json(tmp_path / "runs" / "a.json", {})


def test_a_failed_body_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), storage.atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError("stop")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_temporary_name_is_beside_the_target_and_has_its_suffix(tmp_path: Path) -> None:
    with storage.atomic_path(tmp_path / "new" / "net.mlpackage") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.suffix == ".mlpackage"
        (temporary / "Data").mkdir(parents=True)
        (temporary / "Data" / "weights.bin").write_bytes(b"1")
    assert names(tmp_path / "new") == ["net.mlpackage"]


@pytest.mark.parametrize(("old", "new"), [("folder", "folder"), ("file", "folder"), ("file", "file")])
def test_an_older_target_is_replaced(tmp_path: Path, old: str, new: str) -> None:
    target = tmp_path / "x"
    for kind, content in ((old, "1"), (new, "2")):
        with storage.atomic_path(target) as temporary:
            if kind == "folder":
                temporary.mkdir()
                (temporary / content).write_text(content)
            else:
                temporary.write_text(content)
    assert names(tmp_path) == ["x"]
    assert (names(target) == ["2"]) if new == "folder" else (target.read_text() == "2")


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pics.png").mkdir()
    (tmp_path / "pics.png" / "keep.txt").write_text("precious")
    with pytest.raises(StorageError, match=r"pics\.png: is a folder, and a file should go there"):
        storage.write_bytes(tmp_path / "pics.png", b"new")
    assert names(tmp_path) == ["pics.png"]
    assert (tmp_path / "pics.png" / "keep.txt").read_text() == "precious"


def test_an_old_folder_comes_back_when_the_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    target.mkdir()
    (target / "old").write_text("")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name.startswith(".tmp-"):
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError, match=r"cannot write .*x: Input/output error"), storage.atomic_path(target) as new:
        new.mkdir()
    assert names(tmp_path) == ["x"]
    assert names(target) == ["old"]


def test_file_and_folder_are_flushed_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the rename, the entry in the folder after it."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(self: Path, to: Path) -> Path:
        events.append("rename")
        return replace(self, to)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "replace", renamed)
    storage.write_json(tmp_path / "a.json", {})
    assert events == [f".tmp-{os.getpid()}-a.json", "rename", tmp_path.name]


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from edgegen.support.storage import atomic_path
with atomic_path(Path({str(tmp_path / "a.json")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].startswith(".tmp-")
    living = tmp_path / f".tmp-{os.getppid()}-a.json"
    living.write_text("")
    storage.write_json(tmp_path / "a.json", {})
    assert names(tmp_path) == [living.name, "a.json"]


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"b": 1.5, "a": ["ü", None]})
    assert storage.read_json(path) == {"b": 1.5, "a": ["ü", None]}
    assert path.read_text(encoding="utf-8").startswith('{\n  "b"')
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["b"] == 1.5


def test_every_cut_of_a_json_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"key": [1, 2, {"x": "ü"}]})
    whole = path.read_bytes()
    for size in range(len(whole) - 2):  # without the last newline it is complete
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a\.json: not JSON, or cut short .*make it again"):
            storage.read_json(path)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    for read in (storage.read_json, storage.load_tensors, storage.load_metadata, storage.sha256_of):
        with pytest.raises(DataError, match=r"no file .*nothing"):
            read(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no file or folder .*nothing"):
        storage.nbytes_of(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a folder; needed: a file"):
        storage.read_json(tmp_path)


def test_tensors_round_trip_of_every_kind(tmp_path: Path) -> None:
    frozen = np.arange(6, dtype=np.float64).reshape(2, 3)
    frozen.flags.writeable = False
    base = torch.arange(8, dtype=torch.float32)
    tensors = {
        "numpy": frozen,
        "transposed": torch.arange(6).reshape(2, 3).T,
        "front": base[:4],
        "back": base[4:],
        "same": base,
        "half": torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
        "scalar": np.float32(3) * np.ones((), np.float32),
        "empty": torch.zeros(0, 4),
    }
    path = tmp_path / "t.safetensors"
    storage.save_tensors(path, tensors, metadata={"step": "7"})
    loaded = storage.load_tensors(path)
    assert set(loaded) == set(tensors)
    for name, value in tensors.items():
        expected = value.detach() if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        assert loaded[name].dtype == expected.dtype
        assert torch.equal(loaded[name], expected), name
    assert storage.load_metadata(path) == {"step": "7"}


def test_the_numpy_reader_of_safetensors_agrees(tmp_path: Path) -> None:
    values = {"x": np.arange(6, dtype=np.float32).reshape(3, 2).T, "n": np.int64(7) * np.ones(1, np.int64)}
    storage.save_tensors(tmp_path / "t.safetensors", values, {"b": "1", "a": "2"})
    for name, value in safetensors.numpy.load_file(tmp_path / "t.safetensors").items():
        np.testing.assert_array_equal(value, values[name])


def test_same_tensors_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    """The library orders the metadata of each file differently, so that a few files are enough to show it."""
    digests = set()
    for i in range(6):
        path = tmp_path / f"{i}.safetensors"
        storage.save_tensors(path, {"x": np.arange(5, dtype=np.float32)}, {f"key{k}": "ü" for k in range(6)})
        digests.add(storage.sha256_of(path))
        assert torch.equal(storage.load_tensors(path)["x"], torch.arange(5, dtype=torch.float32))
    assert len(digests) == 1
    storage.save_tensors(path, {"x": torch.ones(1)})
    assert storage.load_metadata(path) == {}


def test_every_cut_of_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    storage.save_tensors(path, {"x": np.ones(4, np.float32)}, {"a": "b"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        for read in (storage.load_tensors, storage.load_metadata):
            with pytest.raises(DataError, match=r"t\.safetensors: not a safetensors file, or cut short"):
                read(path)


def test_hash_and_size_of_files_and_folders(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "f").write_bytes(b"abc")
    assert storage.sha256_of(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()
    for name, order in (("one", "ab"), ("two", "ba")):
        for inner in order:
            (tmp_path / name / "sub").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "sub" / inner).write_text(inner)
    first = storage.sha256_of(tmp_path / "one")
    assert storage.sha256_of(tmp_path / "two") == first
    (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "sub" / "c")
    assert storage.sha256_of(tmp_path / "two") != first
    assert storage.nbytes_of(tmp_path / "one") == 2
    assert storage.nbytes_of(tmp_path / "f") == 3


def test_importing_storage_imports_no_torch() -> None:
    code = "import sys, edgegen.support.storage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
