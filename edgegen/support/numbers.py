"""Numbers in texts of users and devices: finite, in a range, in plain digits; None for all else."""

import math
import re

LARGEST_WHOLE = (1 << 63) - 1
DIGITS = re.compile(r"[+-]?[0-9]{1,20}")  # str.isdigit knows more, such as "²", which int does not read


def whole(text: str, *, least: int = 0, most: int = LARGEST_WHOLE) -> int | None:
    """A whole number from `least` to `most`."""
    text = text.strip()
    value = int(text) if DIGITS.fullmatch(text) else None
    return value if value is not None and least <= value <= most else None


def number(text: str, *, least: float = 0.0, most: float = 1e18) -> float | None:
    """A number from `least` to `most`; never infinite or NaN."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and least <= value <= most else None
