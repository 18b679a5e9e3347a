"""`edgegen app`: a bundle and a platform's template become a project. The same input gives the same bytes."""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

from edgegen.apps.android import android_plan
from edgegen.apps.ios import ios_plan
from edgegen.apps.plan import Plan
from edgegen.apps.web import web_plan
from edgegen.errors import UsageError, unknown_name
from edgegen.formats.bundle import Bundle
from edgegen.formats.bundle_folder import check_bundle
from edgegen.formats.bundle_zip import SUFFIX, unpacked
from edgegen.support.storage import atomic_path

TEMPLATES = Path(__file__).with_name("templates")
MARK = ".edgegen-app"  # at the top of a project: what may be replaced
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
# Lines between {{#key}} and {{/key}} stay where the key's value is not empty: for lists of dependencies, settings and
# texts, never in code.
SECTION = re.compile(r"^\{\{#(\w+)\}\}\n(.*?)^\{\{/\1\}\}\n", re.MULTILINE | re.DOTALL)


class Platform(Protocol):
    """Plans the project of the bundle in `folder`. Raises UsageError for a name, runtime or bundle that is unfit."""

    def __call__(self, bundle: Bundle, folder: Path, *, name: str, runtime: str | None) -> Plan: ...


# By the name of its folder in templates/.
PLATFORMS: Mapping[str, Platform] = {"android": android_plan, "ios": ios_plan, "web": web_plan}


def write_app(
    platform: str, bundle_path: Path, output: Path, *, name: str, runtime: str | None = None, force: bool = False
) -> Plan:
    """Writes the project `output`, whole or not at all; nothing outside of it is touched.

    Args:
        platform: a name of PLATFORMS.
        bundle_path: a bundle, a folder or a .zip, which is compared with its manifest first.
        output: a new or empty folder.
        name: of the app, as people read it.
        runtime: of the artifact in the app; default: the platform's choice.
        force: replace an older project of this command in `output`.

    Raises:
        UsageError: an unknown platform, a name or bundle that does not fit, a folder with other files.
        DataError: the bundle is not as written.
        StorageError: the disk is full or refuses.
    """
    if platform not in PLATFORMS:
        raise UsageError(unknown_name("platform", platform, PLATFORMS))
    _check_output(output, bundle_path, force=force)
    is_zip = bundle_path.suffix.lower() == SUFFIX
    with unpacked(bundle_path) if is_zip else nullcontext(bundle_path) as bundle_folder:
        plan = PLATFORMS[platform](check_bundle(bundle_folder), bundle_folder, name=name, runtime=runtime)
        _write_project(output, TEMPLATES / platform, plan, bundle_folder)
    return plan


def _write_project(output: Path, template: Path, plan: Plan, bundle_folder: Path) -> None:
    with atomic_path(output) as folder:
        folder.mkdir()
        for path in _files(template):
            place = plan.renamed.get(path, path)
            if place is not None:
                _write(folder / place, _filled(template / path, plan.values))
        for path, place in plan.assets.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle_folder / path, folder / place)
        _write(folder / MARK, f"{template.name}\n".encode())


def _check_output(output: Path, bundle_path: Path, *, force: bool) -> None:
    """Only a new or empty folder is written, or with --force what this command wrote before."""
    place, bundle = output.resolve(), bundle_path.resolve()
    if place in (bundle, *bundle.parents) or bundle in place.parents:
        raise UsageError(f"-o {output}: holds the bundle, or lies in it; give a new folder")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"-o {output}: is no folder; give a new one")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / MARK).is_file():
        raise UsageError(f"-o {output}: is a folder with other files, which stay as they are; give a new folder")
    if not force:
        raise UsageError(f"-o {output}: is an app already; --force replaces it, with all that was changed in it")


def _files(template: Path) -> list[str]:
    """All of a template, sorted, by "/"-separated path."""
    paths = [Path(place, name) for place, _, names in os.walk(template) for name in names]
    return sorted(path.relative_to(template).as_posix() for path in paths)


def _filled(path: Path, values: Mapping[str, str]) -> bytes:
    if path.suffix == ".png":
        return path.read_bytes()
    return filled(path.read_text(encoding="utf-8"), values).encode()


def filled(text: str, values: Mapping[str, str]) -> str:
    """A template's text with the values of its placeholders, and the sections that they ask for."""
    chosen = SECTION.sub(lambda match: match[2] if values[match[1]] else "", text)
    return PLACEHOLDER.sub(lambda match: values[match[1]], chosen)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
