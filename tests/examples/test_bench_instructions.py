"""The count of ARM64's instructions by class: against a program written by hand, and against objdump's reading."""

import collections
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from measured import needs_runners
from small_nets import SIGNATURE, net_files

from edgegen.errors import DeviceError
from edgegen.profilers.devices.emulator import PROCESSOR, Userland
from edgegen.profilers.runners import toolchain
from edgegen.program.inputs import example_inputs

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPILER, FLAGS = "aarch64-linux-gnu-gcc", ("-march=armv8.2-a+dotprod+fp16", "-static")
ROUNDS = 1000
BY_HAND: dict[str, tuple[str, ...]] = {
    "load": ("ldr x2, [x1]", "ldrb w3, [x1, #8]", "ldp x4, x5, [x1]", "ldxr x6, [x1]", "prfm pldl1keep, [x1]"),
    "store": ("str x2, [x1]", "stp x4, x5, [x1, #16]", "stxr w7, x6, [x1]"),
    "vector_load": ("ldr q0, [x1]", "ld1 {v1.4s, v2.4s}, [x1]", "ldp s3, s4, [x1]", "ldr s5, [x1, x10]"),
    "vector_store": ("str q0, [x1, #32]", "st1 {v1.4s}, [x1]", "str s5, [x1]", "stp q0, q1, [x1]", "stur q1, [x1]"),
    "float_multiply": (
        "fmla v3.4s, v1.4s, v2.4s",
        "fmla v3.4s, v1.4s, v2.s[1]",
        "fmul v4.4s, v1.4s, v2.4s",
        "fmul v4.4s, v1.4s, v2.s[3]",
        "fmls v4.8h, v1.8h, v2.8h",
        "fmla v4.8h, v1.8h, v2.h[7]",
        "fmul v4.8h, v1.8h, v2.8h",
    ),
    "dot_product": ("sdot v6.4s, v1.16b, v2.16b", "udot v6.4s, v1.16b, v2.4b[2]"),
    "other_vector": ("fadd v7.4s, v1.4s, v2.4s", "smlal v7.4s, v1.4h, v2.4h", "sshr v7.4s, v7.4s, #2", "dup v7.4s, w3"),
    "scalar_float": ("fmadd s8, s9, s10, s11", "fcvtzs w8, s9", "fmov s9, w8"),
    "system": ("nop", "dmb ish"),
    "integer": ("madd x2, x3, x4, x5", "lsl x2, x3, #3", "subs x9, x9, #1"),  # the last ends the rounds
}
# What a real program has: the C library's loader and printf, sorting, exp, vectors of 8 bits and of floats.
PROGRAM = """
#include <arm_neon.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
static int order(const void* a, const void* b) { return *(const float*)a < *(const float*)b ? -1 : 1; }
int main(int count, char** arguments) {
  static float values[400];
  static signed char bytes[400];
  for (int i = 0; i < 400; ++i) values[i] = exp(-i * count * 0.1) + i % 7, bytes[i] = i * 5;
  qsort(values, 400, sizeof *values, order);
  int32x4_t dots = vdupq_n_s32(0);
  float32x4_t sums = vdupq_n_f32(0);
  for (int i = 0; i < 400; i += 16) dots = vdotq_s32(dots, vld1q_s8(bytes + i), vld1q_s8(bytes + i));
  for (int i = 0; i < 400; i += 4) sums = vfmaq_f32(sums, vld1q_f32(values + i), vld1q_f32(values + i));
  printf("%d %f\\n", vaddvq_s32(dots), vaddvq_f32(vmulq_n_f32(sums, 0.5f)));
}
"""
BRANCHES = ("b", "bl", "br", "blr", "ret", "cbz", "cbnz", "tbz", "tbnz")
SYSTEM = ("svc", "nop", "dc", "mrs", "msr", "dmb", "dsb", "isb", "hint", "yield", "bti", "brk", "clrex")
LANES = ("fabd", "fcmge", "fcmgt", "fcmeq", "frecpe", "frecps", "frsqrte", "frsqrts")  # one lane of a vector


@pytest.fixture(scope="module")
def counting() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import counting_qemu

        yield counting_qemu
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def bench(counting: ModuleType) -> ModuleType:
    import bench_instructions

    return bench_instructions


def needs_counting(counting: ModuleType) -> None:
    if not counting.CountingUserland().ready:
        pytest.skip("no emulator that counts instructions: python tests/device_parts.py counting")
    if shutil.which(COMPILER) is None:
        pytest.skip("no compiler for ARM64: apt install g++-aarch64-linux-gnu")


def compiled(source: Path, *flags: str) -> Path:
    program = source.with_suffix("")
    subprocess.run([COMPILER, *FLAGS, *flags, "-o", str(program), str(source), "-lm"], check=True)
    return program


def run_counted(counting: ModuleType, program: Path) -> list[dict[str, int]]:
    userland = counting.CountingUserland(out=program.with_suffix(".counts"))
    subprocess.run([*userland.emulator, str(program)], check=True, stdout=subprocess.DEVNULL, env={})
    counts: list[dict[str, int]] = counting.counted(userland)
    return counts


@pytest.mark.devices
def test_a_program_written_by_hand_has_the_counts_that_were_written(counting: ModuleType, tmp_path: Path) -> None:
    needs_counting(counting)
    lines = [line for instructions in BY_HAND.values() for line in instructions]
    start = [".globl _start", "_start: adr x1, buffer", f"mov x9, #{ROUNDS}", "again:"]
    end = ["b.ne again", "mov x0, #0", "mov x8, #93", "svc #0", ".data", ".balign 16", "buffer: .space 64"]
    source = tmp_path / "hand.S"
    source.write_text("\n".join([*start, *lines, *end, ""]))
    (counts,) = run_counted(counting, compiled(source, "-nostdlib"))
    expected = {name: ROUNDS * len(instructions) for name, instructions in BY_HAND.items()}
    expected |= {"branch": ROUNDS, "unknown": 0}
    expected["integer"] += 4  # an address and three constants
    expected["system"] += 1
    assert counts == expected


def class_of(name: str, operands: str) -> str:
    """The class by objdump's mnemonic and operands alone."""
    first, second = [*(part.strip(" {}") for part in operands.split(",")), "", ""][:2]
    whole = re.search(r"\bv\d+\.", operands) is not None
    register = re.match(r"[vqdshb]\d+", first) is not None
    if name.startswith("b.") or name in BRANCHES:
        return "branch"
    if name in SYSTEM or re.match("pac|aut|xpac", name):
        return "system"
    if re.match(r"ld|prf|cas|swp", name):
        return "vector_load" if register else "load"
    if name.startswith("st"):
        return "vector_store" if register else "store"
    if whole and name in ("sdot", "udot"):
        return "dot_product"
    if re.match(r"v\d+\.", first) and name in ("fmla", "fmls", "fmul"):
        return "float_multiply"
    converts = name in ("scvtf", "ucvtf") or re.match(r"fcvt[zanmp][su]", name)
    lane = name in LANES or (converts and re.match(r"[sd]\d", first) and re.match(r"[sd]\d", second))
    if lane or (whole and not (name == "fmov" and "[1]" in operands)):
        return "other_vector"
    if name.startswith("f") or converts:
        return "scalar_float"
    return "other_vector" if register else "integer"


@pytest.mark.devices
def test_a_real_program_has_the_counts_of_a_disassembler_and_a_log(counting: ModuleType, tmp_path: Path) -> None:
    """Debian's qemu, without plug-ins, logs the address of each instruction; objdump says what stands there."""
    needs_counting(counting)
    source = tmp_path / "program.c"
    source.write_text(PROGRAM)
    program, log = compiled(source, "-O2"), tmp_path / "log"
    noted = run_counted(counting, program)
    assert len(noted) == 2, "one write, and the end"
    step = ("-one-insn-per-tb", "-d", "exec,nochain", "-D", str(log))
    subprocess.run([str(Userland().qemu), "-cpu", PROCESSOR, *step, str(program)], check=True, env={}, stdout=-3)
    objdump = subprocess.run(["aarch64-linux-gnu-objdump", "-d", program], check=True, capture_output=True, text=True)
    listing = re.findall(r"^ *([0-9a-f]+):\t[0-9a-f]{8} \t(\S+)\t?([^/<\n]*)", objdump.stdout, re.MULTILINE)
    classes = {int(address, 16): class_of(name, operands) for address, name, operands in listing}
    executed = re.findall(r"\[[0-9a-f]+/([0-9a-f]+)/", log.read_text())
    expected = collections.Counter(classes[int(address, 16)] for address in executed)
    assert sum(expected.values()) > 50_000
    assert dict(expected) == {name: count for name, count in noted[-1].items() if count}


@pytest.mark.devices
def test_an_inference_is_counted_alone(counting: ModuleType, tmp_path: Path, in_process: None) -> None:
    """The multiplications that the shapes ask for, the same again, and not what loading and packing take."""
    needs_counting(counting)
    needs_runners(toolchain.ARM64)
    files = net_files(tmp_path / "net")
    inputs = []
    for name, array in example_inputs(SIGNATURE, 1, 0).items():
        array.tofile(path := tmp_path / f"{name}.bin")
        inputs.append(f"{'x'.join(map(str, array.shape))}:{path}")
    for name in ("net_onnx_fp32.onnx", "net_executorch_fp32.pte"):
        (_, first, second), output = counting.inferences(files / name, inputs, runs=3)
        assert np.isfinite(np.frombuffer(output, np.float32)).all()
        products = 2 * 8 * 9 * 64  # two 3x3 convolutions between 1 and 8 channels of 8 x 8 pixels
        assert products / 4 <= first["float_multiply"] < products * 4
        assert first["dot_product"] == first["unknown"] == 0
        assert sum(second.values()) == pytest.approx(sum(first.values()), rel=0.02)


def test_an_unknown_instruction_is_an_error(counting: ModuleType) -> None:
    before = {"integer": 5, "unknown": 0}
    assert counting.difference(before, {"integer": 9, "unknown": 0}) == {"integer": 4, "unknown": 0}
    with pytest.raises(DeviceError, match="3 instructions are of no class that is known"):
        counting.difference(before, {"integer": 9, "unknown": 3})


def test_a_machine_without_glib_says_what_is_missing(
    counting: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "complete").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(counting.debian, "require_tools", lambda purpose: None)
    with pytest.raises(DeviceError, match=r"no glib-2\.0 here: apt install gcc pkg-config libglib2\.0-dev"):
        counting.CountingUserland(tmp_path).fetch()


def test_each_cell_lists_the_rewrites_that_can_be_left_out(bench: ModuleType) -> None:
    assert "winograd" in bench.rewrites_of("onnx-fp32")
    assert {"winograd_rows", "resampling", "group_norm_spatial"} <= {*bench.rewrites_of("executorch-fp32")}
    in_8_bits = {*bench.rewrites_of("executorch-w8a8")}
    assert "group_norm_spatial" in in_8_bits
    assert not in_8_bits & {"resampling", "winograd_rows", "quantized_cat"}


@pytest.mark.parametrize(
    ("arm", "host", "expected"), [(1.2, 0.9, True), (0.8, 1.05, True), (1.05, 0.9, False), (0.8, 0.7, False)]
)
def test_what_contradicts(bench: ModuleType, arm: float, host: float, expected: bool) -> None:
    assert bench.contradicts(arm, host) is expected


def test_the_table_has_every_rewrite(bench: ModuleType) -> None:
    counts = dict.fromkeys((*BY_HAND, "branch", "unknown"), 1_000_000)
    shared: dict[str, Any] = {"net": "n", "cell": "onnx-fp32"}
    without = {**counts, "float_multiply": 4_000_000}
    rows = [
        {**shared, "rewrite": None, "counts": counts, "host_ms": 2.0},
        {
            **shared,
            "rewrite": "winograd",
            "counts_without": without,
            "instructions_with_over_without": 0.8,
            "host_time_with_over_without": 1.25,
            "contradicts": True,
        },
        {**shared, "rewrite": "einsum", "changes_nothing": True},
    ]
    text = bench.table(rows)
    assert "| n | onnx-fp32 | winograd | 0.800 | 0.400 | 1.000 | 1.250 |" in text
    assert "n, onnx-fp32: einsum changes nothing" in text
    assert text.endswith("contradict the time here: n, onnx-fp32, winograd")
