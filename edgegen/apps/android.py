"""`edgegen app android`: what of a bundle an Android project gets, and what is written into its templates."""

from pathlib import Path

from edgegen.apps.fit import chosen_artifact, why_unfit
from edgegen.apps.names import check_title, for_strings_xml, identifier, in_kotlin
from edgegen.apps.plan import Plan, example_arguments, model_files, one_of
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import CARD, HASH
from edgegen.formats.manifest import MANIFEST

ASSETS = "app/src/main/assets/bundle"
GLUE = "app/src/main/kotlin/ModelRuntime.kt"
RENAMED = {"gitignore": ".gitignore"}  # packages of Python leave out what git ignores
TOKENIZER = "app/src/main/kotlin/PromptTokenizer.kt"
TOKENIZERS = {name: f"tokenizers/{name}/PromptTokenizer.kt" for name in ("djl", "none")}
EXAMPLE = {"class": "label = 3", "image": "image = photo", "text": 'prompt = "a red cat"'}
# Library in gradle/libs.versions.toml of each runtime; the first that a bundle has a file for is taken.
LIBRARIES = {"executorch": "executorch", "onnx": "onnxruntime"}
GLUES = {runtime: f"runtimes/{runtime}/ModelRuntime.kt" for runtime in LIBRARIES}


def android_plan(bundle: Bundle, folder: Path, *, name: str, runtime: str | None = None) -> Plan:
    """The project with one artifact: the first of `runtime`, or of the first runtime that the bundle has a file for.

    Raises UsageError for a name that no package can have, an unknown runtime, and a bundle without a file for Android.
    """
    title = check_title(name)
    artifact = chosen_artifact(bundle, runtime, LIBRARIES, platform="Android", why_not=_why_not)
    short = identifier(title)
    text = bundle.text
    condition = example_arguments(artifact, EXAMPLE)
    values = {
        "tokenizer": "" if text is None else "djl",
        "title": title,
        "title_xml": for_strings_xml(title),
        "identifier": short,
        "package": f"com.example.{short}",
        "models": ", ".join(f"`{file}`" for file in model_files(artifact)),
        "artifact_kotlin": in_kotlin(artifact.file),
        "runtime": LIBRARIES[artifact.runtime],
        "megabytes": f"{artifact.nbytes / 1e6:.1f}",
        "example_condition": f", {condition}" if condition else "",
    }
    renamed = RENAMED | one_of(GLUES, artifact.runtime, GLUE)
    renamed |= one_of(TOKENIZERS, values["tokenizer"] or "none", TOKENIZER)
    given = {spec.name for spec in artifact.inputs}
    files = [MANIFEST, HASH, CARD, artifact.golden.file]
    files += [name for file in (artifact.students or (artifact,)) for name in (file.file, *file.beside)]
    files += [item.file for item in bundle.golden.inputs if item.name in given]
    if text is not None:
        encoder = text.encoder(artifact.text_encoder)
        files += [text.tokenizer.file, encoder.file, *encoder.beside]
    assets = {path: f"{ASSETS}/{path}" for path in files}
    shown = (
        f"{', '.join(model_files(artifact))} in {LIBRARIES[artifact.runtime]}, package {values['package']}",
        "open the folder in Android Studio, or: gradle wrapper && ./gradlew :app:installDebug",
    )
    return Plan(values, assets, renamed, shown)


def _why_not(artifact: BundledArtifact) -> str:
    """Why an app of this template cannot run it; "" where it can."""
    if artifact.runtime == "executorch" and artifact.variant:
        return f"is for {artifact.variant}, and the app's library has XNNPACK"
    return why_unfit(artifact)
