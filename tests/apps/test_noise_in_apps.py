"""The noise in the languages of the apps against edgegen's; tests/noise_programs.py has what runs them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from noise_programs import CASES, LANGUAGES, Answer, typescript, ulps
from noise_vectors import LENGTH, known_normals, known_words

from edgegen.noise import normal

pytestmark = pytest.mark.apps


@pytest.fixture(scope="module", params=LANGUAGES)
def answer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    language = LANGUAGES[request.param]
    if (reason := language.missing()) is not None:
        pytest.skip(reason)
    return language.compiled(tmp_path_factory.mktemp(request.param))


def test_the_vectors_of_the_manual_hold_in_every_language(answer: Answer) -> None:
    vectors, normals = known_words(), known_normals()
    requests = [f"philox {' '.join(map(str, (*counter, *key)))}" for counter, key, _ in vectors]
    requests += [f"normal {seed} {index} 1 {LENGTH}" for seed, index, _ in normals]
    drawn = answer("\n".join(requests) + "\n")
    words = np.frombuffer(drawn, "<u4", 4 * len(vectors)).reshape(-1, 4)
    assert words.tolist() == [result for *_, result in vectors]
    values = np.frombuffer(drawn, "<f4", offset=words.nbytes).reshape(-1, LENGTH)
    assert values.tolist() == [expected.tolist() for *_, expected in normals]


def test_a_million_numbers_are_those_of_python(answer: Answer) -> None:
    drawn = np.frombuffer(answer("".join(f"normal {' '.join(map(str, case))}\n" for case in CASES)), "<f4")
    expected = np.concatenate([normal(seed, first, count, (size,)).ravel() for seed, first, count, size in CASES])
    assert drawn.shape == expected.shape
    assert expected.size > 1_000_000
    apart = ulps(drawn, expected)
    # Platforms' log, cos and sin differ in the last bit of some float64 results, of which float32 shows hardly any.
    assert np.count_nonzero(apart) <= 1
    assert apart.max() <= 1


def test_typescript_refuses_what_it_cannot_draw_exactly(tmp_path: Path) -> None:
    if (reason := LANGUAGES["node"].missing()) is not None:
        pytest.skip(reason)
    typescript(tmp_path)
    calls = ["-1, 0, 1, 4", "0.5, 0, 1, 4", "2 ** 53, 0, 1, 4", "-1n, 0, 1, 4", "2n ** 64n, 0, 1, 4"]
    calls += [
        "0, -1, 1, 4",
        "0, 2 ** 53, 1, 4",
        "0, 2 ** 53 - 1, 1, 4",
        "0, 0, NaN, 4",
        "0, 0, 1, 4.5",
        "0, 0, 0, 2 ** 34 + 1",
    ]
    module = tmp_path / "edgegen/apps/templates/web/src/noise.js"
    attempts = ", ".join(f"() => normal({call})" for call in calls)
    program = f"""
        import {{ normal }} from {str(module)!r};
        for (const draw of [{attempts}]) {{
          try {{ draw(); console.log("drawn"); }} catch (e) {{ console.log(`${{e.name}} ${{e.message}}`); }}
        }}"""
    command = ["node", "--input-type=module", "--eval", program]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.removeprefix("RangeError ").partition(" is ")[0] for line in lines]
    assert names == ["seed"] * 5 + ["first"] * 2 + ["first + count", "count", "size", "size"]
    assert lines[0] == "RangeError seed is -1; it must be a whole number from 0 to 9007199254740991"
    assert lines[4] == "RangeError seed is 18446744073709551616; it must be 0 to 2^64 - 1"


def test_numbers_that_differ_are_counted_in_float32_steps() -> None:
    values = np.array([1, -1, 0, 1e-45], np.float32)
    others = np.array([np.nextafter(np.float32(1), np.float32(2)), -1, -0.0, -1e-45], np.float32)
    assert ulps(others, values).tolist() == [1, 0, 0, 2]
