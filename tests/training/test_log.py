"""The log of a training: what TensorBoard reads of it, and a folder that is deleted meanwhile."""

import shutil
import threading
from pathlib import Path

import pytest

from edgegen.errors import StorageError
from edgegen.training.log import TrainingLog, read


def test_tensorboard_reads_what_was_written_and_leaves_out_what_a_kill_undid(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 5), (3, 6)):  # killed after step 5, with a checkpoint of step 3
        log = TrainingLog(tmp_path, first, enabled=True)
        for step in range(first + 1, last + 1):
            log.add(step, {"student": first + step / 10}, 0.5)
        log.flush()
        log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["learning_rate", "loss/student"]
    losses = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss/student")]
    assert losses == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 3.4), (5, 3.5), (6, 3.6)]
    assert [line["step"] for line in read(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_folder_that_is_deleted_meanwhile_is_one_error(tmp_path: Path) -> None:
    before = threading.active_count()
    log = TrainingLog(tmp_path / "run", 0, enabled=True)
    log.add(1, {"student": 1.0}, 0.5)
    assert threading.active_count() == before  # no thread whose traceback nobody catches
    shutil.rmtree(tmp_path / "run")
    log.add(2, {"student": 1.0}, 0.5)
    with pytest.raises(StorageError, match=r"cannot write .*log\.jsonl: No such file"):
        log.flush()
    log.close()
