"""The run folder: `runs/<name>/<stage>/<key>/`; a result is complete or absent, its key is the hash of its inputs.

A stage works in `<key>.partial` (which survives a kill, with its checkpoints) and the folder is renamed to `<key>` when
`stage.json` in it lists every file. `latest` in a stage's folder links to the result of the last run. `.hashes.json`
keeps the hashes of files that have not been touched since they were compared with `stage.json`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from edgegen.errors import DataError, EdgegenError, StorageError, UsageError
from edgegen.formats.file_hashes import FileHashes
from edgegen.formats.stage_folder import CHECKPOINT, GOOD, RUN, STAGE, STATUS, check_files
from edgegen.support.bounded_files import read_errors, tree
from edgegen.support.storage import read_json, sha256_of, storage_errors, write_json

LOCK, HASHES = ".lock", ".hashes.json"
TIMED = "tensorboard/"  # files that hold the time of day: no part of a digest


def key_of(content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Of what the files of a result hold."""
    return key_of({file: facts["sha256"] for file, facts in files.items() if TIMED not in file})


def fingerprint(path: Path) -> str:
    """A hash of a user's file (of its content) or folder (of names, sizes and times of change)."""
    if path.is_file():
        return sha256_of(path)
    below, root = tree(path), path.resolve()
    with read_errors(path):
        stats = [(str(p.relative_to(path)), p.stat()) for p in below.files if p.is_file()]
    listing = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
    links = [(str(link.relative_to(path)), os.path.relpath(target, root)) for link, target in below.links]
    return hashlib.sha256(json.dumps([*listing, *links]).encode()).hexdigest()


@dataclass(frozen=True)
class StageResult:
    """The finished result of a stage; `digest` is a hash of the content of its files."""

    stage: str
    key: str
    folder: Path
    seconds: float
    reused: bool
    digest: str


@dataclass(frozen=True)
class RunFolder:
    """The folder of one recipe's results. `open` checks that it is this recipe's and that no other run is using it."""

    path: Path

    @cached_property
    def hashes(self) -> FileHashes:
        """Those of the files in this folder."""
        return FileHashes(self.path / HASHES)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[None]:
        """Locks the folder for the recipe `name`. Raises UsageError or StorageError."""
        self.check(name)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("w")
        with lock:
            self._lock(lock)
            if self._owner() is None:
                self.record(name, {}, {})
            try:
                yield
            except (EdgegenError, OSError) as e:  # whatever was met first
                self.check_there(e)
                raise

    def _lock(self, lock: IO[str]) -> None:
        for delay_s in (0.05, 0.2, None):  # `edgegen status` holds it for a moment
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                if delay_s is None:
                    raise StorageError(
                        f"{self.path}: another edgegen is working in this run folder; wait for it"
                    ) from e
                time.sleep(delay_s)

    def is_in_use(self) -> bool:
        """Whether an edgegen is working in it."""
        try:
            with (self.path / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no lock: nobody has worked here
            return False
        return False

    def check_there(self, error: Exception | None = None) -> None:
        """Raises StorageError where a folder that was opened was removed since, from `error`, which that has led to."""
        if not (self.path / LOCK).exists():
            raise StorageError(
                f"{self.path}: was removed while edgegen worked in it; what is there now is no whole run: delete it, "
                "and run the same command again"
            ) from error

    def check(self, name: str) -> None:
        """Raises UsageError when the folder is another recipe's, or not a run folder at all."""
        file = next((parent for parent in self.path.parents if parent.is_file()), None)
        if file is not None:
            raise StorageError(f"{file}: is a file; the folder of runs should be there. Choose another place by --runs")
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise StorageError(
                f"{self.path}: is a file; the run folder should go there. Choose another place by --runs"
            )
        owner = self._owner()
        if owner is not None:
            if owner != name:
                raise UsageError(
                    f"{self.path} was made by the recipe '{owner}', this one is '{name}': choose another place "
                    "by --runs, or delete the folder if nobody needs it"
                )
        elif (
            any(entry.name not in (LOCK, RUN, HASHES, STATUS) for entry in self.path.iterdir())
            and not self._has_results()
        ):
            raise UsageError(
                f"{self.path} holds other files and no {RUN}: not a run folder. Choose another place by --runs"
            )

    def _owner(self) -> str | None:
        """The recipe's name in run.json; None where that is missing or damaged: it is written anew."""
        try:
            owner: str = read_json(self.path / RUN)["name"]
            return owner
        except (DataError, TypeError, KeyError):
            return None

    def _has_results(self) -> bool:
        return any(self.path.glob(f"*/*/{STAGE}")) or any(self.path.glob("*/*.partial"))

    def record(self, name: str, recipe: Mapping[str, Any], results: Mapping[str, StageResult]) -> None:
        """run.json: whose folder this is, and where the results of the last run are; and the hashes of their files."""
        stages = {stage: str(result.folder.relative_to(self.path)) for stage, result in results.items()}
        write_json(self.path / RUN, {"schema": "edgegen.run/1", "name": name, "recipe": dict(recipe), "stages": stages})
        self.hashes.save()

    def finished(self, stage: str, key: str, inputs: Mapping[str, str]) -> StageResult | None:
        """The result, where it is complete and made from these inputs (stage: digest).

        One that lacks a file, or has it in another size, counts as absent: it is made again. Raises DataError for a
        file of the same size that holds something else, because nobody who only runs a recipe changes that: a failing
        disk, or an edit by hand that a new result would overwrite.

        The key covers settings; the digests show inputs that were made again and differ, as latencies do.
        """
        folder = self.path / stage / key
        try:
            manifest = read_json(folder / STAGE)
            if manifest["made_from"] != dict(inputs) or manifest["digest"] != digest_of(manifest["files"]):
                return None
            for file, facts in manifest["files"].items():
                path = folder / file
                if not path.is_file() or path.stat().st_size != facts["nbytes"]:
                    return None
            result = StageResult(stage, key, folder, float(manifest["seconds"]), reused=True, digest=manifest["digest"])
        except (DataError, KeyError, TypeError, AttributeError, ValueError):
            return None
        self.check_content(result)
        return result

    def earlier(self, stage: str, key: str, content: Mapping[str, Any]) -> tuple[Path, ...]:
        """Finished results of a stage with the same content but for their inputs, which give them other keys."""
        found = []
        for path in sorted((self.path / stage).glob(f"*/{STAGE}")):
            with contextlib.suppress(DataError, KeyError, TypeError):
                manifest = read_json(path)
                same = all(manifest[name] == value for name, value in content.items() if name != "inputs")
                if path.parent.name == manifest["key"] != key and same:  # neither a `.partial` nor `latest`
                    found.append(path.parent)
        return tuple(found)

    def check_content(self, result: StageResult) -> None:
        """Raises DataError when a file of a finished result no longer holds what was written, at the same size."""
        check_files(result.folder, read_json(result.folder / STAGE)["files"], hashes=self.hashes)

    def partial(self, stage: str, key: str, *, fresh: bool) -> Path:
        """The folder that a stage works in; `fresh` removes the files of an interrupted attempt."""
        folder = self.path / stage / f"{key}.partial"
        with storage_errors(folder):
            if fresh and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(
        self, stage: str, key: str, content: Mapping[str, Any], seconds: float, inputs: Mapping[str, str]
    ) -> StageResult:
        """Writes stage.json and gives the partial folder its final name; an older result of this key is replaced."""
        partial, folder = self.path / stage / f"{key}.partial", self.path / stage / key
        files = {
            str(p.relative_to(partial)): {"nbytes": p.stat().st_size, "sha256": sha256_of(p)}
            for p in sorted(partial.rglob("*"))
            if p.is_file() and p.name not in (STAGE, CHECKPOINT, GOOD)
        }
        digest = digest_of(files)
        facts = {"key": key, "digest": digest, "made_from": dict(inputs), "seconds": round(seconds, 3), "files": files}
        write_json(partial / STAGE, {**content, **facts})
        with storage_errors(folder):
            if folder.exists():
                retired = folder.with_name(f"{key}.old-{time.time_ns()}")
                folder.rename(retired)
                partial.rename(folder)
                shutil.rmtree(retired)
            else:
                partial.rename(folder)
            # Last: a run killed before these lines continues from them.
            for checkpoint in [*folder.rglob(CHECKPOINT), *folder.rglob(GOOD)]:
                checkpoint.unlink(missing_ok=True)
        return StageResult(stage, key, folder, seconds, reused=False, digest=digest)

    def link_latest(self, result: StageResult) -> None:
        """Makes `<stage>/latest` a link to the result."""
        link = self.path / result.stage / "latest"
        with storage_errors(link):
            if link.is_symlink() and str(link.readlink()) == result.key:
                return
            temporary = link.with_name(f".latest-{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(result.key)
            temporary.replace(link)
