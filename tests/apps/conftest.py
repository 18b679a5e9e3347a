"""A browser for the tests of pages."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from web_project import browsers


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
