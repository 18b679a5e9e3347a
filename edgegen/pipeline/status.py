"""What a run is doing, in a file beside its results: written while it runs, read by `edgegen status` at any time."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgegen.errors import DataError, EdgegenError, StorageError, UsageError
from edgegen.formats.stage_folder import CHECKPOINT, RUN, STATUS
from edgegen.pipeline.run_folder import RunFolder
from edgegen.support.progress import Progress, Task
from edgegen.support.schema import utc_now
from edgegen.support.storage import load_metadata, read_json, write_json
from edgegen.training.log import LOG, last_warnings, read

EVERY_S = 2.0  # seconds between writes
SCHEMA = "edgegen.status/1"


class StatusFile:
    """A Progress that passes everything on, and keeps in `path` what is going on. To be closed as a context manager."""

    def __init__(self, progress: Progress, path: Path, stages: Sequence[str], *, enabled: bool) -> None:
        self.progress, self.path, self.enabled = progress, path, enabled
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "state": "running",
            "error": None,
            "process": os.getpid(),
            "began_utc": utc_now(),
            "stages": dict.fromkeys(stages, "to run"),
            "stage": None,
            "folder": None,
            "left": None,
            "task": None,
        }
        self.written = 0.0

    def begin(self, stage: str, folder: Path, left: str | None) -> None:
        """A stage starts in its folder; `left` is how long the rest of the run takes, in words."""
        self.content["stages"][stage] = "running"
        self.content |= {
            "stage": stage,
            "folder": str(folder.relative_to(self.path.parent)),
            "left": left,
            "task": None,
        }
        self._write()

    def done(self, stage: str) -> None:
        self.content["stages"][stage] = "done"
        self._write()

    def message(self, text: str) -> None:
        self.progress.message(text)

    @contextmanager
    def task(self, label: str, total: int, *, start: int = 0) -> Iterator[Task]:
        with self.progress.task(label, total, start=start) as task:
            yield _RecordedTask(self, task, label, total, start)

    def update(self, task: dict[str, Any], *, last: bool) -> None:
        """What a task has done, written now and then."""
        self.content["task"] = task
        if last or time.monotonic() - self.written >= EVERY_S:
            self._write()

    def _write(self) -> None:
        if not self.enabled:
            return
        self.written = time.monotonic()
        with suppress(StorageError):  # of a full disk, or a folder that was removed, the stages have their own message
            write_json(self.path, {**self.content, "updated_utc": utc_now(), "updated_s": time.time()})

    def __enter__(self) -> "StatusFile":
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.content |= {"state": "finished", "stage": None, "folder": None, "task": None, "left": None}
        else:
            expected = isinstance(error, EdgegenError)
            self.content |= {"state": "failed" if isinstance(error, Exception) else "stopped"}
            self.content |= {"error": str(error) if expected else type(error).__name__}
        if self.path.parent.exists():  # it may have been removed meanwhile, which has its own message
            self._write()


class _RecordedTask:
    def __init__(self, status: StatusFile, task: Task, label: str, total: int, start: int) -> None:
        self.status, self.task, self.label, self.total, self.start = status, task, label, total, start
        self.began = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        rate = (done - self.start) / max(time.monotonic() - self.began, 1e-9)
        record = {"label": self.label, "done": done, "total": self.total, "per_second": rate, "note": note}
        self.status.update(record, last=done >= self.total)
        self.task.update(done, note)


def status_of(folder: Path) -> dict[str, Any]:
    """What a run does or has done; nothing in its folder is changed. Raises UsageError where there is no run."""
    if not (folder / RUN).is_file():
        raise UsageError(f"{folder}: no run there (no {RUN}); give a recipe, a run's name, or its folder")
    running = RunFolder(folder).is_in_use()
    facts = _recorded(folder, running=running)
    if facts["state"] == "running" and not running:
        facts |= {"state": "killed"}
    if not running:
        facts["left_s"] = None
    elif (task := facts["task"]) and task["per_second"]:
        waited = max(0.0, time.time() - facts["updated_s"])
        facts["left_s"] = max(0.0, (task["total"] - task["done"]) / task["per_second"] - waited)
    part = None if facts["folder"] is None else folder / facts["folder"]
    logs = [] if part is None or not part.is_dir() else sorted(part.rglob(LOG), key=lambda log: log.stat().st_mtime)
    lines = read(logs[-1]) if logs else []
    facts["last"] = lines[-1] if lines else None
    facts["checkpoint"] = _checkpoint(logs[-1].parent / CHECKPOINT) if logs else None
    facts["warnings"] = _warnings(folder, facts)
    return {"name": folder.name, "run": str(folder), **facts}


def _recorded(folder: Path, *, running: bool) -> dict[str, Any]:
    """The status file; of a run from before there was one, what run.json says."""
    try:
        content: dict[str, Any] = read_json(folder / STATUS)
        if content["schema"] != SCHEMA:
            raise KeyError(content["schema"])
    except (DataError, KeyError, TypeError):
        results = read_json(folder / RUN).get("stages", {})
        content = {"state": "running" if running else "not running", "stages": dict.fromkeys(results, "done")}
        content |= dict.fromkeys(("error", "process", "stage", "folder", "left", "task"))
    return {"left_s": None, **content}


def _checkpoint(path: Path) -> int | None:
    try:
        return int(load_metadata(path)["step"]) if path.exists() else None
    except (DataError, KeyError, ValueError):
        return None


def _warnings(folder: Path, facts: dict[str, Any]) -> dict[str, list[str]]:
    """By stage, the faults in the last line of its log: of what runs, and of results that are done."""
    places = {stage: folder / place for stage, place in read_json(folder / RUN).get("stages", {}).items()}
    if facts["stage"] is not None and facts["folder"] is not None:
        places[facts["stage"]] = folder / facts["folder"]
    faults = {}
    for stage, place in places.items():
        logs = sorted(place.rglob(LOG)) if place.is_dir() else []
        texts = [text for log in logs for text in last_warnings(log)]
        if texts:
            faults[stage] = texts
    return faults
