"""A made-up report with everything that can happen: unknown figures, a failed parity, one that was not checked."""

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegen.profilers.measurement import Measurement
from edgegen.report import Report
from edgegen.report.schema import (
    ArtifactRow,
    DataFacts,
    Extractor,
    FeatureSpace,
    Fold,
    QualityFigure,
    QualityTable,
    Sizes,
    SpaceFigure,
    StageRow,
    TorchLatency,
)
from edgegen.types import Latency, Parity

NOT_MAC = "Core ML predicts on macOS only; the numbers are of our evaluator"
STEPS = (1, 2, 4, 20)


def latency(p50: float, *, converged: bool = True, load: float = 8.1) -> Latency:
    return Latency(
        p50_ms=p50,
        p50_ci95_ms=(0.99 * p50, 1.014 * p50),
        p90_ms=1.3 * p50,
        load_ms=load,
        first_ms=3.1 * p50,
        runs=max(30, int(900 / p50)),
        peak_rss_bytes=96_400_000,
        converged=converged,
        percentiles_ms=tuple(
            float(p50 * (0.97 + 0.0006 * share + 0.002 * max(0, share - 80) ** 2)) for share in range(101)
        ),
    )


def figures(values: tuple[float, ...]) -> dict[str, QualityFigure]:
    return {
        str(steps): QualityFigure(
            fd_local=fd,
            sd=0.04 * fd,
            kd_local=fd / 900,
            precision=0.97 - fd / 2900,
            recall=0.8,
            density=0.98 - fd / 2000,
            coverage=0.9 - fd / 3000,
            class_distance=0.02 + fd / 5000,
            spectrum_db=0.1 + fd / 200,
            nearest_ratio=0.9,
            copied=0.01,
            fd_local_first=1.01 * fd,
            spaces={"random": SpaceFigure(fd=fd / 500, sd=fd / 9000, kd=fd / 40_000)},
        )
        for steps, fd in zip(STEPS, values, strict=True)
    }


SUFFIX = {"onnx": "onnx", "executorch": "pte", "coreml": "mlpackage"}
ENGINE = {"onnx": "onnxruntime 1.32.0", "executorch": "executorch 1.5.1 XNNPACK", "coreml": "coremltools 9.0"}


def artifact(
    backend: str, scheme: str, nbytes: int, *, fd: float | None, parity: Parity, timed: Latency
) -> ArtifactRow:
    file = f"digits_{backend}_{scheme}.{SUFFIX[backend]}"
    return ArtifactRow(
        file=file,
        backend=backend,
        scheme=scheme,
        nbytes=nbytes,
        sha256=hashlib.sha256(file.encode()).hexdigest(),
        engine=ENGINE[backend],
        fd_local=fd,
        parity=parity,
        latency=timed,
    )


def artifacts() -> tuple[ArtifactRow, ...]:
    def ok(db: float, floor: float, error: float, method: str) -> Parity:
        return Parity("ok", method, floor, samples=64, psnr_db=db, max_abs_error=error, worst_db=db - 2.5, ssim=0.998)

    ort, et, mil = "onnxruntime 1.32.0 CPU", "executorch 1.5.1", "edgegen MIL evaluator (torch)"
    return (
        artifact("onnx", "fp32", 652_118, fd=70.9, parity=ok(137.2, 90, 1.4e-6, ort), timed=latency(0.91)),
        artifact("onnx", "w8a8", 203_377, fd=71.4, parity=ok(41.6, 30, 0.083, ort), timed=latency(0.604)),
        artifact("executorch", "fp32", 661_504, fd=70.9, parity=ok(200.0, 90, 0.0, et), timed=latency(0.72, load=2.2)),
        artifact(
            "executorch",
            "w8a8",
            186_240,
            fd=96.2,
            parity=Parity("failed", et, 30, 64, 24.3, 0.61, "PSNR 24.3 dB is below the floor of 30 dB"),
            timed=latency(0.43, converged=False),
        ),
        artifact(
            "coreml",
            "fp16",
            331_208,
            fd=70.8,
            parity=ok(71.9, 50, 0.0021, mil),
            timed=Latency(p50_ms=None, reason=NOT_MAC),
        ),
        artifact(
            "coreml",
            "w8",
            178_993,
            fd=None,
            parity=Parity("not checked", "", 35, reason="no evaluator for constexpr_blockwise_shift_scale"),
            timed=Latency(p50_ms=None, reason=NOT_MAC),
        ),
    )


def elsewhere() -> tuple[Measurement, ...]:
    """One that is believed, one that is noisy, one that is an estimate, and one that failed."""
    known = latency(3.2)
    board = {"source": "edgegen.profile/1", "file": "board.json", "device": "ssh:board: Cortex-A76, Linux 6.6"}
    first = Measurement(
        **board,
        what="net.pte, 1 thread",
        setting="executorch 1.5.1, w8a8",
        times_ms={"p50": 3.2, "p90": 4.2, "mean": 3.4},
        p50_ci95_ms=known.p50_ci95_ms,
        runs=300,
        load_ms=5.5,
        peak_bytes=8_000_000,
        percentiles_ms=known.percentiles_ms,
        verdict="ok",
    )
    noisy = replace(first, what="net.onnx, 1 thread", verdict="noisy", notes=("other programs used 0.97 cores",))
    phone = Measurement(
        source="Qualcomm AI Hub perf.yaml",
        file="perf.yaml",
        what="Small-UNet",
        device="Samsung Galaxy S24",
        setting="tflite, w8a8, NPU",
        times_ms={"estimate": 0.43},
    )
    failed = replace(phone, what="wrong.pte", times_ms={}, verdict="failed", notes=("wrong: 2.1 dB",))
    return first, noisy, phone, failed


RECIPE: dict[str, Any] = {
    "name": "digits",
    "seed": 0,
    "data": {"source": "digits", "holdout": 0.25, "conditional": True},
    "teacher": {"steps": 1600, "batch": 64, "folder": None, "model": {"channels": [24, 64, 128], "blocks": 1}},
    "slim": {"keep": 0.33, "steps": 600, "flip": False},
}


def report(**changes: Any) -> Report:
    """The report; `changes` replace parts of it."""
    quality = QualityTable(
        teacher=figures((1240.0, 410.0, 121.0, 52.3)),
        slimmed=figures((182.0, 96.0, 74.0, 63.0)),
        student=figures((71.2, 70.4, 69.9, 70.3)),
        baseline=figures((144.0, 141.0, 139.0, 140.0)),
        floor={
            "0": QualityFigure(
                fd_local=18.7,
                sd=None,
                kd_local=0.0004,
                precision=0.96,
                recall=0.95,
                density=1.01,
                coverage=0.97,
                class_distance=0.011,
                spectrum_db=0.052,
                nearest_ratio=1.0,
                copied=0.0,
                fd_local_first=18.7,
                spaces={"random": SpaceFigure(fd=0.028, sd=None, kd=-0.00002)},
            )
        },
    )
    slow = latency(61.2, converged=False)
    parts: dict[str, Any] = {
        "name": "digits",
        "created_utc": "2026-11-23T06:15:00Z",
        "recipe": RECIPE,
        "recipe_sha256": "5f" * 32,
        "machine": {
            "cpu": "AMD EPYC",
            "arch": "x86_64",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 25_276_510_208,
            "os": "Linux 6.18",
            "python": "3.11.7",
            "virtual": True,
            "load_average": [2.75, 2.21, 1.27],
        },
        "versions": {"edgegen": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0", "executorch": "1.5.1"},
        "data": DataFacts(source="digits", train=1348, heldout=449, image_shape=(1, 8, 8), classes=tuple("0123456789")),
        "parameters": Sizes(teacher=648_210, student=159_873),
        "macs": Sizes(teacher=9_812_992, student=2_504_192),
        "fold": Fold(parameters_removed=20_736, max_relative_error=1.7e-7),
        "extractor": Extractor(name="small-cnn-digits-3f9a", fd_name="fd_local[small-cnn-digits]", accuracy=0.981),
        "spaces": (FeatureSpace(key="random", name="random-convolutions-v1"),),
        "n": 449,
        "quality": quality,
        "artifacts": artifacts(),
        "torch_latency": (
            TorchLatency(label="teacher in PyTorch, 20 steps", network="teacher", steps=20, latency=slow),
            TorchLatency(label="student in PyTorch, 1 step", network="student", steps=1, latency=latency(1.31)),
        ),
        "elsewhere": elsewhere(),
        "stages": (
            StageRow(name="data", key="9f2c11ab03de4411", seconds=0.31, reused=True),
            StageRow(name="teacher", key="77aa01cd22ee0913", seconds=184.2, reused=False),
            StageRow(name="distill", key="0c1d2e3f4a5b6c7d", seconds=96.0, reused=False),
        ),
        "notes": ("The mobile figures are missing: no phone was attached.",),
    }
    return Report(**{**parts, **changes})


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Scanned digits, more or less spoilt, in the place of samples."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = digits.images[:200] / 16 * 255
    labels = digits.target[:200]
    columns = np.arange(12) % 10
    rng = np.random.default_rng(0)

    def row(which: int, spoilt: float) -> NDArray[np.uint8]:
        chosen = np.stack([scans[labels == label][which + i // 10] for i, label in enumerate(columns)])
        noisy = chosen + rng.normal(0.0, spoilt, chosen.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)[..., None]

    made = {"real": row(0, 0)}
    for net, spoilt in (("baseline", 30), ("student", 15), ("slimmed", 40), ("teacher", 90)):
        made |= {f"{net}-{steps}": row(3, spoilt / math.sqrt(steps)) for steps in STEPS}
    return {**made, **{item.file: row(3, 15) for item in artifacts()[:-1]}}


def curves() -> dict[str, list[tuple[int, float]]]:
    """Losses that fall, with noise."""
    rng = np.random.default_rng(1)

    def curve(steps: int, start: float, end: float) -> list[tuple[int, float]]:
        fall = [end + (start - end) * math.exp(-6 * i / steps) for i in range(steps)]
        return [(i + 1, value * float(rng.lognormal(0, 0.2))) for i, value in enumerate(fall)]

    return {
        "teacher": curve(1600, 1.1, 0.16),
        "slim": curve(600, 0.4, 0.05),
        "distill": curve(1400, 0.05, 0.004),
        "extractor": curve(600, 2.3, 0.02),
    }
