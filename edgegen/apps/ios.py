"""`edgegen app ios`: what of a bundle an Xcode project gets, and what is written into its templates."""

from pathlib import Path

from edgegen.apps.fit import chosen_artifact, why_unfit
from edgegen.apps.names import check_title, identifier, quoted
from edgegen.apps.plan import Plan, example_arguments, model_files, one_of
from edgegen.errors import UsageError
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import CARD, HASH
from edgegen.formats.manifest import MANIFEST
from edgegen.formats.mlpackage import SYSTEMS, specification_version

ASSETS = "bundle"
OLDEST_IOS = 17  # of the template: Core ML's asynchronous predictions, SwiftUI's observation
EXAMPLE = {"class": "label: 3", "image": "image: photo"}
# Of each runtime, as people read it; the first that the bundle has a file for is taken.
RUNTIMES = {"coreml": "Core ML", "executorch": "ExecuTorch"}
PACKAGE = {"Package.swift": "Package.swift", "DeviceRuntime.swift": "Sources/EdgegenRuntime/DeviceRuntime.swift"}
# Of ExecuTorch's files by variant: the product of its package that runs them, and its name.
DELEGATES = {"": ("backend_xnnpack", "XNNPACK"), "coreml": ("backend_coreml", "Core ML delegate")}


def ios_plan(bundle: Bundle, folder: Path, *, name: str, runtime: str | None = None) -> Plan:
    """The project with one artifact: the first of `runtime`, or of the first runtime that the bundle has a file for.

    Raises UsageError for a name that no project can have, an unknown runtime, and a bundle without a file for iOS;
    ExportError for a file of Core ML that cannot be read.
    """
    title = check_title(name)
    if "$" in title:
        raise UsageError(f"--name {title!r}: has a $, which Xcode reads as a variable; leave it out")
    artifact = chosen_artifact(bundle, runtime, RUNTIMES, platform="iOS", why_not=_why_not)
    short = identifier(title)
    oldest = _oldest_ios(artifact, folder)
    condition = example_arguments(artifact, EXAMPLE)
    values = {
        "title": title,
        "title_quoted": quoted(title),
        "identifier": short,
        "models": ", ".join(f"`{file}`" for file in model_files(artifact)),
        "artifact_quoted": quoted(artifact.file),
        "megabytes": f"{artifact.nbytes / 1e6:.1f}",
        "example_condition": f", {condition}" if condition else "",
        "runtime": RUNTIMES[artifact.runtime],
        "ios": f"{oldest}.0",
        "xcode": str(oldest) if oldest >= 26 else "16",  # Xcode 16 has iOS 18; from iOS 26 on it has its number
        **_of_runtime(artifact),
    }
    files = [MANIFEST, HASH, CARD, artifact.golden.file]
    files += [file.path for file in bundle.files if artifact.holds(file.path)]
    given = {spec.name for spec in artifact.inputs}
    files += [item.file for item in bundle.golden.inputs if item.name in given]
    renamed: dict[str, str | None] = {
        "gitignore": ".gitignore",
        "App.xcodeproj/project.pbxproj": f"{short}.xcodeproj/project.pbxproj",
    }
    for file, place in PACKAGE.items():
        variants = {runtime: f"runtimes/{runtime}/{file}" for runtime in RUNTIMES}
        renamed |= one_of(variants, artifact.runtime, f"EdgegenRuntime/{place}")
    shown = (
        f"{', '.join(model_files(artifact))} in {values['runtime']}, iOS {oldest} or newer, "
        f"bundle identifier com.example.{short}",
        f"on a Mac: open {short}.xcodeproj, choose your team under Signing, and run",
    )
    return Plan(values, {path: f"{ASSETS}/{path}" for path in dict.fromkeys(files)}, renamed, shown)


def _why_not(artifact: BundledArtifact) -> str:
    """Why an app of this template cannot run it; "" where it can."""
    if artifact.text_encoder:
        return "takes a prompt, for which no maintained Swift library has the tokenizer; web and Android apps take one"
    if artifact.runtime == "executorch" and artifact.variant not in DELEGATES:
        return f"is for {artifact.variant}, and the app's libraries have XNNPACK or Core ML"
    return why_unfit(artifact)


def _of_runtime(artifact: BundledArtifact) -> dict[str, str]:
    """Values that one runtime's files ask for, and the project's `all_load`.

    Without the linker's -all_load an app lacks ExecuTorch's backends and kernels, which nothing calls by name.
    """
    if artifact.runtime != "executorch":
        return {"all_load": ""}
    product, delegate = DELEGATES[artifact.variant]
    quantized = "" if artifact.scheme == "fp32" else "yes"
    return {"all_load": "yes", "delegate": product, "units_quoted": quoted(delegate), "quantized": quantized}


def _oldest_ios(artifact: BundledArtifact, folder: Path) -> int:
    if artifact.runtime != "coreml":
        return OLDEST_IOS
    oldest = OLDEST_IOS
    for file in model_files(artifact):
        version = specification_version(folder / file)
        if version not in SYSTEMS:
            known = max(SYSTEMS)
            raise UsageError(
                f"{file}: has version {version} of Core ML's specification, and this edgegen knows up to {known}: "
                "which iOS the app needs is not known; export the file with edgegen"
            )
        oldest = max(oldest, SYSTEMS[version].ios)
    return oldest
