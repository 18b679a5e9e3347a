"""What Lighthouse and people without a mouse look at in a page: head, names, contrast, targets, keyboard, shifts."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app_parts
import numpy as np
import pytest
import web_project
from app_bundles import photo_bundle
from PIL import Image
from text_pipelines import text_bundle
from web_project import host, pictures, settled

from edgegen.apps.project import TEMPLATES, write_app

REASON = app_parts.no_page()
pytestmark = [
    pytest.mark.apps,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
    pytest.mark.usefixtures("in_process_of_module"),
]
AUDIT = Path(__file__).with_name("page_audit.js").read_text()
SIZES = {"desktop": (1280, 900), "phone": (360, 780)}
CONTROLS = {"button", "textbox", "combobox", "radio", "checkbox", "link", "listbox", "slider", "switch"}
SHIFTS = """new Promise((resolve) => {
  let sum = 0;
  const add = ({ value, hadRecentInput }) => { sum += hadRecentInput ? 0 : value; };
  new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(sum), 300);
})"""
PAINT = """new Promise((resolve) => new PerformanceObserver((list) => resolve(list.getEntries().at(-1).startTime))
  .observe({ type: "largest-contentful-paint", buffered: true }))"""


@pytest.fixture(scope="module")
def pages(dist: Path, tmp_path_factory: pytest.TempPathFactory, in_process_of_module: None) -> dict[str, Path]:
    """Of noise and classes, of a picture, of a prompt: all fields that a page can have."""
    place = tmp_path_factory.mktemp("basics")
    made = {"classes": dist}
    for name, bundle in (("photo", photo_bundle), ("words", text_bundle)):
        write_app("web", bundle(place / f"{name} bundle"), place / name, name=name)
        made[name] = web_project.built(place / name)
    return made


@pytest.fixture(scope="module", params=["classes", "photo", "words"])
def address(request: pytest.FixtureRequest, pages: dict[str, Path]) -> Iterator[str]:
    with host(pages[request.param]) as place:
        yield f"{place}?backend=wasm"


@pytest.fixture(scope="module")
def opened(chromium: Any, address: str) -> Iterator[Any]:
    """A page that has made its pictures, for tests that only look at it."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    settled(page)  # the first visit loads it twice
    yield page
    context.close()


def audited(page: Any, function: str) -> list[str]:
    result = page.evaluate(f"(() => {{ {AUDIT}\nreturn {function}(); }})()")
    assert result["count"] >= 5  # it looked at something
    faults: list[str] = result["faults"]
    return faults


@pytest.mark.parametrize("size", SIZES)
def test_texts_are_read_targets_are_hit_and_nothing_moves_or_complains(chromium: Any, address: str, size: str) -> None:
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{address}#self-test")
    page.wait_for_selector("#self-test.passed", timeout=web_project.PATIENCE_MS)
    assert page.evaluate(SHIFTS) < 0.1
    assert complaints == []
    first_ms = page.evaluate("performance.getEntriesByName('picture')[0].startTime")
    print(f"{size}: first picture {first_ms:.0f} ms, largest paint {page.evaluate(PAINT):.0f} ms")
    assert audited(page, "targetFaults") == []
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    for state in ("good", "bad"):
        if state == "bad":
            page.evaluate("document.querySelector('#self-test').className = 'failed'")
            page.evaluate(
                "Object.assign(document.querySelector('#error'), { textContent: 'What is wrong', hidden: false })"
            )
            page.evaluate("document.querySelector('#notes').textContent = 'What is not as it could be'")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate(f"if (matchMedia('(prefers-color-scheme: {scheme})').matches === false) throw Error()")
            assert audited(page, "contrastFaults") == [], (state, scheme)
    context.close()


def test_the_audit_sees_faults(page: Any) -> None:
    page.set_content(
        "<body style='background: #fff'><p style='color: #777'>4.48 to 1</p><p style='color: #767676'>4.54</p>"
        "<p style='color: #000; opacity: .5'>3.95</p><p>black</p><p>more</p>"
        "<div style='background: #0008'><p style='color: #444'>on gray</p></div>"
        "<button style='width: 20px'>x</button><label><input type=radio style='padding: 20px'>a radio</label>"
        "<input><select></select><textarea></textarea></body>"
    )
    assert [fault.split('"')[1] for fault in audited(page, "contrastFaults")] == ["4.48 to 1", "3.95", "on gray"]
    assert audited(page, "targetFaults")[0].startswith('button "x": 20 x ')


def test_the_head_says_what_the_page_is(opened: Any) -> None:
    assert opened.title()
    assert opened.evaluate("document.documentElement.lang") == "en"
    content = {
        name: opened.get_attribute(f"meta[name={name}]", "content")
        for name in ("description", "viewport", "color-scheme")
    }
    assert len(content["description"] or "") > 20
    assert content["viewport"] == "width=device-width, initial-scale=1"  # and so people may zoom
    ground = {
        scheme: opened.get_attribute(f'meta[name=theme-color][media="(prefers-color-scheme: {scheme})"]', "content")
        for scheme in ("light", "dark")
    }
    for scheme, color in ground.items():
        opened.emulate_media(color_scheme=scheme)
        shown = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        assert shown == "rgb({}, {}, {})".format(*bytes.fromhex((color or "")[1:]))
    levels = opened.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => each.tagName)")
    assert levels == ["H1"]


def test_the_manifest_has_icons_that_are_there(opened: Any) -> None:
    place = opened.evaluate("document.querySelector('link[rel=manifest]').href")
    manifest = json.loads(opened.request.get(place).text())
    assert {"name", "short_name", "start_url", "display", "background_color", "theme_color"} <= manifest.keys()
    assert manifest["display"] == "standalone"
    assert [icon["sizes"] for icon in manifest["icons"]] == ["any", "180x180"]
    for icon in manifest["icons"]:
        answer = opened.request.get(f"{place.rpartition('/')[0]}/{icon['src']}")
        assert answer.ok
        assert answer.headers["content-type"] == icon["type"]
    touch = opened.request.get(opened.evaluate("document.querySelector('link[rel=apple-touch-icon]').href"))
    with Image.open(io.BytesIO(touch.body())) as picture:
        assert (picture.format, picture.size) == ("PNG", (180, 180))
        shown = np.asarray(picture.convert("RGB")).astype(float)
    drawn = (TEMPLATES / "web/public/icon.svg").read_text().replace('rx="14" ', "")  # iOS rounds the corners itself
    blank = opened.context.new_page()
    blank.set_viewport_size({"width": 180, "height": 180})
    blank.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block; width: 180px }}</style>{drawn}")
    with Image.open(io.BytesIO(blank.screenshot())) as picture:
        assert np.abs(np.asarray(picture.convert("RGB")) - shown).mean() < 1
    blank.close()


def test_every_control_has_a_name(opened: Any) -> None:
    tree = opened.context.new_cdp_session(opened).send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(controls) >= 4
    assert [node for node in controls if not node.get("name", {}).get("value", "").strip()] == []
    bare = "[...document.querySelectorAll('canvas')].filter((each) => !each.ariaLabel && !each.closest('[aria-label]'))"
    assert opened.evaluate(f"{bare}.length") == 0


def test_the_keyboard_alone_makes_and_saves_a_picture(page: Any, pages: dict[str, Path]) -> None:
    with host(pages["classes"]) as address:
        page.goto(f"{address}?backend=wasm")
        settled(page)
        before = pictures(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "class"
        page.keyboard.press("ArrowRight")  # the first class
        settled(page)
        of_class = pictures(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "seed"
        page.keyboard.press("Control+A")
        page.keyboard.type("77")
        page.keyboard.press("Enter")
        settled(page)
        made = pictures(page)
        outlines = []
        for _ in range(4):  # dice, model, make, the first picture
            page.keyboard.press("Tab")
            outlines.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
        assert outlines == ["solid"] * 4  # people see where they are
        assert page.evaluate("document.activeElement.closest('figure') !== null")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        assert download.value.suggested_filename == "net-0-77.png"
    assert not np.array_equal(before[1], of_class[1])
    assert not np.array_equal(of_class, made)
