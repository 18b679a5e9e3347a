"""Sample images as base64 PNG, or signals as line plots, in rows that share their noise."""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgegen.errors import DataError
from edgegen.report.formats import PARITY_TEXT, plural, worded
from edgegen.report.schema import Report
from edgegen.report.signals import signal_svg
from edgegen.types import Status

ORDER = (
    "low",
    "bicubic",
    "real",
    "autoencoder",
    "teacher",
    "scheduler",
    "slimmed",
    "student",
    "finished",
    "best_of_4",
    "baseline",
)
Kind = Literal["net", "real", "proven", "failed", "unchecked"]
KIND: Mapping[Status, Kind] = {"ok": "proven", "failed": "failed", "not checked": "unchecked"}
UNLIKE = "other images, not from this noise"
SMALL = 64  # pixels: images up to this width are enlarged with hard edges
MOST_SIGNALS = 6  # of a row: a line needs more width than an image


@dataclass(frozen=True)
class Row:
    """`images` are data: URIs; `real` images are others than those below them."""

    label: str
    detail: str
    images: tuple[str, ...]
    kind: Kind = "net"


@dataclass(frozen=True)
class Grid:
    """Rows of equally many images, each column from the same noise; `captions` name the columns, where given.

    `more` are the nets at the numbers of steps that they were not made for.
    """

    rows: tuple[Row, ...]
    more: tuple[Row, ...]
    captions: tuple[str, ...]
    columns: int
    pixelated: bool
    signals: bool = False


def grid(report: Report, pictures: Mapping[str, NDArray[Any]], captions: Sequence[str]) -> Grid | None:
    """The rows in order: real, the nets, the artifacts, anything else. Keys: "real", "teacher", "student-1" (a net at

    a number of steps), an artifact's file name, or any text; with "low", the small images that all others were made
    from, "real" has the true ones. Each value is uint8 (n, height, width, channels), with 1 or 3 channels; or signals
    (n, channels, length) in [-1, 1]. Raises DataError on another type or shape. None without pictures.
    """
    if not pictures:
        return None
    files = {row.file: row for row in report.artifacts}
    for key, images in pictures.items():
        _check(key, images)
    rows: list[Row] = []
    more: list[Row] = []
    mains = _mains(pictures)
    for key in sorted(pictures, key=lambda key: _rank(key, list(files))):
        uris = tuple(data_uri(image) for image in pictures[key][: _shown(pictures[key])])
        if key in files:
            status = files[key].parity.status
            detail = "parity failed" if status == "failed" else PARITY_TEXT[status]
            rows.append(Row(files[key].label, detail, uris, KIND[status]))
        else:
            row = _net_row(key, uris, is_true="low" in pictures)
            label, detail = (worded(text, report.data.kind) for text in (row.label, row.detail))
            (rows if key in mains else more).append(replace(row, label=label, detail=detail))
    columns = max(len(row.images) for row in (*rows, *more))
    if any(images.ndim == 3 for images in pictures.values()):
        return Grid(tuple(rows), tuple(more), tuple(captions)[:columns], columns, pixelated=False, signals=True)
    width = max(images.shape[2] for images in pictures.values())
    return Grid(tuple(rows), tuple(more), tuple(captions)[:columns], columns, width <= SMALL)


def _shown(images: NDArray[Any]) -> int:
    return MOST_SIGNALS if images.ndim == 3 else len(images)


def data_uri(image: NDArray[Any]) -> str:
    """A PNG of (height, width, channels) uint8, 1 or 3 channels; an SVG of a signal (channels, length)."""
    if image.ndim == 2:
        return "data:image/svg+xml;base64," + base64.b64encode(signal_svg(image).encode()).decode()
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _check(key: str, images: NDArray[Any]) -> None:
    if images.dtype == np.float32 and images.ndim == 3:
        return
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"pictures of '{key}': {images.dtype} {tuple(images.shape)}; "
            "they must be uint8 (n, height, width, channels), 1 or 3 channels, or float32 (n, channels, length)"
        )


def _parts(key: str) -> tuple[str, int | None]:
    """("teacher", 20) of "teacher-20"; ("teacher", None) of "teacher"."""
    parts = re.fullmatch(r"(\w+)-(\d+)", key)
    return (parts[1], int(parts[2])) if parts else (key, None)


def _mains(keys: Iterable[str]) -> set[str]:
    """All keys but the nets at other steps: the teacher is shown at its most steps, its students at their fewest."""
    by_net: dict[str, list[tuple[int, str]]] = {}
    for key in keys:
        net, steps = _parts(key)
        by_net.setdefault(net if net in ORDER else key, []).append((steps or 0, key))
    return {(max(rows) if net == "teacher" else min(rows))[1] for net, rows in by_net.items()}


def _rank(key: str, files: list[str]) -> tuple[int, int]:
    """Where a row goes."""
    net, steps = _parts(key)
    if net in ORDER:
        return ORDER.index(net), steps or 0
    return len(ORDER), files.index(key) if key in files else len(files)


def _net_row(key: str, uris: tuple[str, ...], *, is_true: bool) -> Row:
    net, steps = _parts(key)
    if net == "low":
        return Row("small images", "what all others were made from", uris, "real")
    if net == "bicubic":
        return Row("bicubic", "enlarged without a network", uris)
    if net == "real":
        label, detail = ("true images", "of those small ones") if is_true else ("real images", UNLIKE)
        return Row(label, detail, uris, "real")
    if net == "autoencoder":
        return Row("real images", "after the autoencoder alone", uris, "real")
    if net == "scheduler":
        return Row("teacher", f"by its own scheduler, {plural(steps or 0, 'step')}", uris)
    if net == "best_of_4":
        return Row("best of 4", "the student, its verifier chooses", uris)
    return Row(net if net in ORDER else key, "PyTorch" if steps is None else f"PyTorch, {plural(steps, 'step')}", uris)
