"""`edgegen app web`: what of a bundle a page gets, and what is written into its template."""

import html
import json
from pathlib import Path

from edgegen.apps.fit import why_unfit
from edgegen.apps.names import check_title, identifier
from edgegen.apps.plan import Plan, example_arguments, one_of
from edgegen.errors import UsageError, unknown_name
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import CARD, HASH
from edgegen.formats.manifest import MANIFEST

ASSETS = "public/bundle"
RENAMED = {"gitignore": ".gitignore"}  # packages of Python leave out what git ignores
RUNTIMES = ("onnx",)
TOKENIZER = "src/tokenizer.ts"
TOKENIZERS = {name: f"tokenizers/{name}/tokenizer.ts" for name in ("huggingface", "none")}
EXAMPLE = {"class": "label: 3", "image": "image: photo", "text": 'prompt: "a red cat"'}


def web_plan(bundle: Bundle, folder: Path, *, name: str, runtime: str | None = None) -> Plan:
    """The project with all ONNX files of the bundle that a page can run; people choose one of them.

    Raises UsageError for a name that no package can have, an unknown runtime, and a bundle without such a file.
    """
    if runtime not in (None, *RUNTIMES):
        raise UsageError(unknown_name("runtime of pages", runtime, RUNTIMES))
    title = check_title(name)
    artifacts = _artifacts(bundle)
    text = bundle.text
    condition = example_arguments(artifacts[0], EXAMPLE)
    values = {
        "tokenizer": "" if text is None else "huggingface",
        "identifier": identifier(title),
        "title": title,
        "title_html": html.escape(title),
        "title_json": json.dumps(title),
        "first_model": artifacts[0].file,
        "example_condition": f", {{ {condition} }}" if condition else "",
        "models": json.dumps([artifact.file for artifact in artifacts]),
    }
    given = {spec.name for artifact in artifacts for spec in artifact.inputs}
    files = [MANIFEST, HASH, CARD, *(item.file for item in bundle.golden.inputs if item.name in given)]
    for artifact in artifacts:
        files += [name for file in (artifact.students or (artifact,)) for name in (file.file, *file.beside)]
        files.append(artifact.golden.file)
    if text is not None:
        encoders = [row for row in text.encoders if row.file in {artifact.text_encoder for artifact in artifacts}]
        files += [text.tokenizer.file, *(name for row in encoders for name in (row.file, *row.beside))]
    assets = {path: f"{ASSETS}/{path}" for path in files}
    models = ", ".join(artifact.file for artifact in artifacts)
    renamed = RENAMED | one_of(TOKENIZERS, values["tokenizer"] or "none", TOKENIZER)
    return Plan(values, assets, renamed, (f"{models} in onnxruntime-web",), ("npm ci", "npm run dev"))


def _artifacts(bundle: Bundle) -> list[BundledArtifact]:
    candidates = [artifact for artifact in bundle.artifacts if artifact.runtime in RUNTIMES]
    reasons = {artifact.file: why_unfit(artifact) for artifact in candidates}
    fit = [artifact for artifact in candidates if not reasons[artifact.file]]
    if fit:
        return fit
    there = "; ".join(f"{file} {reason}" for file, reason in reasons.items())
    there = there or f"it has {', '.join(artifact.file for artifact in bundle.artifacts)}"
    raise UsageError(
        f"the bundle has no .onnx file that a page can run: {there}; make it with one, e.g. --artifact onnx-fp32"
    )
