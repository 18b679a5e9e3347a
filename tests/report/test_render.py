"""The three files: complete, escaped, offline, the same from the same input, and silent about what is not known."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgegen.errors import DataError, MissingExtraError
from edgegen.report import write
from edgegen.report.schema import DataFacts
from edgegen.types import Latency, Parity

HOSTILE = "<script>alert(1)</script> & \"quotes' | pipes"
VOID = {"meta", "img", "br", "hr", "input", "link"}
SELF_CLOSED = {"path", "use", "rect", "line", "circle"}


class Checker(HTMLParser):
    """Collects ids, tags and addresses, and complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]
        assert not [name for name, _ in attrs if name.startswith("on")], "a script in an attribute"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def text_of(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_three_files_and_nothing_else(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"report.json", "report.md", "report.html"}


def test_the_page_is_well_formed_and_needs_no_network(written: Path) -> None:
    html = text_of(written, "report.html")
    assert html.startswith("<!doctype html>\n"), "anything before it puts browsers into quirks mode"
    checker = check(html)
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in checker.addresses)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_the_page_follows_the_scheme_of_the_reader(written: Path) -> None:
    html = text_of(written, "report.html")
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html
    assert "image-rendering: pixelated" in html


def test_every_row_of_pictures_is_there_in_order(written: Path) -> None:
    html = text_of(written, "report.html")
    label = r'<div class="label">([^<]+)<small>([^<]*)</small>'
    shown, more = html.split("<details>")
    labels = re.findall(label, shown)
    assert labels == [
        ("real images", "other images, not from this noise"),
        ("teacher", "PyTorch, 20 steps"),
        ("slimmed", "PyTorch, 1 step"),
        ("student", "PyTorch, 1 step"),
        ("baseline", "PyTorch, 1 step"),
        ("onnx fp32", "same as PyTorch"),
        ("onnx w8a8", "same as PyTorch"),
        ("executorch fp32", "same as PyTorch"),
        ("executorch w8a8", "parity failed"),
        ("coreml fp16", "same as PyTorch"),
    ]
    others = re.findall(label, more)
    assert others[:3] == [
        ("teacher", "PyTorch, 1 step"),
        ("teacher", "PyTorch, 2 steps"),
        ("teacher", "PyTorch, 4 steps"),
    ]
    assert others[3:] == [
        (net, f"PyTorch, {n} steps") for net in ("slimmed", "student", "baseline") for n in (2, 4, 20)
    ]
    assert html.count("data:image/png;base64,") == 12 * (len(labels) + len(others))


def test_both_texts_hold_the_same_figures(written: Path) -> None:
    html, markdown = text_of(written, "report.html"), text_of(written, "report.md")
    for figure in ("52.3", "0.598 to 0.612", "1,490", "41.6", "648,210", "20,736", "not checked", "equal", "25.3 GB"):
        assert figure in html
        assert figure in markdown
    assert "fd_local is not FID" in html
    assert "fd_local is not FID" in markdown
    assert "PSNR 24.3 dB is below the floor of 30 dB" in markdown
    assert "The machine was busy" in markdown


def test_markdown_tables_have_as_many_cells_as_columns(written: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", text_of(written, "report.md"), flags=re.MULTILINE)
    assert len(tables) == 10
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table


def test_the_same_report_gives_the_same_bytes(written: Path, made_up: ModuleType, tmp_path: Path) -> None:
    captions = [str(i % 10) for i in range(12)]
    write(tmp_path, made_up.report(), pictures=made_up.pictures(), curves=made_up.curves(), captions=captions)
    for path in written.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_what_a_user_wrote_is_text_and_never_markup(made_up: ModuleType, tmp_path: Path) -> None:
    facts = DataFacts(source=HOSTILE, train=1, heldout=1, image_shape=(1, 8, 8), classes=(HOSTILE,))
    last = made_up.artifacts()[-1].model_copy(
        update={
            "file": HOSTILE.replace("/", ""),
            "backend": HOSTILE,
            "latency": Latency(None, reason=HOSTILE),
            "parity": Parity("not checked", HOSTILE, 30.0, reason=HOSTILE),
        }
    )
    report = made_up.report(
        name=HOSTILE,
        data=facts,
        artifacts=(*made_up.artifacts()[:2], last),
        notes=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE},
        recipe={"name": HOSTILE, HOSTILE: {HOSTILE: 1}},
        elsewhere=[
            replace(
                made_up.elsewhere()[1],
                source=HOSTILE,
                file=HOSTILE,
                what=f"$x$ {HOSTILE}",
                device=HOSTILE,
                notes=(HOSTILE,),
            )
        ],
    )
    pictures = {"real": made_up.pictures()["real"], HOSTILE: made_up.pictures()["real"]}
    write(tmp_path, report, pictures=pictures, curves={HOSTILE: [(1, 1.0), (2, 0.5)]}, captions=[HOSTILE])
    html, markdown = text_of(tmp_path, "report.html"), text_of(tmp_path, "report.md")
    assert "script" not in check(html).tags
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in markdown.replace("    ", "").split("## Recipe")[0]
    assert json.loads(text_of(tmp_path, "report.json"))["name"] == HOSTILE
    for table in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_a_report_of_unknowns_says_so_and_invents_nothing(made_up: ModuleType, tmp_path: Path) -> None:
    row = made_up.artifacts()[-1]
    quality = made_up.report().quality.model_copy(
        update={"baseline": None, "teacher": {}, "slimmed": {}, "student": {}, "floor": {}}
    )
    report = made_up.report(
        elsewhere=(),
        artifacts=(row,),
        torch_latency=(),
        quality=quality,
        macs=None,
        stages=(),
        notes=(),
        machine={},
        versions={},
    )
    write(tmp_path, report, pictures={}, curves={})
    html, markdown = text_of(tmp_path, "report.html"), text_of(tmp_path, "report.md")
    check(html)
    assert html.count('class="card figure"') == 1  # the parameters are known
    assert "1 not checked" in html
    assert "1 not checked" in markdown
    assert "<h2>Samples</h2>" not in html
    assert "nan" not in re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL).lower()


def test_an_old_report_stays_when_a_new_one_cannot_be_made(
    written: Path, made_up: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, made_up.report(), pictures={}, curves={})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError):
        write(tmp_path, made_up.report(name="new"), pictures={"student": np.zeros((1, 8, 8))}, curves={})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), r"float32 \(2, 8, 8, 1\)"),
        (np.zeros((2, 8, 8), np.uint8), r"uint8 \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"uint8 \(2, 8, 8, 4\)"),
    ],
)
def test_pictures_of_another_kind_are_refused(images: Any, kind: str, made_up: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"pictures of 'student': {kind}; they must be uint8"):
        write(tmp_path, made_up.report(), pictures={"student": images}, curves={})


def test_large_colour_pictures_are_not_pixelated(made_up: ModuleType, tmp_path: Path) -> None:
    pictures = {"student": np.random.default_rng(0).integers(0, 255, (3, 96, 96, 3), dtype=np.uint8)}
    write(tmp_path, made_up.report(), pictures=pictures, curves={})
    assert 'class="strip"' in text_of(tmp_path, "report.html")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_the_extra_is_named_when_it_is_missing(
    package: str, made_up: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(MissingExtraError, match=rf"the report needs '{package}'.*pip install 'edgegen\[report\]'"):
        write(tmp_path, made_up.report(), pictures={}, curves={})
    assert list(tmp_path.iterdir()) == []
