"""FileHashes: a changed file is named with both hashes; an untouched one is hashed once."""

import os
import time
from pathlib import Path

import pytest

from edgegen.errors import DataError
from edgegen.formats import file_hashes
from edgegen.formats.file_hashes import FileHashes
from edgegen.support.storage import sha256_of


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(file_hashes, "sha256_of", counting)
    return names


def settled(path: Path, content: str) -> Path:
    path.write_text(content)
    old = time.time_ns() - 10**12
    os.utime(path, ns=(old, old))
    return path


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_NS", 50_000_000)


def check(hashes: FileHashes, path: Path, sha256: str) -> None:
    hashes.check(path, sha256, record=path.with_name("record.json"), remedy="make it again")


def test_another_content_is_named_with_both_hashes_and_the_remedy(tmp_path: Path) -> None:
    path = settled(tmp_path / "net.onnx", "whole")
    check(FileHashes(), path, sha256_of(path))
    with pytest.raises(DataError, match=r"net\.onnx does not hold what was written there: its SHA-256 is 5d5766cf2d78"):
        check(FileHashes(), path, "ab" * 32)
    with pytest.raises(DataError, match=r"record\.json says abababababab\.\.\.; make it again"):
        check(FileHashes(), path, "ab" * 32)
    with pytest.raises(DataError, match=r"no file .*gone"):
        check(FileHashes(), tmp_path / "gone", "ab" * 32)


def test_a_folder_is_compared_as_a_whole(tmp_path: Path) -> None:
    package = tmp_path / "net.mlpackage"
    package.mkdir()
    settled(package / "weights", "whole")
    digest = sha256_of(package)
    check(FileHashes(), package, digest)
    settled(package / "weights", "hole!")
    with pytest.raises(DataError, match=r"net\.mlpackage does not hold"):
        check(FileHashes(), package, digest)


def test_an_untouched_file_is_hashed_once_also_by_the_next_process(tmp_path: Path, counted: list[str]) -> None:
    (tmp_path / "a").mkdir()
    path = settled(tmp_path / "a" / "b", "whole")
    time.sleep(0.1)  # the inode's own time of change is now, and no program can set it back
    for _ in range(2):
        hashes = FileHashes(tmp_path / ".hashes.json")
        digests = {hashes.sha256(path) for _ in range(2)}
        hashes.save()
    assert digests == {sha256_of(path)}
    assert counted == ["b"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_change_is_seen_also_where_its_time_was_set_back(
    tmp_path: Path, counted: list[str], keep_times: bool
) -> None:
    path = settled(tmp_path / "a", "whole")
    time.sleep(0.1)
    hashes = FileHashes(tmp_path / ".hashes.json")
    before, times = hashes.sha256(path), path.stat()
    path.write_text("hole!")
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert hashes.sha256(path) != before
    assert len(counted) == 2


def test_a_file_that_was_written_a_moment_ago_is_hashed_again(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system goes in ticks: two changes in one of them have one time."""
    monkeypatch.setattr(file_hashes, "SETTLED_NS", 10**12)
    path = tmp_path / "a"
    path.write_text("whole")
    hashes = FileHashes(tmp_path / ".hashes.json")
    assert hashes.sha256(path) == hashes.sha256(path)
    assert len(counted) == 2
    hashes.save()
    assert not (tmp_path / ".hashes.json").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "edgegen.hashes/1", "files": [1]}', '{"schema": "other/1"}'])
def test_a_damaged_store_knows_nothing(tmp_path: Path, content: str, counted: list[str]) -> None:
    (tmp_path / ".hashes.json").write_text(content)
    path = settled(tmp_path / "a", "whole")
    assert FileHashes(tmp_path / ".hashes.json").sha256(path) == sha256_of(path)
    assert counted == ["a"]


def test_files_that_are_gone_leave_the_store(tmp_path: Path) -> None:
    paths = [settled(tmp_path / name, name) for name in "ab"]
    time.sleep(0.1)
    hashes = FileHashes(tmp_path / ".hashes.json")
    for path in paths:
        hashes.sha256(path)
    paths[0].unlink()
    hashes.save()
    content = (tmp_path / ".hashes.json").read_text()
    assert '"b"' in content
    assert '"a"' not in content
