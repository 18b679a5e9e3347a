"""`edgegen app ios`: what of a bundle an Xcode project gets, and what is written into its templates."""

from edgegen.apps.fit import why_unfit
from edgegen.apps.names import check_title, identifier, quoted
from edgegen.apps.plan import Plan
from edgegen.errors import UsageError, unknown_name
from edgegen.formats.bundle import Bundle, BundledArtifact
from edgegen.formats.bundle_folder import CARD, HASH
from edgegen.formats.manifest import MANIFEST

ASSETS = "bundle"
RUNTIMES = ("coreml",)


def ios_plan(bundle: Bundle, *, name: str, runtime: str | None = None) -> Plan:
    """The project with one artifact: the first of Core ML that an app can run.

    Raises UsageError for a name that no project can have, an unknown runtime, and a bundle without such a file.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise UsageError(unknown_name("runtime of iOS apps", runtime, RUNTIMES))
    title = check_title(name)
    if "$" in title:
        raise UsageError(f"--name {title!r}: has a $, which Xcode reads as a variable; leave it out")
    artifact = _artifact(bundle)
    short = identifier(title)
    values = {
        "title": title,
        "title_quoted": quoted(title),
        "identifier": short,
        "artifact": artifact.file,
        "artifact_quoted": quoted(artifact.file),
        "megabytes": f"{artifact.nbytes / 1e6:.1f}",
    }
    files = [MANIFEST, HASH, CARD, artifact.golden.file]
    files += [file.path for file in bundle.files if artifact.holds(file.path)]
    given = {spec.name for spec in artifact.inputs}
    files += [item.file for item in bundle.golden.inputs if item.name in given]
    renamed = {"gitignore": ".gitignore", "App.xcodeproj/project.pbxproj": f"{short}.xcodeproj/project.pbxproj"}
    shown = (
        f"{artifact.file} in Core ML, bundle identifier com.example.{short}",
        f"on a Mac: open {short}.xcodeproj, choose your team under Signing, and run",
    )
    return Plan(values, {path: f"{ASSETS}/{path}" for path in dict.fromkeys(files)}, renamed, shown)


def _why_not(artifact: BundledArtifact) -> str:
    """Why an app of this template cannot run it; "" where it can."""
    if artifact.text_encoder:
        return "takes a prompt, which the iOS app does not make"
    if artifact.students:
        return f"has {len(artifact.students)} files, each for its classes, and the iOS app runs one"
    return why_unfit(artifact)


def _artifact(bundle: Bundle) -> BundledArtifact:
    candidates = [artifact for artifact in bundle.artifacts if artifact.runtime in RUNTIMES]
    reasons = []
    for artifact in candidates:
        reason = _why_not(artifact)
        if not reason:
            return artifact
        reasons.append(f"{artifact.file} {reason}")
    there = "; ".join(reasons) or f"it has {', '.join(artifact.file for artifact in bundle.artifacts)}"
    raise UsageError(f"the bundle has no file of Core ML that the iOS app can run: {there}")
