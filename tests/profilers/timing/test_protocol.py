"""Jobs in worker processes: order, and what a crash, a hang, a print and a fat parent do. No timing is asserted."""

import os
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgegen.errors import UsageError
from edgegen.profilers.devices.device import Busy
from edgegen.profilers.devices.host import DEVICE, HostDevice
from edgegen.profilers.timing.jobs import PythonJob
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import ProfileOptions, Timing, _judge, measure, timed

HERE = "openers_for_tests"
QUICK = ProfileOptions(min_runs=5, max_seconds=0.1, timeout_seconds=60.0)
GOOD = PythonJob("good", f"{HERE}:only_preloaded")


@pytest.fixture(autouse=True)
def _openers_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def job(name: str, /, **arguments: object) -> PythonJob:
    return PythonJob(name, f"{HERE}:{name}", arguments)


def test_blocks_of_the_jobs_take_turns_in_processes_that_stay(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [PythonJob(label, f"{HERE}:logging", {"file": str(log), "label": label}, threads=3) for label in "ABC"]
    latencies = measure(jobs, options=QUICK)
    lines = [line.split() for line in log.read_text().splitlines()]

    visits = "".join(label for label, _ in groupby(label for label, _, _ in lines))
    # Cold and warm-up, then rounds of blocks in changing order; a job that is done drops out of the last ones.
    assert visits.startswith("ABC" * 2), visits
    assert min(visits.count(label) for label in "ABC") >= 4, visits
    assert "ABC" * 4 not in visits
    assert len({process for _, process, _ in lines}) == 3
    assert {threads for _, _, threads in lines} == {"3"}
    assert list(latencies) == ["A", "B", "C"]
    for label, latency in latencies.items():
        ran = sum(line[0] == label for line in lines)
        assert latency.reason == ""
        assert latency.p50_ms is not None
        assert latency.p50_ci95_ms is not None
        assert latency.p90_ms is not None
        assert latency.p50_ci95_ms[0] <= latency.p50_ms <= latency.p50_ci95_ms[1]
        assert latency.p50_ms <= latency.p90_ms
        assert 0 < latency.runs <= ran - 1 - 3, "the first inference and the warm-up are not among the runs"


def test_cold_starts_are_fresh_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [PythonJob(label, f"{HERE}:logging", {"file": str(log), "label": label}) for label in "AB"]
    measure(jobs, options=ProfileOptions(min_runs=1, max_seconds=0.02, cold_starts=3))
    lines = log.read_text().splitlines()
    assert len(set(lines)) == 2 * 3
    assert "".join(line[0] for line in lines[:4]) == "ABAB"


def test_one_job_that_fails_leaves_the_others_alone() -> None:
    secret = "/home/somebody/run/net.onnx"
    jobs = [
        job("raising", path=secret),
        job("aborting"),
        job("closing_stdout"),
        PythonJob("missing", "no_such_module_anywhere:open"),
        PythonJob("unknown", f"{HERE}:no_such_function"),
        GOOD,
    ]
    latencies = measure(jobs, options=QUICK)
    assert latencies["raising"].reason == "ended with exit code 1: ValueError: net.onnx is not a model"
    assert latencies["aborting"].reason.startswith("ended by SIGABRT")
    assert "no_such_module_anywhere" in latencies["missing"].reason
    assert "no_such_function" in latencies["unknown"].reason
    assert "Bad file descriptor" in latencies["closing_stdout"].reason
    for label, latency in latencies.items():
        assert (latency.p50_ms is None) == (label != "good")
        assert (latency.converged is None) == (label != "good")
    assert latencies["good"].load_ms is not None
    assert latencies["good"].first_ms is not None


def test_a_job_that_dies_while_warm_keeps_its_cold_figures() -> None:
    latency = measure([job("failing_later", after=6)], options=QUICK)["failing_later"]
    assert latency.p50_ms is None
    assert latency.runs == 0
    assert latency.first_ms is not None
    assert latency.peak_rss_bytes is not None
    assert latency.reason == "ended with exit code 7, nothing on stderr"


def test_a_hang_is_ended_and_the_others_go_on() -> None:
    options = ProfileOptions(min_runs=5, max_seconds=0.1, timeout_seconds=5.0)
    latencies = measure([job("hanging"), GOOD], options=options)
    assert latencies["hanging"].reason == "no answer within 5 s: the process was ended"
    assert latencies["good"].p50_ms is not None


def test_preload_comes_first_and_gets_the_arguments_if_it_takes_any() -> None:
    jobs = [
        GOOD,
        job("preloaded_with", backend="onnx"),
        PythonJob("plain", "plain_opener_for_tests:waiting", {"unused": 1}),
    ]
    assert [latency.reason for latency in measure(jobs, options=QUICK).values()] == ["", "", ""]


def test_what_a_library_prints_does_not_reach_the_protocol() -> None:
    latency = measure([job("printing")], options=QUICK)["printing"]
    assert latency.reason == ""
    assert latency.p50_ms is not None
    assert latency.p50_ms > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="ru_maxrss of other systems is not inherited")
def test_peak_memory_is_the_workers_own() -> None:
    fat = b"x" * (300 << 20)
    latencies = measure([GOOD, job("filling", megabytes=64)], options=QUICK)
    small, large = latencies["good"].peak_rss_bytes, latencies["filling"].peak_rss_bytes
    assert small is not None
    assert large is not None
    assert small < len(fat) // 4, "the parent's memory was counted"
    assert (64 << 20) - (4 << 20) < large - small < (64 << 20) + (8 << 20)


def test_a_module_in_the_current_folder_does_not_replace_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    assert measure([GOOD], options=QUICK)["good"].reason == ""


class Watched(HostDevice):
    """Whose system says what the test says: core-seconds used and stolen, at the start and at the end."""

    def __init__(self, *answers: Busy) -> None:
        super().__init__()
        self.answers = list(answers)

    def busy(self) -> Busy | None:
        return self.answers.pop(0) if self.answers else None


def test_what_other_programs_used_makes_the_times_doubtful() -> None:
    _, noise = timed([GOOD], device=Watched(Busy(10.0, 1.0), Busy(10_000.0, 500.0)), options=QUICK)
    others, stolen, *_ = noise.reasons()
    assert "other programs used" in others
    assert "the hypervisor kept" in stolen
    _, quiet = timed([GOOD], device=Watched(Busy(10.0, 1.0), Busy(10.0, 1.0)), options=QUICK)
    assert replace(quiet, drift=None).reasons() == []
    _, unknown = timed([GOOD], device=Watched(), options=QUICK)
    assert (unknown.others_cores, replace(unknown, drift=None).reasons()) == (None, [])


def test_a_processor_that_slows_down_meanwhile_makes_the_times_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that answers 10 ms for the fixed arithmetic before the warm runs and 12 ms after them."""
    answers, ask_worker = iter([10.0, 12.0]), Worker.ask

    def ask(self: Worker, command: str, *words: object) -> dict[str, Any]:
        answer = ask_worker(self, command, *words)
        return {**answer, "probe_ms": next(answers)} if command == "probe" else answer

    monkeypatch.setattr(Worker, "ask", ask)
    _, noise = timed([GOOD], device=Watched(), options=QUICK)
    assert noise.drift == pytest.approx(0.2)
    assert noise.reasons() == ["the processor became 20% slower meanwhile"]


def test_what_our_own_worker_uses_is_not_others() -> None:
    """A worker that computes all the time, on a device that counts nothing but it."""
    busy = PythonJob("busy", f"{HERE}:computing")
    timings, noise = timed([busy], device=Watched(Busy(0.0, 0.0), Busy(0.01, 0.0)), options=QUICK)
    assert timings[0].cpu_ms > 0
    assert noise.others_cores == 0.0


def test_a_median_that_is_known_when_the_time_is_up_has_settled() -> None:
    """Between two looks, too."""
    options = ProfileOptions(min_runs=5, max_seconds=0.02 * 11)
    state = Timing(GOOD, blocks=[np.full(10, 2.0)] * 11, next_look=12)
    _judge(state, options, 220.0)
    assert state.done
    assert state.converged
    few = Timing(GOOD, blocks=[np.full(10, 22.0)])
    _judge(few, options, 220.0)
    assert few.done
    assert not few.converged, "one block says nothing of the next"


def test_no_process_is_left_behind() -> None:
    import psutil

    before = {child.pid for child in psutil.Process().children()}
    measure([GOOD, job("aborting")], options=QUICK)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_labels_are_unique() -> None:
    with pytest.raises(UsageError, match="two jobs have the label 'good': give each its own"):
        measure([GOOD, GOOD])


@pytest.mark.parametrize("opener", ["module", "module:", ":function", "module:two words"])
def test_an_opener_names_a_function(opener: str) -> None:
    with pytest.raises(UsageError, match=f"x: the opener '{opener}' is not of the form 'module:function'"):
        measure([PythonJob("x", opener)])


def test_the_registry_has_the_host() -> None:
    from edgegen import registry

    assert registry.load("device", "host")("") is DEVICE
    assert DEVICE.name == "host"
    assert measure([]) == {}


def test_probe_tells_the_machine_and_no_name() -> None:
    machine = DEVICE.probe()
    assert machine["threads"] == os.cpu_count()
    assert machine["memory_bytes"] > 1 << 28
    assert machine["cpu"] is None or machine["cpu"]
    assert os.uname().nodename not in {str(value) for value in machine.values()}
