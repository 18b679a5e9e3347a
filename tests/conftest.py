"""Fixtures of many tests."""

import contextlib
import gc
import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY, NoChild, command, environment

torch.set_num_threads(1)  # tiny nets: more threads only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in child processes, too
gc.set_threshold(50_000, 50, 50)  # capturing makes millions of small objects, few of which are garbage


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe file whose whole run takes seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def edgegen(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line in `tmp_path`: edgegen("run", "x.toml")."""

    def call(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False, **options
        )

    return call


class ServiceHere:
    """A `Service` whose object lives in this process."""

    alive = True

    def __init__(self, factory: str, *, variables: dict[str, str]) -> None:
        from edgegen.support import isolation, scratch

        self.served, self.folder = isolation.load(factory)(), scratch.new_folder()

    def call(self, method: str, arguments: dict[str, Any], **options: Any) -> Any:
        return getattr(self.served, method)(**arguments)

    def close(self) -> None:
        shutil.rmtree(self.folder)


def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `isolation.call` and a `Service` run, run here: a process needs seconds to import torch and a vendor."""
    import importlib

    from edgegen.support import isolation

    def call(function: str, arguments: dict[str, object], **options: Any) -> isolation.Outcome:
        module, _, name = function.partition(":")
        return isolation.Outcome(getattr(importlib.import_module(module), name)(**arguments), 0.0, None)

    monkeypatch.setattr(isolation, "call", call)
    monkeypatch.setattr("edgegen.verification.session_process.Service", ServiceHere)
    monkeypatch.setattr("edgegen.support.children.Child", NoChild)
    monkeypatch.setattr("edgegen.artifacts.maker.parallel_children", lambda generator: 1)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_here`, for one test."""
    run_here(monkeypatch)


@pytest.fixture(scope="module")
def in_process_of_module() -> Iterator[None]:
    """`run_here`, for the tests of a module and its fixtures."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_here(monkeypatch)
        yield


@pytest.fixture(scope="session")
def in_process_during() -> Callable[[], AbstractContextManager[None]]:
    """`run_here`, for a fixture of the whole session."""

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            run_here(monkeypatch)
            yield

    return during


@pytest.fixture(scope="session")
def traces() -> Callable[[bytes], list[str]]:
    """What in an artifact's bytes tells of the machine that built it."""
    folders = {str(Path.cwd()), str(Path.home()), tempfile.gettempdir(), str(Path(torch.__file__).parent), sys.prefix}
    clues = {*folders, "site-packages", ".py", getpass.getuser() + "@"}
    return lambda content: sorted(clue for clue in clues if clue.encode() in content)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first: at the end of a run no process waits long for another."""
    longest = ("test_families_by_runtime.py", "test_whole_run.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How tests are dealt out to processes: a module to one, so that its fixtures are made once.

    The families, of which each takes a minute, go one by one. Not by the mark xdist_group, which xdist 3.8 writes into
    a field that pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Modules(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return nodeid if module.endswith("test_families_by_runtime.py") else module

    config.option.loadscopereorder = False  # by number of tests, else
    return Modules(config, log)
