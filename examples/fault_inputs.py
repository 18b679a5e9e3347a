"""Bad inputs for `bench_faults.py`: hostile files in the place of good ones, wrong values, and mutants, by a seed.

A case writes its files into an empty folder and gives the arguments of `edgegen`. A bad input is wrong by what the
manual says: the command has to refuse it. A mutant is a good file with some bytes or values changed: it may still be
right, unless a record beside it (a manifest's SHA-256) says otherwise.
"""

import json
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUGE = "9" * 400
DEEP = 100_000
NOT_UTF8 = os.fsdecode(b"caf\xe9")


@dataclass(frozen=True)
class Case:
    """`codes` are the exit codes that the manual gives for it; with 0 among them it may be accepted."""

    name: str
    kind: str
    write: Callable[[Path], Sequence[str]]
    codes: tuple[int, ...] = (2,)
    is_mutant: bool = False
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Subject:
    """A good file at `place` in a copy of the folder `base`, and the command that reads it.

    `optional`: without the file, or with another in its place, the command goes on. `recorded`: a manifest has
    its hash.
    """

    kind: str
    base: Path
    place: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (2,)
    optional: bool = False
    one_of_many: bool = False  # the command goes on without the file, but not with a damaged one
    may_be_empty: bool = False
    cuttable: bool = False  # the first half of it is right, too
    recorded: bool = False
    text: str = ""  # json, toml, yaml: the language; "" for bytes
    slow: bool = False  # takes seconds: fewer mutants

    def copy(self, folder: Path) -> Path:
        """A copy of the base in `folder`; gives the path of the file."""
        shutil.copytree(self.base, folder, dirs_exist_ok=True, symlinks=True)
        return folder / self.place

    def case(self, label: str, change: Callable[[Path], None], **options: Any) -> Case:
        def write(folder: Path) -> Sequence[str]:
            change(self.copy(folder))
            return self.arguments

        options.setdefault("codes", (*self.codes, 0) if self.optional else self.codes)
        return Case(f"{self.kind}: {label}", self.kind, write, **options)


# --- a hostile file in the place of a good one


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _replaced(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        _remove(path)
        make(path)

    return change


def _socket(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")  # the name of a socket has at most 107 characters
        shutil.move(f"{folder}/s", path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)


def _links_around(path: Path) -> None:
    """A folder with two links to itself."""
    path.mkdir()
    for name in "ab":
        (path / name).symlink_to(".")


HOSTILE_FILES: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b"") and None,
    "a FIFO": lambda path: os.mkfifo(path),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to a terminal": lambda path: path.symlink_to("/dev/ptmx"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a socket": _socket,
    "an empty folder": lambda path: path.mkdir(),
    "a folder with links to itself": _links_around,
    "5 GB of nothing": _sparse,
    "zero bytes": lambda path: path.write_bytes(bytes(4096)) and None,
    "random bytes": lambda path: path.write_bytes(random.Random(0).randbytes(4096)) and None,
    "UTF-16": lambda path: path.write_bytes('{"a": 1}'.encode("utf-16")) and None,
    "a web page": lambda path: path.write_text("<!doctype html><title>404 Not found</title>") and None,
}


ABSENT = ("missing", "an empty folder", "a folder with links to itself")


def hostile_files(subject: Subject) -> Iterator[Case]:
    for label, make in HOSTILE_FILES.items():
        may_be_absent = (subject.one_of_many and label in ABSENT) or (subject.may_be_empty and label == "empty")
        yield subject.case(label, _replaced(make), **({"codes": (*subject.codes, 0)} if may_be_absent else {}))

    def halve(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    yield subject.case("cut in half", halve, **({"codes": (*subject.codes, 0)} if subject.cuttable else {}))


# --- texts that are wrong as a whole

NESTED = {
    "json": {
        "deep lists": "[" * DEEP + "]" * DEEP,
        "deep tables": '{"a":' * DEEP + "1" + "}" * DEEP,
        "900 deep": "[" * 900 + "]" * 900,
        "only openings": "[" * DEEP,
    },
    "toml": {
        "deep lists": f"a = {'[' * DEEP}{']' * DEEP}",
        "deep dotted keys": "a" + ".a" * 5000 + " = 1",
        "deep headers": "[a" + ".a" * 5000 + "]",
        "900 deep": f"a = {'[' * 900}{']' * 900}",
    },
    "yaml": {
        "deep lists": "[" * DEEP + "]" * DEEP,
        "deep tables": "".join(" " * i + "a:\n" for i in range(900)),
        "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        "a date": "models: 2020-99-99\n",
        "a huge number": f"models: {'1' * 5000}\n",
        "a sexagesimal": f"models: {'1:' * 3000}1\n",
    },
}
ATOMS = {"json": ["null", "true", "7", "-1", '"text"', "[]", "[[]]", "[null]", "NaN", "1e999", HUGE, '"\\ud800"']}


def wrong_texts(subject: Subject) -> Iterator[Case]:
    texts = {**NESTED[subject.text], **{f"only {atom[:12]}": atom for atom in ATOMS.get(subject.text, [])}}
    for label, text in texts.items():
        yield subject.case(label, _writer(text))

    def prefixed(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\xff\xfe\xfa")

    yield subject.case("not UTF-8 at its end", prefixed)


def _writer(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text, encoding="utf-8") and None


# --- wrong values in a good JSON document

MARK = "@@@"
RAW = {  # what json.dumps cannot write
    "deep": "[" * 5000 + "]" * 5000,
    "NaN": "NaN",
    "Infinity": "Infinity",
    "1e999": "1e999",
    "400 digits": HUGE,
    "-400 digits": f"-{HUGE}",
    "5000 digits": "9" * 5000,
    "lone surrogate": '"\\ud800"',
    "NUL": '"a\\u0000b"',
}
VALUES: list[Any] = [None, True, -1, 0, 10**12, 2**63, 2**64, -1e308, 1e308, "", "text", "²", "../../x", [], {}]
VALUES += [[[]], [None], {"a": None}, "\x1b[31mred", "x" * 100_000]


def with_value(content: Any, place: Sequence[Any], value: Any) -> str:
    """The JSON text of `content` with `value` at `place`; a str that is a key of RAW stands for that text."""
    copy = json.loads(json.dumps(content))
    raw = RAW.get(value) if isinstance(value, str) else None
    part = copy
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = MARK if raw else value
    text = json.dumps(copy)
    return text.replace(f'"{MARK}"', raw) if raw else text


def places(content: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in parts:
        yield (*prefix, key)
        yield from places(inner, (*prefix, key))


def wrong_value(subject: Subject, place: Sequence[Any], value: Any, **options: Any) -> Case:
    def change(path: Path) -> None:
        path.write_text(with_value(json.loads(path.read_text()), place, value), encoding="utf-8")

    return subject.case(f"{'.'.join(map(str, place))} = {str(value)[:20]!r}", change, **options)


def value_mutants(subject: Subject, count: int, rng: random.Random) -> Iterator[Case]:
    """Any value of the document replaced by a hostile one; most are wrong, some are not."""
    content = json.loads((subject.base / subject.place).read_text())
    everywhere = list(places(content))
    for _ in range(count):
        case = wrong_value(subject, rng.choice(everywhere), rng.choice([*VALUES, *RAW]), is_mutant=True)
        yield _may_be_right(case, subject)


def _may_be_right(case: Case, subject: Subject) -> Case:
    """A mutant that no record contradicts may be accepted, or refused for what it asks for."""
    codes = subject.codes if subject.recorded else tuple(sorted({0, 1, *subject.codes}))
    return Case(case.name, case.kind, case.write, codes=codes, is_mutant=True)


# --- bytes


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: flipped bits, overwritten numbers, bytes that are inserted, removed, doubled or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not data:
            return b"\0"
        at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 512))  # heads hold the sizes
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[at : at + 4] = rng.choice((0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 28)).to_bytes(4, "little")
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        elif kind == 4:
            del data[at : at + rng.choice((1, 4, 64))]
        elif kind == 5:
            data[at:at] = data[at : at + rng.choice((8, 256))]
        else:
            del data[at:]
    return bytes(data) if bytes(data) != content else bytes(data) + b"\0"


def byte_mutants(subject: Subject, count: int, rng: random.Random) -> Iterator[Case]:
    for number in range(count):
        seed = rng.getrandbits(32)

        def change(path: Path, seed: int = seed) -> None:
            path.write_bytes(mutated(path.read_bytes(), random.Random(seed)))

        yield _may_be_right(subject.case(f"mutant {number} of {Path(subject.place).name}", change), subject)
