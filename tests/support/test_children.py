"""Processes that are kept for the next piece of work: which is taken again, and which is not."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from edgegen.errors import DataError, ExportError
from edgegen.support import children as module
from edgegen.support import isolation
from edgegen.support.children import Children


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    (tmp_path / "kept.py").write_text(
        """
import os, sys, time
from edgegen.errors import DataError
from edgegen.support import isolation

ahead = []
def imports(*, of): ahead.append(of)
def work(): return {"pid": os.getpid(), "ahead": ahead}
def nested(): return {"own": os.getpid(), "nested": isolation.call("kept:work", {}).value["pid"]}
def grows(nbytes): held = bytearray(nbytes); held[::4096] = b"1" * len(held[::4096])
def hoards(): ahead.append(bytearray(300_000_000))
def bad(): raise DataError("net.safetensors: cut short")
def dies(): os._exit(3)
def talks(): print("of the first", file=sys.stderr, flush=True)
def sleeps(): time.sleep(60)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    with Children() as kept:
        yield kept
    assert not kept_processes()


def kept_processes() -> list[int]:
    return [row.pid for row in psutil.Process().children() if "edgegen.support.isolation" in row.cmdline()]


def call(children: Children, function: str, of: str = "a", **arguments: object) -> isolation.Outcome:
    with children.child("kept:imports", of=of) as child:
        return isolation.call(f"kept:{function}", arguments, child=child)


def test_one_that_waits_is_taken_again_for_the_same_imports_alone(children: Children) -> None:
    first = call(children, "work").value
    assert first["ahead"] == ["a"]
    assert call(children, "work").value == first
    other = call(children, "work", of="b").value
    assert other["pid"] != first["pid"]
    assert other["ahead"] == ["b"]
    assert call(children, "work").value == first


def test_what_works_is_not_taken(children: Children) -> None:
    with children.child("kept:imports", of="a") as one, children.child("kept:imports", of="a") as other:
        assert one is not other
    assert {call(children, "work").value["pid"] for _ in range(2)} <= {one.process.pid, other.process.pid}


def test_after_an_error_or_a_death_there_is_a_new_one(children: Children) -> None:
    first = call(children, "work").value["pid"]
    with pytest.raises(DataError, match="cut short"):
        call(children, "bad")
    second = call(children, "work").value["pid"]
    assert second != first
    call(children, "talks")
    with pytest.raises(ExportError, match=r"ended with exit code 3, nothing on stderr$"):
        call(children, "dies")
    assert call(children, "work").value["pid"] not in (first, second)


def test_one_that_was_killed_while_it_waited_is_not_taken(children: Children) -> None:
    process = psutil.Process(call(children, "work").value["pid"])
    process.kill()
    children._idle[0][1].process.wait(60)
    assert call(children, "work").value["pid"] != process.pid


def test_one_that_has_grown_is_ended(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHILD_BYTES", 200_000_000)
    first = call(children, "work").value["pid"]
    call(children, "hoards")
    assert not psutil.pid_exists(first)
    assert call(children, "work").value["pid"] != first


def test_one_that_is_not_to_be_kept_is_ended(children: Children) -> None:
    first = call(children, "work").value["pid"]
    with children.child("kept:imports", keep=False, of="a") as child:
        assert child.process.pid == first
    assert not psutil.pid_exists(first)


def test_the_peak_of_memory_is_that_of_one_call(children: Children) -> None:
    """VmHWM is begun anew on Linux; elsewhere later ones are read from outside, now and then."""
    before, large, small = (call(children, "grows", nbytes=nbytes).peak_rss_bytes for nbytes in (0, 300_000_000, 0))
    assert before is not None
    if sys.platform == "linux":
        assert large is not None
        assert small is not None
        assert large > 300_000_000 > 200_000_000 > small


def test_what_a_child_calls_runs_in_it(children: Children) -> None:
    value = call(children, "nested").value
    assert value["own"] == value["nested"]


def test_the_end_reaches_those_that_work(children: Children) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call, children, "sleeps")
        until = time.monotonic() + 60
        while not (children._busy and children._busy[0][1].job.exists()):  # it has its order
            assert time.monotonic() < until
            time.sleep(0.01)
        children.close()
        with pytest.raises(ExportError, match="ended by SIGKILL"):
            future.result(20)
