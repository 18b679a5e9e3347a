"""Which artifacts the apps can run: what they fill in, and what they can show."""

from collections.abc import Callable, Collection

from edgegen.errors import UsageError, unknown_name
from edgegen.formats.bundle import Bundle, BundledArtifact, Input, Output


def chosen_artifact(
    bundle: Bundle,
    runtime: str | None,
    runtimes: Collection[str],
    *,
    platform: str,
    why_not: Callable[[BundledArtifact], str],
) -> BundledArtifact:
    """The first artifact of `runtime`, or of the first of `runtimes`, that an app can run.

    Args:
        runtime: asked for; None: any of `runtimes`.
        runtimes: of the platform's template, the preferred one first.
        platform: as people read it.
        why_not: why the app cannot run an artifact of these runtimes; "" where it can.

    Raises UsageError for another runtime, and for a bundle without such a file.
    """
    if runtime is not None and runtime not in runtimes:
        raise UsageError(unknown_name(f"runtime of {platform}", runtime, runtimes))
    wanted = [runtime] if runtime else list(runtimes)
    reasons = {}
    for name in wanted:
        for artifact in bundle.artifacts:
            if artifact.runtime == name:
                reasons[artifact.file] = why_not(artifact)
                if not reasons[artifact.file]:
                    return artifact
    there = "; ".join(f"{file} {reason}" for file, reason in reasons.items())
    files = ", ".join(artifact.file for artifact in bundle.artifacts)
    there = there or f"it has {files}; make it with one, e.g. --artifact {wanted[0]}-fp32"
    raise UsageError(f"the bundle has no file of {' or '.join(wanted)} that the {platform} app can run: {there}")


def why_unfit(artifact: BundledArtifact) -> str:
    """Why no app can run it, to be read after its name; "" where apps can."""
    if (artifact.runtime, artifact.variant) == ("onnx", "qnn"):
        return "is for Snapdragon's NPU, and the app's library has no provider for it"
    if artifact.batch not in (None, 1):
        return f"takes {artifact.batch} samples at once, and the app makes one"
    for spec in artifact.inputs:
        if not _is_filled(spec, artifact):
            return f"needs '{spec.name}' ({spec.role}, {spec.dtype}), which the app does not make"
    if sum(spec.role == "image" for spec in artifact.inputs) > 1:
        return "takes several images, and the app gives it one"
    if not any(_is_shown(method.output) for method in artifact.methods):
        return "gives no image of float32 or uint8"
    return ""


def _is_filled(spec: Input, artifact: BundledArtifact) -> bool:
    if spec.role == "text":
        return spec.dtype == "float32" and artifact.text_encoder is not None
    if spec.role == "noise":
        return spec.dtype == "float32"
    if spec.role == "class":
        return spec.dtype in ("int64", "int32")
    return spec.role == "image" and spec.dtype == "float32" and len(spec.shape) == 4


def _is_shown(output: Output) -> bool:
    return (output.dtype, output.layout) in (
        ("float32", "NCHW"),
        ("float32", "NHWC"),
        ("uint8", "NHWC"),
        ("uint8", "CVPixelBuffer"),
    )
