"""The one loop: resumes to the bit, stops at a loss that is not finite, works in several processes."""

from pathlib import Path

import pytest
import torch
from training_runs import Stop, StopAt, train

from edgegen.errors import TrainingError
from edgegen.formats.stage_folder import CHECKPOINT
from edgegen.recipe import Training
from edgegen.training.batch import epoch_rows
from edgegen.training.log import curve, read
from edgegen.training.trainer import learning_rate


def test_a_run_that_was_broken_off_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "broken", progress=StopAt(30))
    resumed = train(tmp_path / "broken")
    for part in ("raw", "ema"):
        expected, got = getattr(whole, part).state_dict(), getattr(resumed, part).state_dict()
        assert all(torch.equal(expected[key], got[key]) for key in expected)
    steps = [line["step"] for line in read(tmp_path / "broken" / "log.jsonl")]
    assert steps == [10, 20, 30, 40, 45]
    assert curve(read(tmp_path / "whole" / "log.jsonl")) == curve(read(tmp_path / "broken" / "log.jsonl"))


def test_losses_that_stay_not_finite_stop_and_keep_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tmp_path / "run", progress=StopAt(30))
    kept = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(
        TrainingError, match=r"not finite at step 2\d of 45; the checkpoint of step 20 is kept .* Lower learning"
    ):
        train(tmp_path / "run", learning_rate=1e38, decay="none")
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == kept


def test_a_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    from edgegen.support.storage import save_tensors

    save_tensors(tmp_path / CHECKPOINT, {"net.student.x": torch.ones(1)}, metadata={"step": "3", "updates": "3"})
    with pytest.raises(TrainingError, match="not a checkpoint of teacher; delete it"):
        train(tmp_path)


def test_a_damaged_checkpoint_says_what_to_do_and_a_damaged_log_is_cleaned(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tmp_path, progress=StopAt(30))
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'\xff\xfe garbage\n{}\n{"step": 2')
    assert [line["step"] for line in read(tmp_path / "log.jsonl")] == [10, 20]
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:-7])
    with pytest.raises(TrainingError, match="not a checkpoint of teacher; delete it"):
        train(tmp_path)


def test_every_image_is_seen_once_an_epoch() -> None:
    rows = torch.cat([epoch_rows(20, step, 8, seed=3) for step in range(5)])
    assert sorted(rows[:20].tolist()) == list(range(20))
    assert sorted(rows[20:].tolist()) == list(range(20))
    assert rows[:20].tolist() != rows[20:].tolist()


def test_cosine_decay_starts_at_the_rate_and_ends_near_zero() -> None:
    settings = Training(steps=1000, learning_rate=0.1, warmup=10)
    assert learning_rate(settings, 0) == pytest.approx(0.01)
    assert learning_rate(settings, 500) == pytest.approx(0.05)
    assert learning_rate(settings, 999) < 1e-6
