"""Figures as text, the same in HTML and Markdown: three significant digits, units, and a dash for what is not known."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

UNKNOWN = "\N{EN DASH}"
# What an artifact is against PyTorch: "ok" alone would read as a verdict on the images.
PARITY_TEXT = {"ok": "same as PyTorch", "failed": "failed", "not checked": "not checked"}
TIMES = "\N{MULTIPLICATION SIGN}"
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


OF_SIGNALS = {  # words of a report on images, and those of one on signals
    r"\bblack or white\b": "at an end of the range",
    r"\bimage(s?)\b": r"signal\1",
    r"\bpixels\b": "values",
    r"\bImage(s?)\b": r"Signal\1",
}


def worded(text: str, kind: str) -> str:
    """A sentence about images, said of what the run makes: "image" or "signal"."""
    for pattern, words in OF_SIGNALS.items() if kind == "signal" else ():
        text = re.sub(pattern, words, text)
    return text


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits without an exponent between 0.001 and 10 million: 0.604, 61.2, 1,230."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 7:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - magnitude)
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def count(value: int | None) -> str:
    """With thousands separators: 648,210."""
    return UNKNOWN if value is None else f"{value:,}"


def short_count(value: int) -> str:
    """648 k, 12.3 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return str(value)


def nbytes(value: int | None) -> str:
    """Decimal units, as file managers and phone makers count: 203 kB, 2.59 MB."""
    if value is None:
        return UNKNOWN
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return f"{value} B"


def percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """0.31 s, 4.2 s, 3 min 05 s, 2 h 04 min."""
    if value < 60:
        return f"{number(value, 2)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def ratio(value: float) -> str:
    """A factor: 102, 4.1."""
    return number(value, 3 if value >= 100 else 2)


def plural(amount: int, word: str) -> str:
    return f"{amount:,} {word}" if amount == 1 else f"{amount:,} {word}s"


def value(content: Any) -> str:
    """A machine's or a version's entry, whatever its type."""
    if content is None:
        return UNKNOWN
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, float):
        return number(content)
    if isinstance(content, list | tuple):
        return ", ".join(value(item) for item in content)
    if isinstance(content, Mapping):
        return ", ".join(f"{key} {value(item)}" for key, item in content.items())
    return str(content)


def toml(table: Mapping[str, Any], *, path: tuple[str, ...] = ()) -> str:
    """The recipe in the form in which it is written; keys without a value are left out."""
    plain = {key: item for key, item in table.items() if item is not None and not isinstance(item, Mapping)}
    lines = [f"{_key(key)} = {_toml_value(item)}" for key, item in plain.items()]
    if path and (lines or not table):
        lines.insert(0, f"[{'.'.join(_key(part) for part in path)}]")
    blocks = ["\n".join(lines)] if lines else []
    blocks += [toml(item, path=(*path, key)) for key, item in table.items() if isinstance(item, Mapping)]
    return "\n\n".join(block for block in blocks if block)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _toml_value(key)


def _toml_value(item: Any) -> str:
    if isinstance(item, list | tuple):
        return f"[{', '.join(_toml_value(part) for part in item)}]"
    if isinstance(item, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml_value(part)}" for key, part in item.items()) + " }"
    return json.dumps(item, ensure_ascii=False)  # strings, numbers and booleans are written alike in both


def markdown(text: str) -> str:
    """Plain text inside a Markdown table or heading: nothing in it makes a cell, a tag, a link or emphasis."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
