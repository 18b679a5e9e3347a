"""Figures as text."""

import math
import tomllib

import pytest

from edgegen.report import formats

DASH = formats.UNKNOWN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH),
        (math.nan, DASH),
        (math.inf, DASH),
        (0.0, "0"),
        (0.604, "0.604"),
        (61.24, "61.2"),
        (9.996, "10.0"),
        (99.96, "100"),
        (0.09996, "0.100"),
        (1234.4, "1,230"),
        (-12.34, "-12.3"),
        (1.234e-7, "1.23e-07"),
        (0.000412, "0.000412"),
        (2.5e7, "2.50e+07"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, DASH), (999, "999 B"), (203_377, "203 kB"), (2_592_840, "2.59 MB"), (25e9, "25.0 GB")]
)
def test_nbytes(value: int | None, text: str) -> None:
    assert formats.nbytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12"), (648_210, "648 k"), (1_250_000, "1.25 M"), (7e9, "7.00 G")])
def test_short_count(value: int, text: str) -> None:
    assert formats.short_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.31, "0.31 s"), (59.4, "59 s"), (184.2, "3 min 04 s"), (7440, "2 h 04 min")]
)
def test_seconds(value: float, text: str) -> None:
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, DASH), (True, "yes"), (2, "2"), ([2.75, 1.27], "2.75, 1.27"), ({"a": 1, "b": None}, f"a 1, b {DASH}")],
)
def test_value(content: object, text: str) -> None:
    assert formats.value(content) == text


@pytest.mark.parametrize(("value", "text"), [(None, DASH), (0.981, "98.1 %")])
def test_percent(value: float | None, text: str) -> None:
    assert formats.percent(value) == text


def test_toml_is_read_back_by_tomllib() -> None:
    recipe = {
        "name": 'a "name" \\ with | signs\nand lines',
        "seed": 3,
        "rate": 2e-3,
        "tiny": 1e-7,
        "flip": False,
        "an odd key": 1,
        "teacher": {"steps": 4, "folder": None, "model": {"channels": [24, 64], "attention": []}},
        "empty": {},
        "list": [{"a": 1}, {"b": [True]}],
    }
    expected = {**recipe, "teacher": {"steps": 4, "model": recipe["teacher"]["model"]}}  # type: ignore[index]
    assert tomllib.loads(formats.toml(recipe)) == expected


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("two\nlines", "two lines"),
        ("<script>", "&lt;script&gt;"),
        ("[link](x) `code` *bold*", "\\[link\\](x) \\`code\\` \\*bold\\*"),
        ("digits_onnx_w8a8.onnx", "digits_onnx_w8a8.onnx"),
        ("_emphasis_", "\\_emphasis\\_"),
    ],
)
def test_markdown(text: str, escaped: str) -> None:
    assert formats.markdown(text) == escaped
