"""The made-up report as fixtures."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """The module beside this one: with `--import-mode=importlib` the tests' folder is not on sys.path."""
    name = "edgegen_tests_made_up_report"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("made_up.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def written(made_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the written report."""
    from edgegen.report import write

    folder = tmp_path_factory.mktemp("report")
    captions = [str(i % 10) for i in range(12)]
    write(folder, made_up.report(), pictures=made_up.pictures(), curves=made_up.curves(), captions=captions)
    return folder
