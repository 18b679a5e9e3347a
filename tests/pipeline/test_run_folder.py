"""The run folder: whole results only, one owner, one worker at a time."""

import json
import os
import time
from pathlib import Path

import pytest

from edgegen.errors import DataError, StorageError, UsageError
from edgegen.formats import file_hashes
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.pipeline.run_folder import RunFolder, fingerprint, key_of
from edgegen.support.storage import sha256_of


def make(folder: RunFolder, key: str, text: str) -> None:
    place = folder.partial("stage", key, fresh=True)
    (place / "file").write_text(text)
    folder.finish("stage", key, {"stage": "stage"}, 1.5, {})


def test_a_result_is_there_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.partial("stage", "k", fresh=False) / "file").write_text("half")
    assert folder.finished("stage", "k", {}) is None
    result = folder.finish("stage", "k", {"stage": "stage"}, 1.5, {})
    assert folder.finished("stage", "k", {}) is not None
    assert (result.folder / "file").read_text() == "half"
    assert not (tmp_path / "stage" / "k.partial").exists()


def test_a_damaged_result_counts_as_absent(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    make(folder, "k", "whole")
    (tmp_path / "stage" / "k" / "file").write_text("who")
    assert folder.finished("stage", "k", {}) is None
    make(folder, "k", "whole")
    (tmp_path / "stage" / "k" / "file").unlink()
    assert folder.finished("stage", "k", {}) is None
    make(folder, "k", "whole")
    (tmp_path / "stage" / "k" / "stage.json").write_text('{"seconds": 1')
    assert folder.finished("stage", "k", {}) is None


def test_a_new_result_replaces_the_old_one_of_its_key(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    make(folder, "k", "old")
    make(folder, "k", "new")
    assert (tmp_path / "stage" / "k" / "file").read_text() == "new"
    assert sorted(p.name for p in (tmp_path / "stage").iterdir()) == ["k"]


def test_a_result_made_from_another_input_counts_as_absent(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.partial("stage", "k", fresh=True) / "file").write_text("x")
    made = folder.finish("stage", "k", {}, 1.0, {"before": "digest"})
    assert folder.finished("stage", "k", {"before": "digest"}) is not None
    assert folder.finished("stage", "k", {"before": "another"}) is None
    assert folder.finished("stage", "k", {}) is None
    (folder.partial("stage", "k", fresh=True) / "file").write_text("x")
    assert folder.finish("stage", "k", {}, 2.0, {}).digest == made.digest
    (folder.partial("stage", "k", fresh=True) / "file").write_text("y")
    assert folder.finish("stage", "k", {}, 2.0, {}).digest != made.digest


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"made_from": {}, "files": []}', "{"])
def test_a_manifest_of_the_wrong_shape_counts_as_absent(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    make(folder, "k", "x")
    (tmp_path / "stage" / "k" / "stage.json").write_text(content)
    assert folder.finished("stage", "k", {}) is None


def test_the_checkpoint_goes_only_when_the_result_has_its_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    place = folder.partial("stage", "k", fresh=True)
    (place / "weights").write_text("x")
    (place / CHECKPOINT).write_text("y")
    folder.finish("stage", "k", {}, 1.0, {})
    assert sorted(p.name for p in (tmp_path / "stage" / "k").iterdir()) == ["stage.json", "weights"]
    # A kill just before the rename leaves both: the stage goes on from the checkpoint.
    (tmp_path / "stage" / "k").rename(place)
    (place / CHECKPOINT).write_text("y")
    assert folder.finish("stage", "k", {}, 1.0, {}).digest == folder.finished("stage", "k", {}).digest  # type: ignore[union-attr]


def test_a_file_with_another_content_of_the_same_size_is_refused_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    make(folder, "k", "whole")
    result = folder.finished("stage", "k", {})
    assert result is not None
    (tmp_path / "stage" / "k" / "file").write_text("hole!")
    message = r"stage/k/file does not hold what was written there: .* delete .*stage/k and run the same command again"
    with pytest.raises(DataError, match=message):
        RunFolder(tmp_path).finished("stage", "k", {})
    with pytest.raises(DataError, match=message):  # before a stage reads it
        folder.check_content(result)
    (tmp_path / "stage" / "k" / "file").write_text("whole")
    assert RunFolder(tmp_path).finished("stage", "k", {}) is not None


def test_a_record_that_does_not_fit_its_own_digest_counts_as_absent(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    make(folder, "k", "whole")
    record = tmp_path / "stage" / "k" / "stage.json"
    content = record.read_text()
    digit = json.loads(content)["files"]["file"]["sha256"]
    record.write_text(content.replace(digit, digit[:-1] + ("0" if digit[-1] != "0" else "1")))
    assert folder.finished("stage", "k", {}) is None


def test_the_files_of_a_finished_run_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    folder = RunFolder(tmp_path / "run")
    with folder.open("x"):
        make(folder, "k", "whole")
    monkeypatch.setattr(file_hashes, "SETTLED_NS", 0)
    monkeypatch.setattr(file_hashes, "sha256_of", counting)
    time.sleep(0.05)
    digests = set()
    for _ in range(3):
        again = RunFolder(tmp_path / "run")
        with again.open("x"):
            result = again.finished("stage", "k", {})
            assert result is not None
            digests.add(result.digest)
            again.record("x", {}, {"stage": result})
    assert hashed == ["file"]
    assert len(digests) == 1
    assert sorted(p.name for p in result.folder.iterdir()) == ["file", "stage.json"], "the store lies elsewhere"
    (tmp_path / "run" / "run.json").unlink()
    RunFolder(tmp_path / "run").check("x")
    RunFolder(tmp_path / "run").finished("stage", "k", {})  # as --dry-run does
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".hashes.json", ".lock", "stage"]


@pytest.mark.parametrize("content", [None, "null", '{"name"'])
def test_a_run_folder_whose_record_is_lost_is_taken_up(tmp_path: Path, content: str | None) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.open("x"):
        make(folder, "k", "whole")
    (tmp_path / "run" / "run.json").unlink()
    if content is not None:
        (tmp_path / "run" / "run.json").write_text(content)
    with folder.open("x"):
        assert folder.finished("stage", "k", {}) is not None
    assert '"name": "x"' in (tmp_path / "run" / "run.json").read_text()


def test_latest_follows_the_last_result(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for key in ("a", "b"):
        make(folder, key, key)
        result = folder.finished("stage", key, {})
        assert result is not None
        folder.link_latest(result)
        folder.link_latest(result)
        assert (tmp_path / "stage" / "latest" / "file").read_text() == key


def test_another_recipe_s_folder_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.open("one"):
        folder.record("one", {}, {})
    with pytest.raises(UsageError, match="was made by the recipe 'one', this one is 'two'"), folder.open("two"):
        pass


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"holds other files and no run\.json"), RunFolder(tmp_path).open("x"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(StorageError, match="is a file"), RunFolder(tmp_path / "run").open("x"):
        pass


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.open("x"), pytest.raises(StorageError, match="another edgegen is working"), folder.open("x"):
        pass
    with folder.open("x"):
        pass


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys, where even root may not write")
def test_no_permission_is_told_in_plain_words() -> None:
    with (
        pytest.raises(StorageError, match="no permission to write /sys/edgegen"),
        RunFolder(Path("/sys/edgegen/x")).open("x"),
    ):
        pass


def test_keys_are_of_the_content_and_not_of_its_order() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_fingerprints_see_a_changed_file_and_a_changed_folder(tmp_path: Path) -> None:
    file = tmp_path / "in" / "a.txt"
    file.parent.mkdir()
    file.write_text("one")
    first, folder = fingerprint(file), fingerprint(tmp_path / "in")
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert fingerprint(file) != first
    assert fingerprint(tmp_path / "in") != folder


def test_a_folder_with_links_to_itself_has_an_end(tmp_path: Path) -> None:
    folder, other = tmp_path / "in" / "a", tmp_path / "in" / "b"
    folder.mkdir(parents=True)
    other.mkdir()
    (folder / "1.png").write_text("one")
    for number in (1, 2):
        (folder / f"self{number}").symlink_to(folder)
        (folder / f"other{number}").symlink_to(other)
        (other / f"back{number}").symlink_to(tmp_path / "in")
    first = fingerprint(tmp_path / "in")
    assert fingerprint(tmp_path / "in") == first
    (folder / "self2").unlink()
    (folder / "self2").symlink_to(other)
    assert fingerprint(tmp_path / "in") != first
