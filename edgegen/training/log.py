"""Losses of a training stage: lines of JSON in `log.jsonl`, and TensorBoard files where that is installed."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgegen.errors import StorageError
from edgegen.support.storage import atomic_path

LOG = "log.jsonl"
HELDOUT = "heldout"  # in a line: the loss on images kept from training


class TrainingLog:
    """Written by the first process only; lines of steps after the checkpoint, left by a kill, are removed."""

    def __init__(self, folder: Path, first: int, *, enabled: bool) -> None:
        self.path = folder / LOG
        self.lines: list[str] = []
        self.board: Any = None
        if not enabled:
            return
        kept = [line for line in read(self.path) if line["step"] <= first]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def add(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        if self.board is not None:
            for name, value in losses.items():
                self.board.add_scalar(f"loss/{name}", value, step)
            self.board.add_scalar("learning_rate", rate, step)
        self.lines.append(json.dumps({"step": step, **losses}))

    def flush(self) -> None:
        """Called just before a checkpoint, so that the log is never behind it."""
        try:
            with self.path.open("a") as file:
                file.write("".join(line + "\n" for line in self.lines))
        except OSError as e:
            raise StorageError(f"{self.path}: cannot be written: {e.strerror}") from e
        self.lines = []

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a log; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def curve(lines: Sequence[Mapping[str, Any]], name: str = "student") -> list[tuple[int, float]]:
    """(step, loss) of one network."""
    return [(int(line["step"]), float(line[name])) for line in lines if name in line]
