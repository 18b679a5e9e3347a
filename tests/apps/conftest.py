"""A browser for the tests of pages, and the page of a small bundle, built once."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from bundles import bundled, exported
from web_project import browsers, built

from edgegen.apps.project import write_app


@pytest.fixture(scope="module")
def start_browser() -> Iterator[Callable[..., Any]]:
    with browsers() as start:
        yield start


@pytest.fixture(scope="module")
def chromium(start_browser: Callable[..., Any]) -> Iterator[Any]:
    started = start_browser()
    yield started
    started.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, in_process_during: Callable[[], AbstractContextManager[None]]
) -> Path:
    """Noise and ten classes to gray images, in float32 and in 8 bits; modules may have a bundle of their own."""
    place = tmp_path_factory.mktemp("web bundles") / "net"
    with in_process_during():
        return bundled(exported(place.with_name("export"), targets=("onnx-fp32", "onnx-w8a8")), place)


@pytest.fixture(scope="session")
def dist(bundle: Path) -> Path:
    """The page of `bundle`, built."""
    project = bundle.parent / "a page"
    write_app("web", bundle, project, name='Net & "Co"')
    return built(project)
