"""Devices that are warm, and files that run for minutes; the phones here are made up, no test waits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_nets import sigmoid

from edgegen.profilers.devices.host import DEVICE, HostDevice
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.timing import thermal
from edgegen.profilers.timing.jobs import PythonJob
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.profilers.timing.sustained import sustained
from edgegen.profilers.timing.thermal import cooled
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=60.0, warm_seconds=0.0)
COOL: Mapping[str, Any] = {"battery_c": 31.0, "thermal_status": 0}


class Phone(HostDevice):
    """This machine, saying of its heat what the test says, the last for ever."""

    def __init__(self, *states: Mapping[str, Any]) -> None:
        super().__init__()
        self.states = list(states)

    def probe(self) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {**super().probe(), **state}


class Notes(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only `sleep` moves."""
    waited: list[float] = []
    monkeypatch.setattr(thermal.time, "sleep", waited.append)
    monkeypatch.setattr(thermal.time, "monotonic", lambda: sum(waited))
    return waited


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"battery_c": 38.5, "thermal_status": None}, "battery at 38.5 °C"),
        ({"battery_c": 30.0, "thermal_status": 1}, "thermal status 1"),
    ],
)
def test_a_warm_phone_is_given_time(state: Mapping[str, Any], why: str, waits: list[float]) -> None:
    notes = Notes()
    later = cooled(Phone(state, COOL), {**state}, notes)
    assert (later["battery_c"], later["thermal_status"]) == (31.0, 0)
    assert len(waits) == 2
    assert notes.messages == [f"the device is warm ({why}): waiting until it has cooled down, 5 min at most"]


def test_no_phone_is_waited_for_longer_than_five_minutes(waits: list[float]) -> None:
    hot = {"battery_c": 45.0, "thermal_status": 3}
    assert cooled(Phone(hot), hot, Silent())["thermal_status"] == 3
    assert sum(waits) == thermal.WAIT_S


def test_what_says_nothing_of_its_heat_is_not_waited_for(waits: list[float]) -> None:
    state = DEVICE.probe()
    assert cooled(DEVICE, state, Silent()) is state
    assert not waits


def test_a_phone_that_grows_too_warm_is_measured_once_more(tmp_path: Path, in_process: None) -> None:
    files, hot = [sigmoid(tmp_path / "net.onnx")], {"battery_c": 41.0, "thermal_status": 2}
    measured = profile_files(files, Phone(COOL, hot, COOL), options=FEW, progress=Silent())
    assert not [reason for reason in measured.results[0].verdict.reasons if "thermal" in reason]
    assert measured.after["thermal_status"] == 0
    still = profile_files(files, Phone(COOL, hot, COOL, hot), options=FEW, progress=Silent())
    assert still.results[0].verdict.status == "noisy"
    assert "thermal status 2: the device slows itself down" in still.results[0].verdict.reasons
    assert still.after["thermal_status"] == 2


def test_a_file_that_becomes_slower_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a made-up worker: 100 ms a run in the first second, 400 ms after that."""
    answers = [[100.0] * 5, [100.0] * 5, *[[400.0]] * 20]

    class Made:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> "Made":
            return self

        def __exit__(self, *_: object) -> None: ...

        def ready(self) -> "Made":
            return self

        def ask(self, command: str, *_: object) -> dict[str, object]:
            return {"samples_ms": answers.pop(0) if command == "block" else None}

    monkeypatch.setattr("edgegen.profilers.timing.sustained.Worker", Made)
    job = PythonJob("slowing", "openers_for_tests:slowing")
    measured = sustained(job, DEVICE, seconds=8.9, timeout_s=60.0, progress=Silent())
    assert (measured.seconds, measured.runs, measured.first_p50_ms, measured.last_p50_ms) == (9.0, 30, 100.0, 400.0)
    assert not answers
