"""Losses of a training stage: lines of JSON in `log.jsonl`, and TensorBoard files where that is installed."""

import importlib.util
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen.support.bounded_files import read_bytes
from edgegen.support.storage import atomic_path, storage_errors

LOG = "log.jsonl"
LARGEST_LOG = 1 << 30  # bytes; a line of a million steps has a hundred


class TrainingLog:
    """Written by the first process only; lines of steps after the checkpoint, left by a kill, are removed."""

    def __init__(self, folder: Path, first: int, *, enabled: bool) -> None:
        self.path = folder / LOG
        self.lines: list[str] = []
        self.board: EventFile | None = None
        if not enabled:
            return
        kept = [line for line in read(self.path) if line["step"] <= first]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        if importlib.util.find_spec("tensorboard"):
            self.board = EventFile(folder / "tensorboard", purge_step=first + 1)

    def add(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        if self.board is not None:
            self.board.add(step, {**{f"loss/{name}": value for name, value in losses.items()}, "learning_rate": rate})
        self.lines.append(json.dumps({"step": step, **losses}))

    def flush(self) -> None:
        """Called just before a checkpoint, so that the log is never behind it."""
        with storage_errors(self.path):
            with self.path.open("a") as file:
                file.write("".join(line + "\n" for line in self.lines))
            if self.board is not None:
                self.board.file.flush()
        self.lines = []

    def close(self) -> None:
        if self.board is not None:
            with storage_errors(self.path):
                self.board.file.close()


class EventFile:
    """Scalars as TensorBoard reads them, written by this thread.

    torch's SummaryWriter writes by a thread of its own, which ends in a traceback when the folder is deleted meanwhile.
    Steps from `purge_step` on of earlier files are left out by TensorBoard.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = (folder / f"events.out.tfevents.{time.time_ns():020}.{os.getpid()}").open("wb")
        self.records, self.event = RecordWriter(self.file), Event
        start = SessionLog(status=SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=purge_step, session_log=start)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Raises StorageError."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:
        with storage_errors(Path(self.file.name)):
            self.records.write(self.event(wall_time=time.time(), **fields).SerializeToString())


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in read_bytes(path, largest=LARGEST_LOG).decode(errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def curve(lines: Sequence[Mapping[str, Any]], name: str = "student") -> list[tuple[int, float]]:
    """(step, loss) of one network."""
    return [(int(line["step"]), float(line[name])) for line in lines if name in line]
