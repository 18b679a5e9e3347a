"""Networks that public bug reports are about (../shared/cases), in three runtimes: right, or refused in one sentence.

Their quick representatives have small networks of their own, in the tests of the part that each is about.
"""

import re
from pathlib import Path

import pytest

from edgegen.artifacts.export import ExportSettings, export_source
from edgegen.artifacts.export_result import ExportResult, raise_failures
from edgegen.artifacts.target import Target
from edgegen.errors import EdgegenError
from edgegen.support.progress import Silent

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/cases"),
]
RUNTIMES = ("onnx", "executorch", "coreml")  # Core ML in fp16: masks and norms overflow there first
WELL_DB = 60.0  # also of the files in fp16

# folder, signature, factories: right in every runtime
RIGHT = {
    "05-transformer-fast-path/net": ("post_norm", "pre_norm", "sequence_first"),
    "06-padding-same-w8a8/net": ("even", "odd", "mixed"),
    "06-padding-same-w8a8/wave": ("wave",),
    "07-transposed-convolutions/grey": ("grey",),
    "07-transposed-convolutions/grouped": ("grouped",),
    "09-modulated-convolution/net": ("style",),
    "09-modulated-convolution/one": ("style",),
    "10-fp16-mask/net": ("padded", "causal"),
    "11-rms-norm/net": ("plain", "spiky", "silent"),
    "12-grid-sample/net": ("border", "zeros"),
    "15-statistics-of-the-batch/net": ("instance", "instance_tracked"),
    "16-slimmed-graph/net": ("windowed", "padded"),
    "16-slimmed-graph/frames": ("frames",),
    "16-slimmed-graph/shared": ("shared",),
    "19-names/keyword": ("net",),
    "19-names/pixels": ("net",),
    "19-names/self": ("net",),
    "19-names/timed": ("timed",),
    "19-names/words": ("net",),
    "19-names/same": ("same",),
    "20-one-hot-class/net": ("one_hot", "guided"),
    "20-one-hot-class/int32": ("equal",),
    "bisect/net": (
        *("there_and_back", "conv_after", "shuffle_only", "tokens_in", "tokens_out", "plain_tokens"),
        *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "chunked", "batched_kernel", "grouped_up"),
    ),
}
# 8 bits: what the case is about is in the quantization
ROUNDED = {
    "06-padding-same-w8a8/net": ("even", "odd", "mixed"),
    "06-padding-same-w8a8/wave": ("wave",),
    "07-transposed-convolutions/grey": ("grey",),
    "07-transposed-convolutions/grouped": ("grouped",),
    "09-modulated-convolution/net": ("style",),
}
# Refused before any work, by the source or the capture
REFUSED = {
    ("bisect/net", "window"): r"gives \(2, 8, 8, 8\) .* its signature says picture \(2, 3, 8, 8\)",
    (
        "15-statistics-of-the-batch/net",
        "batch",
    ): r"depends on the others .* \(net.norm \(BatchNorm2d\) has no",
    ("15-statistics-of-the-batch/net", "stubborn"): r"net.norm \(Stubborn\) stays in training mode after eval\(\)",
    ("15-statistics-of-the-batch/net", "dropout"): "gives something else at every run: .*; of dropout, call eval",
    ("19-names/twice", "net"): "an input and the output have the same name, sample; .* give the output another one",
    ("19-names/same_time", "same"): "refuses the inputs of its signature .* unexpected keyword argument 'timestep'",
    ("19-names/wrong_time", "timed"): "refuses the inputs of its signature .* unexpected keyword argument 't'",
    ("bisect/net", "bf16"): "computes under torch.autocast: take that out of its forward",
    ("bisect/net", "bf16_by_hand"): r"computes in bfloat16 \(\w+\): take that out of its forward",
    ("bisect/net", "stays_batchnorm"): r"depends on the others in the batch \(net.n \(BatchNorm2d\) has no running",
}


def rows(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(place, factory) for place, factories in table.items() for factory in factories]


def export(place: str, factory: str, output: Path, *targets: str, signature: Path | None = None) -> ExportResult:
    folder, signature = CASES / Path(place).parent, signature or CASES / f"{place}.toml"
    settings = ExportSettings(tuple(map(Target.parse, targets)), measure=False, samples=4)
    source = f"{folder / 'net.py'}:{factory}"
    (done,) = export_source(source, output, settings, signature=signature, progress=Silent())
    return done


@pytest.mark.filterwarnings("ignore:Using padding=:UserWarning")  # PyTorch's advice on even kernels
@pytest.mark.parametrize(("place", "factory"), rows(RIGHT))
def test_it_is_right_in_every_runtime(place: str, factory: str, tmp_path: Path, in_process: None) -> None:
    done = export(place, factory, tmp_path, *RUNTIMES)
    raise_failures([done])
    assert len(done.parity) == len(RUNTIMES)
    for file, parity in done.parity.items():
        assert (parity.psnr_db or 0.0) >= WELL_DB, (file, parity)


@pytest.mark.filterwarnings("ignore:Using padding=:UserWarning")  # PyTorch's advice on even kernels
@pytest.mark.parametrize(("place", "factory"), rows(ROUNDED))
def test_it_is_right_in_8_bits(place: str, factory: str, tmp_path: Path, in_process: None) -> None:
    done = export(place, factory, tmp_path, *(f"{runtime}-w8a8" for runtime in RUNTIMES))
    raise_failures([done])
    for file, parity in done.parity.items():
        assert "float" not in parity.arithmetic or "modulated" in place, (file, parity.arithmetic)


@pytest.mark.parametrize(("place", "factory", "message"), [(*row, message) for row, message in REFUSED.items()])
def test_it_is_refused_in_one_sentence(place: str, factory: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgegenError) as refused:
        export(place, factory, tmp_path / "out", *RUNTIMES)
    assert re.search(message, str(refused.value)), refused.value
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists(), "nothing was written"


def test_a_convolution_times_a_vector_over_the_width(tmp_path: Path, in_process: None) -> None:
    """Of bisect/net.py `window`, whose eight channels the signature beside it does not have: with one that does."""
    text = (CASES / "bisect" / "net.toml").read_text()
    inputs, outputs = text.split("[[outputs]]")
    (tmp_path / "net.toml").write_text(
        inputs + "[[outputs]]" + outputs.replace("3, 8, 8", "8, 8, 8").replace("image", "signal")
    )
    done = export("bisect/net", "window", tmp_path / "out", *RUNTIMES, signature=tmp_path / "net.toml")
    raise_failures([done])
    assert [(parity.psnr_db or 0.0) >= WELL_DB for parity in done.parity.values()] == [True] * len(RUNTIMES)


VOLUMES = {
    "onnx-fp32": r"grid_sample of volumes \(5D\) needs ONNX opset 20, .* set opset = 20",
    "executorch-fp32": "ExecuTorch has no form of aten.grid_sampler_3d.default: write the network without it",
    "coreml-fp16": "Core ML resamples images, and no volumes: write the network without grid_sample of 5D",
}


def test_a_volume_is_refused_where_a_runtime_has_none(tmp_path: Path, in_process: None) -> None:
    done = export("12-grid-sample/net", "volume", tmp_path / "out", *RUNTIMES)
    assert list(done.failures) == list(VOLUMES)
    for target, error in done.failures.items():
        assert re.search(VOLUMES[target], str(error)), error
        assert "\n" not in str(error)
    assert not (tmp_path / "out").exists()


def test_every_case_has_its_row() -> None:
    made = {place.partition("/")[0] for place in (*RIGHT, *(place for place, _ in REFUSED))}
    assert made == {folder.name for folder in CASES.iterdir()}
    written = {(file.parent.name, file.stem) for file in CASES.glob("*/*.toml")}
    assert written == {tuple(place.split("/")) for place in (*RIGHT, *(place for place, _ in REFUSED))}
    for folder in CASES.iterdir():
        named = {factory for place, factory in (*rows(RIGHT), *REFUSED) if place.startswith(folder.name)}
        factories = set(re.findall(r"^def ([a-z]\w*)\(", (folder / "net.py").read_text(), re.MULTILINE))
        assert factories - {"made", "volume"} <= named, folder.name
