"""`edgegen verify`: the files of a recipe against PyTorch, or those of a folder against its manifest.json."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegen.cli.run import DryOption, ForceOption, JsonOption, RunsOption, run_stages
from edgegen.cli.terminal import show
from edgegen.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from edgegen.formats.manifest import ManifestEntry

TEXT = """Of a recipe: run every file on the same noise as PyTorch and compare. Earlier stages run only where their
result is missing.

Of a folder with a manifest.json: compare the SHA-256 of every file with it, and say how true each was when it was made.

Of a bundle, a folder or a .zip: compare every file with its manifest, and run the artifacts against their golden
images. Exit code 2: something is not as written; 4: an artifact gives other images.

Example: edgegen verify digits

  edgegen verify phone

  edgegen verify bundles/digits.zip"""


def register(app: typer.Typer) -> None:
    app.command("verify", help=TEXT)(verify)


def verify(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A .toml file, the name of a shipped recipe: digits; a folder; a .zip."),
    ],
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """A folder with a manifest.json is one of files or a bundle, a .zip a bundle; everything else is a recipe."""
    from edgegen.formats.bundle_folder import is_bundle
    from edgegen.formats.manifest import MANIFEST, check_folder
    from edgegen.formats.recipe_file import shipped

    folder = Path(source)
    is_zip = folder.suffix.lower() == ".zip"
    if is_zip or is_bundle(folder):
        _refuse_flags(source, "a bundle", force=force, dry_run=dry_run)
        _verify_bundle(folder, as_json=as_json)
        return
    if not folder.exists() and folder.suffix != ".toml" and source not in shipped():
        reason = unknown_name("recipe", source, shipped())
        raise UsageError(f"{source}: no bundle, no folder of files and no .toml file is there, and {reason}")
    if not (folder / MANIFEST).is_file():
        if folder.is_dir() and source not in shipped():
            raise UsageError(f"{source}: a folder without {MANIFEST}; give one of `edgegen export` or `edgegen bundle`")
        run_stages(source, runs, to=None, only="verify", force=force, dry_run=dry_run, as_json=as_json)
        return
    _refuse_flags(source, "a folder of files", force=force, dry_run=dry_run)
    entries = check_folder(folder)
    if as_json:
        rows = [{"file": entry.row["file"], "sha256": entry.row["sha256"], **_parity(entry)} for entry in entries]
        print(json.dumps({"folder": source, "files": rows}, indent=2))
        return
    for entry in entries:
        parity = _parity(entry)
        psnr = "" if parity["psnr_db"] is None else f" {parity['psnr_db']:.1f} dB"
        show(f"{entry.row['file']}: as written; against PyTorch then: {parity['parity']}{psnr}")


def _refuse_flags(source: str, kind: str, *, force: bool, dry_run: bool) -> None:
    if force or dry_run:
        raise UsageError(f"{'--force' if force else '--dry-run'} is for recipes, and {source} is {kind}")


def _verify_bundle(path: Path, *, as_json: bool) -> None:
    from edgegen.artifacts.bundle_check import raise_failed, verify_bundle
    from edgegen.formats.bundle_text import TOKENIZER
    from edgegen.support.progress import progress

    checks = verify_bundle(path, progress=progress())
    if as_json:
        print(json.dumps({"bundle": str(path), "artifacts": [asdict(check) for check in checks]}, indent=2))
    else:
        show(
            *(
                f"{check.file}: as written; golden {'tokens' if check.file == TOKENIZER else 'images'}: {check}"
                for check in checks
            )
        )
    raise_failed(path, checks)


def _parity(entry: "ManifestEntry") -> dict[str, str | float | None]:
    parity = entry.row.get("parity", {})
    return {"parity": parity.get("status", "not checked"), "psnr_db": parity.get("psnr_db")}
