"""Losses of a training stage: lines of JSON in `log.jsonl`, and TensorBoard files where that is installed."""

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgegen.support.bounded_files import read_bytes
from edgegen.support.storage import atomic_path, storage_errors

LOG = "log.jsonl"
HELDOUT = "heldout"  # in a line: the loss on images kept from training
WARNINGS = "warnings"  # in a line: the faults that the losses and figures show, in words
FLUSH_S = 2.0  # most seconds that a line waits for others, where somebody looks at a training
LARGEST_LOG = 1 << 30  # bytes; a line of a million steps has a hundred


class TrainingLog:
    """Written by the first process only; lines of steps after the checkpoint, left by a kill, are removed."""

    def __init__(self, folder: Path, first: int, *, enabled: bool) -> None:
        self.path, self.enabled = folder / LOG, enabled
        self.lines: list[str] = []
        self.flushed = time.monotonic()
        self.board: _Board | None = None
        if not enabled:
            return
        kept = [line for line in read(self.path) if line["step"] <= first]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        if importlib.util.find_spec("tensorboard"):
            self.board = _Board(folder / "tensorboard", first)

    def add(
        self,
        step: int,
        losses: Mapping[str, float],
        rate: float,
        *,
        figures: Mapping[str, float] = MappingProxyType({}),
        warnings: Sequence[str] = (),
    ) -> None:
        if self.board is not None:
            rows = {f"loss/{name}": value for name, value in losses.items()}
            rows |= {f"figure/{name}": value for name, value in figures.items()}
            self.board.add(step, rows | {"learning_rate": rate})
        line = {"step": step, **losses, **figures} | ({WARNINGS: list(warnings)} if warnings else {})
        self.lines.append(json.dumps(line))
        if self.enabled and time.monotonic() - self.flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Called just before a checkpoint, too, so that the log is never behind it. Raises StorageError."""
        with storage_errors(self.path), self.path.open("a") as file:
            file.write("".join(line + "\n" for line in self.lines))
        if self.board is not None:
            self.board.flush()
        self.lines, self.flushed = [], time.monotonic()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


class _Board:
    """A TensorBoard file, written here: torch's SummaryWriter does it in a thread, whose errors nobody can catch."""

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event = Event
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"
        with storage_errors(self.path):
            folder.mkdir(exist_ok=True)
            self.records = RecordWriter(self.path.open("wb"))
        self._write(file_version="brain.Event:2")
        # Later steps of a run that was killed are not shown.
        self._write(step=first + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=rows))

    def flush(self) -> None:
        with storage_errors(self.path):
            self.records.flush()

    def close(self) -> None:
        with storage_errors(self.path):
            self.records.close()

    def _write(self, **content: Any) -> None:
        with storage_errors(self.path):
            self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())


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


def last_warnings(path: Path) -> list[str]:
    """The faults in the last line of a log, in words."""
    lines = read(path)
    return list(lines[-1].get(WARNINGS, ())) if lines else []


def curve(lines: Sequence[Mapping[str, Any]], name: str = "student") -> list[tuple[int, float]]:
    """(step, loss) of one network."""
    return [(int(line["step"]), float(line[name])) for line in lines if name in line]
