"""The good files that `bench_faults.py` damages, and the wrong inputs that each reader has for itself."""

import json
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fault_inputs import HUGE, NOT_UTF8, RAW, Case, Subject, wrong_value

from edgegen.support.storage import write_json

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import measured  # made-up measurements, which the tests use, too

EXAMPLES = Path(__file__).parents[1] / "tests" / "profilers" / "importers" / "measured_elsewhere"
RECIPE = """
name = "tiny"
[data]
source = "{source}"
[teacher]
steps = 2
model = {{ channels = [8, 16], blocks = 1, embedding = 16 }}
[slim]
keep = 0.9
[report]
measurements = []
"""
SIGNATURE = """
[[inputs]]
name = "sample"
shape = ["batch_size", 1, 8, 8]
role = "noise"
[[outputs]]
shape = ["batch_size", 1, 8, 8]
role = "image"
"""
NET = "import torch\n\ndef make():\n    return torch.nn.Conv2d(1, 1, 3, padding=1)\n"
UNET2D = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
}
SCHEDULE = {"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_start": 1e-4, "beta_end": 0.02}
TO_DATA = ("run", "tiny.toml", "--to", "data")


def make_subjects(folder: Path, *, exported: bool) -> list[Subject]:
    """Writes the good files below `folder`; with `exported` those of the runtimes as well, which takes a minute."""
    subjects = [*_texts(folder / "texts"), *_images(folder / "images"), *_networks(folder / "networks")]
    return subjects + (_files(folder / "files", folder / "networks" / "generator") if exported else [])


def _texts(base: Path) -> Iterator[Subject]:
    base.mkdir(parents=True, exist_ok=True)
    (base / "tiny.toml").write_text(RECIPE.format(source="digits"))
    (base / "net.toml").write_text(SIGNATURE)
    (base / "net.py").write_text(NET)
    (base / "files.toml").write_text('[export]\nartifacts = ["onnx-fp32"]\n')
    blocks = np.random.default_rng(0).lognormal(0, 0.1, (6, 4))
    rows = [
        {"kind": "Conv", "count": 2, "ms": 0.5, "share": 0.75},
        {"kind": "Add", "count": 1, "ms": 0.1, "share": 0.25},
    ]
    write_json(base / "a.json", measured.profile(measured.result(blocks, ops=rows)).to_json())
    shutil.copy(base / "a.json", base / "b.json")
    for path in EXAMPLES.iterdir():
        shutil.copy(path, base)
    (base / "ort.json").write_text(json.dumps(_ort_events()))
    yield Subject("recipe", base, "tiny.toml", ("run", "tiny.toml", "--dry-run"), text="toml")
    yield Subject(
        "export table",
        base,
        "files.toml",
        ("export", "net.py:make", "--recipe", "files.toml", "--dry-run"),
        text="toml",
        may_be_empty=True,
    )
    yield Subject("signature", base, "net.toml", ("inspect", "net.py:make", "--signature", "net.toml"), text="toml")
    yield Subject("measurement", base, "a.json", ("compare", "a.json", "b.json"), text="json")
    yield Subject("measurement, shown", base, "a.json", ("report", "a.json", "--json"), text="json")
    yield Subject("onnxruntime profile", base, "ort.json", ("report", "ort.json"), text="json")
    yield Subject("perf.yaml", base, "perf_new.yaml", ("report", "perf_new.yaml"), text="yaml", cuttable=True)
    yield Subject("older perf.yaml", base, "perf_old.yaml", ("report", "perf_old.yaml"), text="yaml", cuttable=True)
    yield Subject("perf_test's file", base, "perf_test.csv", ("report", "perf_test.csv"), cuttable=True)
    yield Subject("perf_test's output", base, "perf_test.txt", ("report", "perf_test.txt"), cuttable=True)


def _ort_events() -> list[dict[str, Any]]:
    session = {"cat": "Session", "ph": "X", "ts": 1}
    events = [{**session, "name": "session_initialization", "dur": 900}]
    for _ in range(4):
        args = {"op_name": "Conv", "provider": "CPUExecutionProvider"}
        events += [{"cat": "Node", "name": "conv_kernel_time", "dur": 30, "args": args}]
        events += [{**session, "name": "model_run", "dur": 120}]
    return events


def _images(base: Path) -> Iterator[Subject]:
    from PIL import Image

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    for name, suffix in (("npz", ".npz"), ("zip", ".zip"), ("folder", "")):
        (base / name).mkdir(parents=True, exist_ok=True)
        (base / name / "tiny.toml").write_text(RECIPE.format(source=f"./set{suffix}"))
    np.savez_compressed(base / "npz" / "set.npz", images=images, labels=np.arange(24) % 2)
    for number, image in enumerate(images):
        path = (
            base / "folder" / "set" / f"class{number % 2}" / f"{number}{('.png', '.jpg', '.bmp', '.webp')[number % 4]}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    with zipfile.ZipFile(base / "zip" / "set.zip", "w") as archive:
        for path in sorted((base / "folder" / "set").rglob("*.*")):
            archive.write(path, path.relative_to(base / "folder" / "set"))
    yield Subject("images in an npz", base / "npz", "set.npz", TO_DATA)
    yield Subject("images in a zip", base / "zip", "set.zip", TO_DATA)
    for number in range(4):
        name = f"{number}{('.png', '.jpg', '.bmp', '.webp')[number]}"
        yield Subject(
            f"{Path(name).suffix} image", base / "folder", f"set/class{number % 2}/{name}", TO_DATA, one_of_many=True
        )


def _networks(base: Path) -> Iterator[Subject]:
    from edgegen.models.edge_unet import EdgeUNet, EdgeUNetConfig
    from edgegen.models.generator import save
    from edgegen.models.zero_layers import randomize_zero_layers

    net = EdgeUNet(EdgeUNetConfig(8, 1, (8, 8), 1, (), 2, 16))
    randomize_zero_layers(net, 0)
    generator = base / "generator"
    save(net, generator / "g", about={"role": "student", "name": "g"})
    (base / "diffusers" / "d").mkdir(parents=True, exist_ok=True)
    write_json(base / "diffusers" / "d" / "config.json", UNET2D)
    write_json(base / "diffusers" / "d" / "scheduler_config.json", SCHEDULE)
    pipeline = base / "pipeline" / "p"
    (pipeline / "unet").mkdir(parents=True, exist_ok=True)
    (pipeline / "scheduler").mkdir(exist_ok=True)
    write_json(pipeline / "model_index.json", {"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]})
    write_json(pipeline / "unet" / "config.json", UNET2D)
    write_json(pipeline / "scheduler" / "scheduler_config.json", SCHEDULE)
    inspect, random_weights = ("inspect", "g"), ("--random-weights", "0")
    yield Subject("generator's config", generator, "g/config.json", inspect, text="json")
    yield Subject("generator's config, sampled", generator, "g/config.json", ("sample", "g"), text="json")
    yield Subject("safetensors", generator, "g/diffusion_pytorch_model.safetensors", inspect)
    yield Subject("safetensors, sampled", generator, "g/diffusion_pytorch_model.safetensors", ("sample", "g"))
    yield Subject("edgegen.json", generator, "g/edgegen.json", ("sample", "g"), text="json", optional=True)
    yield Subject("model card", generator, "g/README.md", inspect, optional=True)
    yield Subject(
        "diffusers' config", base / "diffusers", "d/config.json", ("inspect", "d", *random_weights), text="json"
    )
    yield Subject(
        "scheduler's config",
        base / "diffusers",
        "d/scheduler_config.json",
        ("inspect", "d", *random_weights),
        text="json",
        optional=True,
    )
    yield Subject(
        "model_index", base / "pipeline", "p/model_index.json", ("inspect", "p", *random_weights), text="json"
    )
    yield Subject(
        "network in a pipeline", base / "pipeline", "p/unet/config.json", ("inspect", "p", *random_weights), text="json"
    )


def _files(base: Path, generator: Path) -> list[Subject]:
    """One generator in the files of all runtimes, with their manifest and, in a second folder, without."""
    from edgegen.artifacts.export import ExportSettings, export_source
    from edgegen.artifacts.target import Target
    from edgegen.support.progress import Silent

    with_manifest, alone = base / "manifest" / "f", base / "alone"
    targets = tuple(map(Target.parse, ("onnx-fp32", "onnx-fp32:ort", "executorch-fp32", "coreml-fp16")))
    export_source(
        str(generator / "g"), with_manifest, ExportSettings(targets, measure=False), progress=Silent()
    )  # fmt: skip
    names = {path.suffix: path.name for path in with_manifest.iterdir()}
    package = names[".mlpackage"]
    inside = f"f/{package}/Data/com.apple.CoreML"
    shutil.copytree(with_manifest, alone / "f", dirs_exist_ok=True)
    (alone / "f" / "manifest.json").unlink()
    _program(alone / "p.pt2")
    subjects = [
        Subject("manifest", base / "manifest", "f/manifest.json", ("verify", "f"), text="json"),
        Subject(
            "manifest, inspected",
            base / "manifest",
            "f/manifest.json",
            ("inspect", f"f/{names['.onnx']}"),
            text="json",
            optional=True,
        ),
        Subject(
            "manifest, sampled",
            base / "manifest",
            "f/manifest.json",
            ("sample", f"f/{names['.onnx']}"),
            text="json",
            slow=True,
        ),
        Subject("Core ML manifest", alone, f"f/{package}/Manifest.json", ("inspect", f"f/{package}"), text="json"),
        Subject("Core ML model", alone, f"{inside}/model.mlmodel", ("inspect", f"f/{package}")),
        Subject("Core ML weights", alone, f"{inside}/weights/weight.bin", ("inspect", f"f/{package}")),
        Subject(".pt2", alone, "p.pt2", ("inspect", "p.pt2")),
    ]
    for suffix in (".onnx", ".ort", ".pte"):
        place = f"f/{names[suffix]}"
        subjects += [
            Subject(suffix, alone, place, ("inspect", place)),
            Subject(f"{suffix} with a manifest", base / "manifest", place, ("inspect", place), recorded=True),
            Subject(f"{suffix} with a manifest, verified", base / "manifest", place, ("verify", "f"), recorded=True),
            Subject(f"{suffix} with a manifest, sampled", base / "manifest", place, ("sample", place), recorded=True),
            Subject(f"{suffix} with a manifest, profiled", base / "manifest", place, ("profile", place), recorded=True),
        ]
    for inner in ("Manifest.json", "Data/com.apple.CoreML/weights/weight.bin"):
        place = f"f/{package}/{inner}"
        subjects += [
            Subject("package with a manifest", base / "manifest", place, ("inspect", f"f/{package}"), recorded=True),
            Subject("package with a manifest, verified", base / "manifest", place, ("verify", "f"), recorded=True),
        ]
    return subjects


def _program(path: Path) -> None:
    import torch

    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 1, 3, padding=1), (torch.zeros(1, 1, 8, 8),)), path)


# --- wrong inputs that a reader has for itself


def wrong_inputs(subjects: Sequence[Subject]) -> Iterator[Case]:
    by_kind = {subject.kind: subject for subject in subjects}
    for kind, rows in WRONG_VALUES.items():
        if kind in by_kind:
            for place, values in rows:
                for value in values:
                    yield wrong_value(by_kind[kind], place, value)
    texts = by_kind["recipe"].base
    for file, line, by, values, arguments in WRONG_LINES:
        yield from (_edited(texts, file, line, by.replace("{}", value), arguments) for value in values)
    yield from (_arguments(texts, *row) for row in WRONG_ARGUMENTS)
    yield from _wrong_images(by_kind["images in an npz"].base, by_kind[".png image"].base)
    if ".onnx" in by_kind:
        yield from _wrong_onnx()


NUMBERS = ("NaN", "Infinity", "400 digits", "text", None, -1.0)
RESULT = ("results", 0)
LATENCY = (*RESULT, "latency")
WRONG_VALUES: dict[str, list[tuple[tuple[Any, ...], Sequence[Any]]]] = {
    "measurement": [
        ((*LATENCY, "p50_ms"), NUMBERS),
        ((*LATENCY, "p50_ci95_ms", 0), (*NUMBERS, 1e-9, 99.0)),
        ((*LATENCY, "p50_ci95_ms", 1), (*NUMBERS, 1e-9, 99.0)),
        ((*LATENCY, "min_ms"), (*NUMBERS, 1e-9, 99.0)),
        ((*LATENCY, "mean_ms"), (*NUMBERS, 1e-9, 99.0)),
        ((*LATENCY, "runs"), (*NUMBERS, 0, 23, 10**12)),
        ((*LATENCY, "blocks_ms", 0, 0), (*NUMBERS, 0.0, 1e300)),
        ((*RESULT, "ops", 0, "share"), (*NUMBERS, 1.5, 2)),
        ((*RESULT, "ops", 0, "count"), (*NUMBERS, "400 digits")),
        ((*RESULT, "ops", 0, "ms"), ("NaN", "Infinity", "400 digits", -1.0)),
        ((*RESULT, "numerics", "max_abs"), ("NaN", "Infinity", -1.0)),
        ((*RESULT, "numerics", "snr_db"), ("NaN", "Infinity", "400 digits")),
        ((*RESULT, "cold", 0, "load_ms"), (*NUMBERS, 0.0)),
        ((*RESULT, "peak_rss_bytes"), ("NaN", "Infinity", "400 digits", -1)),
        ((*RESULT, "artifact", "nbytes"), (*NUMBERS, "400 digits")),
        ((*RESULT, "artifact", "name"), ("../x", "/etc/passwd", "", None, [])),
        (("others_cores",), ("NaN", "Infinity")),
        (("drift",), ("NaN", "Infinity")),
        (("schema",), (None, "edgegen.profile/9", [])),
        (("results",), (None, {}, "text", [None], "deep")),
    ],
    "onnxruntime profile": [
        ((2, "dur"), ("NaN", "Infinity", "1e999", "400 digits", "text", None, -1, 0)),
        ((1, "dur"), ("NaN", "Infinity", "1e999", "400 digits", "text", None, -5)),
        ((1, "args"), (None, [], "text", {})),
        ((0,), (None, [], "text", 7)),
    ],
    "manifest": [
        (("artifacts",), (None, {}, "text", 7, [None], ["text"], [[]])),
        (("artifacts", 0, "file"), (None, [], 7, "../../etc/passwd", "/dev/zero", "NUL", "lone surrogate", "")),
        (("artifacts", 0, "sha256"), (None, [], 7, "text", "")),
        (("artifacts", 0, "nbytes"), (None, "text", -1, [])),
        (("artifacts", 0, "parity"), (None, [], "text", {"status": 7})),
        (("artifacts", 0, "parity", "psnr_db"), ("NaN", "Infinity", "400 digits", "text", [])),
        (("artifacts", 0, "details"), (None, [], "text")),
        (("artifacts", 0, "details"), ({"extra_files": []}, {"extra_files": {"../x": {"sha256": "0"}}})),
        (("signature",), (None, [], "text")),
    ],
    "manifest, sampled": [
        (("signature",), (None, [], {}, "text")),
        (("signature", "inputs"), (None, {}, [], [None], "text")),
        (("signature", "inputs", 0, "shape"), (None, [], {}, "text", [-1], ["batch_size", 1, 10**6, 10**6])),
        (("signature", "inputs", 0, "shape", 1), ("text", -1, 0, 10**12, 1.5, None, [], "400 digits")),
        (("signature", "inputs", 0, "dtype"), (None, "complex128", "object", [])),
        (("signature", "inputs", 0, "role"), (None, "none", [])),
        (("signature", "outputs"), (None, [], [[]], "text")),
        (("signature", "outputs", 0, "low"), ("NaN", "Infinity", "text", [])),
        (("signature", "num_classes"), (None, -1, "text", 10**12, [], 1.5)),
    ],
    "generator's config": [
        (("sample_size",), (None, 0, -1, "text", [], [8], 10**9, 2.5, "400 digits", "NaN")),
        (("in_channels",), (None, 0, -1, "text", [], 10**9, 2.5, "400 digits")),
        (("channels",), (None, [], 7, "text", [0], [-8], ["a"], [10**9], [8.5, 8], [8] * 40)),
        (("blocks",), (None, -1, "text", 10**9, 2.5)),
        (("attention",), (None, 7, [99], ["a"], [-1])),
        (("num_classes",), (None, -1, "text", 10**12, 2.5)),
        (("embedding",), (None, 0, -1, "text", 10**12, 2.5)),
        (("groups",), (None, 0, -1, "text", 2.5)),
        (("_class_name",), (None, [], {}, "text", 7)),
    ],
    "diffusers' config": [
        (("sample_size",), (0, -1, "text", [8], 10**9, 2.5, "400 digits")),
        (("in_channels",), (0, -1, "text", [], 10**9, 2.5, "400 digits")),
        (("block_out_channels",), ([], 7, "text", [-8, -8], [10**9, 10**9], [8.5, 8])),
        (("layers_per_block",), (-1, "text", 10**9)),
        (("down_block_types",), (None, [], "text", ["os.system", "os.system"])),
        (("_class_name",), (None, [], {}, "text", 7)),
    ],
    "scheduler's config": [
        (("num_train_timesteps",), (None, 0, -1, "text", 10**12, 2.5, "400 digits", "NaN")),
        (("beta_start",), (None, "NaN", "Infinity", "400 digits", "text", -1.0, 2.0)),
        (("_class_name",), (None, [], {}, "text", 7)),
    ],
    "model_index": [(("unet",), (["diffusers", "../x"], ["os", "system"], ["diffusers", "UNet9"]))],
    "Core ML manifest": [
        (("itemInfoEntries",), (None, [], {}, "text")),
        (("rootModelIdentifier",), (None, [], {}, 7, "text")),
    ],
}
ONLY_DRY = ("run", "tiny.toml", "--dry-run")
TO_REPORT = ("run", "tiny.toml", "--to", "report", "--dry-run")
INSPECT = ("inspect", "net.py:make", "--signature", "net.toml")
TEACHER = "steps = 2\nmodel = { channels = [8, 16], blocks = 1, embedding = 16 }"
PATHS = ('"~nosuchuser/x"', '"none"', '"\\u0000"', f'"{"x" * 5000}"')
# Lines of a good file, their replacements ({} is one of the values), and the command that reads it.
WRONG_LINES: list[tuple[str, str, str, Sequence[str], tuple[str, ...]]] = [
    ("tiny.toml", "steps = 2", "steps = {}", ("inf", "nan", HUGE, '"²"', "-1", "2.5", "[]"), ONLY_DRY),
    ("tiny.toml", "keep = 0.9", "keep = {}", ("inf", "nan", HUGE, "0", "1979-05-27"), ONLY_DRY),
    ("tiny.toml", "[8, 16]", "{}", ("[]", "7", f"[{HUGE}]", "[1000000000]", "[-1]"), ONLY_DRY),
    ("tiny.toml", '"tiny"', "{}", ('"../x"', '""', '"a/b"', '"\\u0000"', '"é"', "7", f'"{"x" * 300}"'), ONLY_DRY),
    ("tiny.toml", '"digits"', "{}", (*PATHS, '"hf:~nosuchuser/x"', '"hf:./none"', '"a\\u0000.npz"'), TO_DATA),
    ("tiny.toml", '"digits"', "{}", ('"/dev/zero"', '"/dev/stdin"', '"/"', '""', '"."'), TO_DATA),
    ("tiny.toml", "measurements = []", "measurements = [{}]", (*PATHS, '"/dev/zero"'), TO_REPORT),
    ("tiny.toml", TEACHER, "folder = {}", PATHS, ONLY_DRY),
    (
        "net.toml",
        '["batch_size", 1, 8, 8]',
        "{}",
        ('["batch_size", 1, 1000000, 1000000]', "[]", "[0]", '"text"'),
        INSPECT,
    ),
    ("net.toml", "1, 8, 8]", "{}]", (f"1, {HUGE}, 8", "-1", "1.5", "[1]"), INSPECT),
    ("net.toml", 'role = "noise"', 'role = "noise"\n{}', ("low = inf", "low = nan", f"low = {HUGE}"), INSPECT),
    ("net.toml", 'role = "noise"', 'role = "noise"\n{}', ('low = "²"', "low = 2\nhigh = 1", "dtype = 7"), INSPECT),
    ("net.toml", "\n[[inputs]]", "\nweights = {}\n[[inputs]]", ('"none.safetensors"', '"/dev/zero"', "7"), INSPECT),
    ("net.toml", "\n[[inputs]]", '\nweights = "{}.safetensors"\n[[inputs]]', ("\\u0000", "x" * 5000), INSPECT),
]


def _edited(base: Path, file: str, line: str, by: str, arguments: tuple[str, ...]) -> Case:
    def write(folder: Path) -> Sequence[str]:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        text = (folder / file).read_text()
        assert line in text, (file, line)
        (folder / file).write_text(text.replace(line, by, 1))
        return arguments

    kind, codes = "recipe" if file == "tiny.toml" else "signature", (2, 3) if "hf:" in by else (2,)
    return Case(f"{kind}: {line.split(chr(10))[0].strip()[:20]} -> {by.strip()[:40]}", kind, write, codes)


LONG = "x" * 5000
OWN_NET = ("export", "net.py:make", "--signature", "net.toml")
COMMANDS = ("run", "verify", "inspect", "sample", "profile", "report", "export", "sensitivity")
NAMES = (LONG, f"{LONG}.onnx", f"{LONG}.toml", "~nosuchuser/x.onnx", "/dev/zero", "/dev/null/x.onnx", "")
NAMES += (NOT_UTF8, f"{NOT_UTF8}.onnx", f"{NOT_UTF8}.toml")
SIZES = ("infGB", "nanGB", "-1GB", f"{HUGE}GB", "GB", "²GB", "1e400GB", "0GB", "")
LIMITS = (f"p50>+{HUGE}%", "p50>+inf%", "p50>+²%", "p50>+nan%", "", "p51>+5%")
BUDGETS = (f"{HUGE}ms", "infms", "nan", "²ms", "-1ms", "0", "")
OPTIONS = ("--count", "--seed", "--class", "--steps")
DEVICES = ("", "none", "host:x", "ssh:", "ssh:-oProxyCommand=x", "adb:none", NOT_UTF8, LONG)
WRONG_ARGUMENTS: list[tuple[str, ...]] = [
    *((*OWN_NET, "--memory-limit", size) for size in SIZES),
    *(("compare", "a.json", "b.json", "--fail-on", text) for text in LIMITS),
    *(("plan", "tiny.toml", "--budget", text) for text in BUDGETS),
    *(("plan", "tiny.toml", "--budget", "1ms", "--minutes", text) for text in ("inf", "nan", "-1", HUGE)),
    *(("sample", "tiny.toml", option, text) for option in OPTIONS for text in (HUGE, "-1", "²", "nan")),
    *(("profile", "none.onnx", "--threads", text) for text in (HUGE, "0", "²", "1,,2", "1000000")),
    *((command, name) for command in COMMANDS for name in NAMES),
    *(("compare", "a.json", name) for name in (LONG, "/dev/zero", "/dev/stdin", NOT_UTF8, "")),
    *(("devices", name) for name in DEVICES),
    ("report", "a.json", "-o", "a.json"),
    ("report", "a.json", "-o", "perf_old.yaml"),
    ("report", "a.json", "-o", "none/x.html"),
    ("report", "a.json", "-o", "."),
    ("sample", "tiny.toml", "-o", "net.py"),
    ("export", "net.py:make", "--signature", "net.toml", "--to", LONG),
    ("export", "net.py:make", "--signature", "net.toml", "-o", "net.py"),
    ("export", "net.py:make", "--signature", NOT_UTF8),
    ("run", "tiny.toml", "--runs", "net.py", "--dry-run"),
    ("run", "tiny.toml", "--to", "²"),
]


def _arguments(base: Path, *arguments: str) -> Case:
    def write(folder: Path) -> Sequence[str]:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        return arguments

    codes = (2, 6) if arguments[0] == "devices" else (1, 2) if "--runs" in arguments or "-o" in arguments else (2,)
    shown = " ".join(text if len(text) < 30 else f"{text[:12]}... ({len(text)})" for text in arguments)
    return Case(f"arguments: {shown}", f"arguments of {arguments[0]}", write, codes)


def _wrong_images(npz: Path, folder: Path) -> Iterator[Case]:
    def of_npz(label: str, make: Callable[[Path], None]) -> Case:
        def write(target: Path) -> Sequence[str]:
            shutil.copytree(npz, target, dirs_exist_ok=True)
            (target / "set.npz").unlink()
            make(target / "set.npz")
            return TO_DATA

        return Case(f"images in an npz: {label}", "images in an npz", write)

    def of_folder(label: str, make: Callable[[Path], None]) -> Case:
        def write(target: Path) -> Sequence[str]:
            shutil.copytree(folder, target, dirs_exist_ok=True)
            make(target / "set")
            return TO_DATA

        return Case(f"folder of images: {label}", "folder of images", write)

    def header(shape: str) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
            npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(100)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("images.npy", npy)

        return make

    for shape in ("(1000000, 1000, 1000)", "(-1, 8, 8)", f"({HUGE}, 8, 8)", "(2**80,)", "8", "(10000000000,)", "()"):
        yield of_npz(f"shape {shape[:24]}", header(shape))
    yield of_npz("objects", lambda path: np.savez(path, images=np.array([{}], dtype=object)))
    yield of_npz("complex", lambda path: np.savez(path, images=np.zeros((4, 8, 8), complex)))
    yield of_npz("no images", lambda path: np.savez(path, images=np.zeros((0, 8, 8), np.uint8)))
    yield of_npz(
        "labels of floats", lambda path: np.savez(path, images=np.zeros((9, 8, 8), np.uint8), labels=np.zeros(9))
    )
    yield of_npz("labels of 2^63", lambda path: np.savez(
        path, images=np.zeros((9, 8, 8), np.uint8), labels=np.full(9, -(2**63))))  # fmt: skip
    yield of_folder("two links to itself", lambda path: [(path / name).symlink_to(".") for name in "ab"] and None)
    yield of_folder("a link to the folder around it", lambda path: (path / "class0" / "up").symlink_to("../.."))
    yield of_folder("a link to /", lambda path: (path / "root").symlink_to("/proc"))
    yield of_folder("a link to nowhere", lambda path: (path / "class0" / "x.png").symlink_to("none"))
    yield of_folder("a class that is not UTF-8", lambda path: (path / "class0").rename(path / NOT_UTF8))
    yield of_folder(
        "an image that is not UTF-8",
        lambda path: (path / "class0" / "0.png").rename(path / "class0" / f"{NOT_UTF8}.png"),
    )
    yield of_folder("a bomb", lambda path: _png(path / "class0" / "0.png", 60000, 60000))
    yield of_folder("a wide image", lambda path: _png(path / "class0" / "0.png", 2**31 - 1, 1))


def _png(path: Path, width: int, height: int) -> None:
    """A head that says so, and no pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def _wrong_onnx() -> Iterator[Case]:
    """Small files that ask for much."""

    def graph(nodes: Sequence[Any], shape: Sequence[Any], initializers: Sequence[Any] = ()) -> bytes:
        from onnx import TensorProto, helper

        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
        made = helper.make_graph(list(nodes), "g", value[:1], value[1:], list(initializers))
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()

    def case(label: str, make: Callable[[], bytes], *arguments: str, codes: tuple[int, ...]) -> Case:
        def write(folder: Path) -> Sequence[str]:
            (folder / "x.onnx").write_bytes(make())
            return arguments

        return Case(f"ONNX: {label}", "ONNX that asks for much", write, codes)

    def constant(elements: int) -> bytes:
        import onnx
        from onnx import helper

        size = onnx.numpy_helper.from_array(np.array([elements], np.int64), "n")
        zero = helper.make_node("ConstantOfShape", ["n"], ["c"])
        total = helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0)
        return graph([zero, total, helper.make_node("Add", ["x", "s"], ["y"])], [1], [size])

    def far(location: str) -> bytes:
        from onnx import TensorProto, helper

        tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        return graph([helper.make_node("Add", ["x", "w"], ["y"])], [4], [tensor])

    def relu(shape: Sequence[Any]) -> bytes:
        from onnx import helper

        return graph([helper.make_node("Relu", ["x"], ["y"])], shape)

    for elements in (2 * 10**9, 10**12, -1):
        yield case(f"a constant of {elements}", lambda n=elements: constant(n), "inspect", "x.onnx", codes=(0, 2))
    for location in ("/dev/zero", "../../../../../../dev/zero", "none", "", ".", "a\0b", "/etc/passwd"):
        yield case(f"weights in {location!r}", lambda text=location: far(text), "inspect", "x.onnx", codes=(2,))
    for shape in ([10**6, 10**6, 10**6], [2**40], [-1], [0]):
        yield case(f"an input of {shape}", lambda s=shape: relu(s), "profile", "x.onnx", codes=(2,))


def hostile_phones() -> Iterator[Case]:
    """An adb that lists a phone, whose shell answers what a phone would not."""
    words = ("²", HUGE, "-1", "1e999", "nan", "\\0", "\\377\\376", "\\033[2J", "x" * 1000, "")
    rows = [(program, word) for program in ("nproc", "getprop", "uname") for word in words]
    rows += [("dumpsys", f"  temperature: {word}\\n  Thermal Status: {word}") for word in words]
    rows += [("cat", f"MemTotal: {word} kB\\n{word} {word} {word}\\nmodel name: {word}") for word in words]
    rows += [("cat", f"cpu {' '.join([word] * 10)}") for word in words]
    rows += [(program, "exit") for program in ("nproc", "cat", "uname", "mktemp", "sha256sum", "chmod", "kill")]
    rows += [("mktemp", word) for word in ("/", "/tmp", "$HOME", "/tmp/edgegen.$(reboot)", "x\\ny", "")]
    for program, word in rows:
        yield _phone(program, word)


def _phone(program: str, word: str) -> Case:
    def write(folder: Path) -> Sequence[str]:
        (folder / "phone").mkdir()
        (folder / "bin").mkdir()
        answer = "exit 1" if word == "exit" else f"printf '{word}\\n'"
        scripts = {
            folder / "phone" / program: f"#!/bin/sh\n{answer}\n",
            folder / "bin" / "adb": _adb(folder / "phone"),
        }
        for path, text in scripts.items():
            path.write_text(text)
            path.chmod(0o755)
        return ("devices", "adb:x")

    environment = {"PATH": "bin:/usr/bin:/bin"}
    return Case(f"phone: {program} says {word[:24]!r}", "hostile phones", write, (0, 6), environment=environment)


def _adb(tools: Path) -> str:
    # Its python3 is none: no runner starts, so that a probe takes no seconds.
    return f"""#!/bin/sh
if [ "$1" = devices ]; then printf 'List of devices attached\\nx\\tdevice\\n'; exit; fi
shift 4
PATH="{tools}:/usr/bin:/bin" exec sh -c "$1"
"""


def mutated_documents(subjects: Sequence[Subject], rng: random.Random, count: int) -> Iterator[Case]:
    from fault_inputs import byte_mutants, value_mutants

    fast = [subject for subject in subjects if not subject.slow]
    share = -(-count // (len(fast) + sum(subject.text == "json" for subject in fast)))
    for subject in fast:
        yield from byte_mutants(subject, share, rng)
        if subject.text == "json":
            yield from value_mutants(subject, share, rng)


__all__ = ["RAW", "hostile_phones", "make_subjects", "mutated_documents", "wrong_inputs"]
