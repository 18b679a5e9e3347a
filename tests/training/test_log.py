"""The losses of a run as TensorBoard's own reader finds them, after a kill and a second start, too."""

import shutil
from pathlib import Path

import pytest

from edgegen.errors import StorageError
from edgegen.training.log import TrainingLog


def test_tensorboard_reads_what_is_written_and_forgets_the_steps_after_a_kill(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, steps in ((0, (10, 20, 30)), (10, (20,))):
        log = TrainingLog(tmp_path, first, enabled=True)
        for step in steps:
            log.add(step, {"student": 1.0 / step + first}, 0.5)
        log.flush()
        log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/student")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(10.05)),
    ]
    assert [event.step for event in events.Scalars("learning_rate")] == [10, 20]


def test_a_folder_that_is_gone_is_an_error_where_the_log_is_written(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "run", 0, enabled=True)
    shutil.rmtree(tmp_path / "run")
    log.add(10, {"student": 1.0}, 0.5)
    with pytest.raises(StorageError, match=r"cannot write .*log\.jsonl: No such file or directory"):
        log.flush()
    log.close()
