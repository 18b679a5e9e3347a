"""A `.pte` or `.bpte` file taken apart: the decoded program, its segments, and the graphs of its delegates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgegen.inspection.flatbuffer import PAYLOADS, PROGRAM, decode, payload
from edgegen.support.bounded_files import Content

IDENTIFIER = b"ET12"
BUNDLE = b"BP08"  # a BundledProgram: golden inputs and outputs around a whole .pte
HEADER = b"eh00"
DelegateKey = tuple[str, int]


@dataclass(frozen=True)
class Pte:
    """`content` is the program's part of the file, `around` the bytes of a bundle around it.

    `program` is decoded as exir/_serialize/program.fbs says; segments lie from byte `base` on. `graphs` holds what a
    delegate keeps (None: a format that edgegen does not read), by backend and segment: methods share them.
    """

    content: Content
    around: int
    base: int
    program_bytes: int
    program: Mapping[str, Any]
    graphs: dict[DelegateKey, Mapping[str, Any] | None] = field(default_factory=dict)

    @property
    def plans(self) -> Sequence[Mapping[str, Any]]:
        plans: Sequence[Mapping[str, Any]] = self.program["execution_plan"]
        return plans

    def delegate(self, place: DelegateKey) -> bytes:
        """The payload of a delegate: a segment, or (number below zero) data inside the program."""
        if place[1] < 0:
            return bytes(self.program["backend_delegate_data"][-1 - place[1]]["data"])
        segment = self.program["segments"][place[1]]
        start = self.base + segment["offset"]
        return self.content[start : start + segment["size"]]


def place_of(delegate: Mapping[str, Any]) -> DelegateKey:
    """Where a plan's delegate keeps its payload."""
    where = delegate["processed"]
    return str(delegate["id"]), where["index"] if where["location"] == "SEGMENT" else -1 - where["index"]


def read_pte(content: Content) -> Pte:
    """Raises ValueError where it is cut short or something else, MissingExtraError without executorch.

    The header says how long the file must be: flatc would read past the end of a shorter one.
    """
    whole = len(content)
    if content[4:8] == BUNDLE:
        content = _inside(content)
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"it begins with {content[4:8]!r}, not with an ExecuTorch program's {IDENTIFIER!r}")
    size, base = len(content), 0
    if content[8:12] == HEADER:
        header = int.from_bytes(content[12:16], "little")
        size, base = (int.from_bytes(content[at : at + 8], "little") for at in (16, 24))
        needed = max(size, base + (int.from_bytes(content[32:40], "little") if header > 24 else 0))
        if needed > len(content):
            raise ValueError(f"its header says {needed} bytes")
    program = decode([content[:size]], PROGRAM)[0]
    if not program.get("execution_plan"):
        raise ValueError("it has no methods")
    if any(base + segment["offset"] + segment["size"] > len(content) for segment in program.get("segments") or []):
        raise ValueError("a segment lies beyond its end")
    pte = Pte(content, whole - len(content), base, size, program)
    _decode_delegates(pte)
    return pte


def _inside(content: Content) -> bytes:
    """The program in a bundle: a vector of bytes, which its length precedes."""
    start = content.find(IDENTIFIER + HEADER) - 4
    if start < 4:
        raise ValueError("no ExecuTorch program in the bundle")
    size = int.from_bytes(content[start - 4 : start], "little")
    if start + size > len(content):
        raise ValueError(f"the program in the bundle has {size} bytes")
    return content[start : start + size]


def _decode_delegates(pte: Pte) -> None:
    """Every graph whose format is known, all of a backend in one go."""
    for plan in pte.plans:
        for delegate in plan.get("delegates") or []:
            pte.graphs[place_of(delegate)] = None
    for backend, schema in PAYLOADS.items():
        places = [place for place in pte.graphs if place[0] == backend]
        if places:
            graphs = decode([payload(pte.delegate(place)) for place in places], schema)
            pte.graphs.update(zip(places, graphs, strict=True))
