"""bench_faults: a seeded share of its inputs in one child process; none ends badly. And it tells what is bad."""

import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SLOW = ("image", "sampled", "folder of", "phone", "ONNX", "arguments of devices")


@pytest.fixture(scope="module")
def bench_faults() -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import bench_faults

        yield bench_faults
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.long
def test_no_input_ends_badly(bench_faults: Any, tmp_path: Path) -> None:
    cases = [
        case
        for case in bench_faults.cases_of(tmp_path / "good", quick=True, seed=3)
        if not any(word in case.kind for word in SLOW)
    ]
    bench = bench_faults.Bench(tmp_path)
    try:
        for number, case in enumerate(cases[:: len(cases) // 60 or 1]):
            bench.run(case, number)
    finally:
        bench.close()
    assert sum(sum(counts.values()) for counts in bench.counts.values()) >= 60
    assert not bench.faults, "\n".join(bench.faults)


@pytest.mark.parametrize(
    ("answer", "column"),
    [
        ({"code": 2, "said": "error: no file x\n", "peak": 1}, "clear"),
        ({"code": 2, "said": "", "peak": 1}, "other code"),
        ({"code": 1, "said": "error: no file x\n", "peak": 1}, "other code"),
        ({"code": 0, "said": "", "peak": 1}, "wrongly"),
        ({"code": "traceback", "said": "KeyError", "peak": 1}, "traceback"),
        ({"code": 2, "said": "Traceback (most recent call last):\n ...\nerror: x", "peak": 1}, "traceback"),
        ({"code": 2, "said": "error: x", "peak": 3 << 30}, "over 2 GB"),
        ({"ended": "hang"}, "hang"),
        ({"ended": "death", "how": -11}, "death"),
    ],
)
def test_each_end_has_its_column(bench_faults: Any, answer: dict[str, Any], column: str) -> None:
    assert bench_faults.judge((2,), answer, ()) == column
    if answer.get("code") == 0:
        assert bench_faults.judge((0, 2), answer, ()) == "accepted"
