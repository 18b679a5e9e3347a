"""The choice of `edgegen tune`, with a made-up clock: planted rewrites, slow, fast, and fast but wrong."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgegen.artifacts.target import Target, check_targets, checked_targets
from edgegen.artifacts.tuned_files import check_tuning, evidence, timed_targets
from edgegen.artifacts.tuning import Candidate, Choice, Trial, search
from edgegen.artifacts.tuning_switches import speed_switches
from edgegen.cli.main import app
from edgegen.errors import DeviceError, ParityError, UsageError
from edgegen.formats.tuned import sentence, table
from edgegen.recipe import Export, Files

ONNX, PTE = Target("onnx", "fp32"), Target("executorch", "fp32")
SWITCHES = [("a", False), ("b", False), ("c", False), ("d", True), ("e", True)]
ABOUT = {"name": "host", "cpu": "made up", "model": None, "arch": "x86_64", "threads": 2}


class MadeUp:
    """`factors` by (rewrite, on): how the time changes; `wrong` are not proven; what ran is in `compared`."""

    def __init__(
        self,
        seed: int,
        *,
        factors: dict[tuple[str, bool], float],
        wrong: Sequence[tuple[str, bool]] = (),
        plain_ms: dict[Target, float] | None = None,
        failing: Sequence[Target] = (),
    ) -> None:
        self.rng, self.factors, self.wrong, self.failing = np.random.default_rng(seed), factors, set(wrong), failing
        self.plain_ms = plain_ms or {ONNX: 10.0, PTE: 30.0}
        self.compared: list[Candidate] = []

    def compare(self, reference: Candidate, candidates: Sequence[Candidate], *, final: bool = False) -> list[Trial]:
        hour = self.rng.uniform(0.8, 1.25)  # a slow or fast one of the machine, for all that run in turn
        self.compared += candidates
        return [self._trial(candidate, reference, hour) for candidate in candidates]

    def _trial(self, candidate: Candidate, reference: Candidate, hour: float) -> Trial:
        if self.wrong & set(candidate.changes) or candidate.target in self.failing:
            return Trial(candidate, reference, reason="failed", facts={"parity": {"status": "failed"}})
        blocks = [self._blocks(one, hour) for one in (candidate, reference)]
        return Trial(candidate, reference, blocks[0], blocks[1])

    def _blocks(self, candidate: Candidate, hour: float) -> tuple[np.ndarray, ...]:
        ms = hour * self.plain_ms[candidate.target] / candidate.threads**0.5
        ms *= math.prod(self.factors.get(change, 1.0) for change in candidate.changes)
        return tuple(ms * self.rng.normal(1.0, 0.02, 6) for _ in range(12))


def chosen(bench: MadeUp, threads: Sequence[int] = (1,)) -> Choice:
    return search(bench, [ONNX, PTE], lambda _: SWITCHES, threads=threads, seconds=60.0, clock=lambda: 0.0)


@pytest.mark.parametrize("seed", range(10))
def test_the_fastest_is_kept_and_never_a_wrong_one(seed: int) -> None:
    """Two rewrites help, one harms, one would help most and is wrong, one does nothing."""
    order = np.random.default_rng(seed).permutation(len(SWITCHES))
    first, second, harmful, wrong, _ = (SWITCHES[index] for index in order)
    factors = {first: 0.7, second: 0.85, harmful: 1.3, wrong: 0.1}
    choice = chosen(MadeUp(seed, factors=factors, wrong=[wrong]))
    assert choice.kept.candidate == Candidate(ONNX, tuple(sorted([first, second])))
    assert choice.is_complete
    assert choice.why.startswith("surely faster than the default, onnx-fp32, 1 thread: 0.")
    assert [trial.reason for trial in choice.trials if wrong in trial.candidate.changes] == ["failed"] * 2


@pytest.mark.parametrize("seed", range(10))
def test_what_the_interval_leaves_open_changes_nothing(seed: int) -> None:
    factors = {switch: 1 + offset for switch, offset in zip(SWITCHES, (0.01, -0.01, 0.0, 0.005, -0.005), strict=True)}
    choice = chosen(MadeUp(seed, factors=factors))
    assert choice.kept.candidate == choice.default == Candidate(ONNX)
    assert choice.why.startswith(("no candidate was faster", "in the last comparison no candidate was surely faster"))


def test_what_is_slower_is_not_measured_once_more() -> None:
    bench = MadeUp(0, factors=dict.fromkeys(SWITCHES, 1.5))
    choice = chosen(bench)
    assert choice.kept.candidate == choice.default
    assert choice.why == "no candidate was faster than the default"
    assert len(bench.compared) == len(set(bench.compared))


def test_another_runtime_and_more_threads_win_where_they_are_faster() -> None:
    choice = chosen(MadeUp(0, factors={("a", False): 0.8}, plain_ms={ONNX: 10.0, PTE: 5.0}), threads=(1, 2))
    assert choice.kept.candidate == Candidate(PTE, (("a", False),), threads=2)
    assert choice.default == Candidate(ONNX)


def test_a_default_that_is_wrong_is_not_the_default() -> None:
    choice = chosen(MadeUp(0, factors={}, failing=[ONNX]))
    assert choice.kept.candidate == choice.default == Candidate(PTE)
    assert [str(trial.candidate) for trial in choice.trials if trial.reason] == ["onnx-fp32, 1 thread"]
    with pytest.raises(ParityError, match=r"nothing to tune:\n  onnx-fp32, 1 thread: failed\n  executorch-fp32"):
        chosen(MadeUp(0, factors={}, failing=[ONNX, PTE]))


def test_nothing_new_is_begun_once_the_time_is_over() -> None:
    bench, times = MadeUp(0, factors={("a", False): 0.5}), iter([0.0, 0.0, 61.0, 61.0, 61.0])
    choice = search(bench, [ONNX, PTE], lambda _: SWITCHES, seconds=60.0, clock=lambda: next(times))
    assert not choice.is_complete
    assert choice.kept.candidate == Candidate(ONNX, (("a", False),))
    assert Candidate(ONNX, (("e", True),)) not in bench.compared
    assert not any(one.changes for one in bench.compared if one.target == PTE)


def test_the_manifest_has_every_measurement_and_the_reason() -> None:
    choice = chosen(MadeUp(1, factors={("a", False): 0.5}, wrong=[("b", False)]))
    facts = evidence(choice, ABOUT)
    assert (facts["kept"], facts["default"]) == ("onnx-fp32, without a, 1 thread", "onnx-fp32, 1 thread")
    assert (facts["rewrites"], facts["threads"], facts["all_tried"]) == ({"a": False}, 1, True)
    rows = {row["candidate"]: row for row in facts["candidates"]}
    assert rows["onnx-fp32, without b, 1 thread"]["verdict"] == "refused: failed"
    assert "p50_ms" not in rows["onnx-fp32, without b, 1 thread"]
    low, high = rows["onnx-fp32, without a, 1 thread"]["time_over_that_ci95"]
    assert 0.4 < low < 0.5 < high < 0.6
    assert sentence({"tuned": facts}).startswith("tuned on host (made up): onnx-fp32, without a, 1 thread, of ")
    assert any("| refused: failed |" in line for line in table({"tuned": facts}))
    assert table({}) == []
    assert sentence({}) == ""


def test_layers_that_stay_float_are_a_change_like_a_rewrite() -> None:
    narrow = ("float narrow convolutions", True)
    bench = MadeUp(1, factors={narrow: 0.6, ("a", False): 0.8})
    choice = search(bench, [ONNX], lambda _: [*SWITCHES, narrow], seconds=60.0, clock=lambda: 0.0)
    facts = evidence(choice, ABOUT, ["net.stem"])
    assert facts["kept"] == "onnx-fp32, without a, with float narrow convolutions, 1 thread"
    assert (facts["rewrites"], facts["float_layers"]) == ({"a": False}, ["net.stem"])


def test_the_switches_are_those_of_speed_that_nobody_set() -> None:
    switches = dict(speed_switches(ONNX, Export(rewrites={"einsum": False})))
    assert (switches["winograd"], switches["resampling"], switches["upsample_conv"]) == (False, False, True)
    assert "einsum" not in switches
    assert dict(speed_switches(Target("onnx", "fp32", "batch1"), Export()))["winograd"] is True
    of_pte = dict(speed_switches(PTE, Export()))
    assert (of_pte["winograd_rows"], of_pte["group_norm_spatial"], of_pte["einsum"]) == (False, False, True)
    assert "quantized_cat" not in of_pte
    of_rounded = dict(speed_switches(Target("onnx", "w8a8"), Export()))
    assert "winograd" not in of_rounded
    assert of_rounded["transposed_conv"] is False


def test_a_rewrite_that_is_not_there_is_refused() -> None:
    check_targets([ONNX], Export(rewrites={"winograd": False, "upsample_conv": True}))
    with pytest.raises(UsageError, match=r"export\.rewrites: no rewrite 'winogrd'.* Did you mean 'winograd'\?"):
        check_targets([ONNX], Export(rewrites={"winogrd": False}))


def test_the_command_lists_the_candidates_and_refuses_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text("[export]\nrewrites = { einsum = false }\n")
    arguments = ["tune", str(tmp_path), "--to", "onnx,executorch", "--threads", "1,2", "--dry-run"]
    plan = json.loads(CliRunner().invoke(app, [*arguments, "--recipe", str(tmp_path / "net.toml"), "--json"]).stdout)
    assert plan["default"] == plan["plain"][0] == "onnx-fp32, 1 thread"
    assert len(plan["plain"]) == 4
    assert "onnx-fp32, without winograd, 1 thread" in plan["changed"]
    assert not any("einsum" in one for one in plan["changed"] if one.startswith("onnx"))
    of_rounded = CliRunner().invoke(app, ["tune", str(tmp_path), "--to", "onnx-w8a8", "--dry-run"]).stdout
    assert "  with float layers of a kind: dense layers, 1x1 convolutions, narrow convolutions" in of_rounded
    text = CliRunner().invoke(app, arguments).stdout
    assert "float layers" not in text
    assert "default: onnx-fp32, 1 thread" in text
    assert "  with upsample_conv" in text
    refused = CliRunner().invoke(app, ["tune", "digits", "--device", "adb"]).exception
    assert str(refused) == 'digits is a recipe: write tune_on = "adb" into its table [export]'


def test_a_device_that_is_not_there_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="no device 'hots'"):
        checked_targets(["onnx"], Files(export=Export(tune_on="hots")))


def test_only_what_a_runner_times_is_tuned() -> None:
    assert timed_targets([Target("onnx", "w8a8", "qnn"), ONNX, PTE]) == [ONNX, PTE]
    with pytest.raises(UsageError, match="nothing to tune on host: no runner times onnx-w8a8:qnn"):
        check_tuning([Target("onnx", "w8a8", "qnn")], "host")
    with pytest.raises(UsageError, match="no device 'hots'"):
        check_tuning([ONNX], "hots")


def test_a_device_that_times_nothing_ends_the_search() -> None:
    class Lost(MadeUp):
        def compare(self, reference: Candidate, candidates: Sequence[Candidate], *, final: bool = False) -> list[Trial]:
            return [Trial(one, reference, reason="the clock is coarse") for one in candidates]

    with pytest.raises(DeviceError, match="the clock is coarse"):
        chosen(Lost(0, factors={}))
