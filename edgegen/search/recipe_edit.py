"""Puts another student into the text of a recipe: the lines of its size change, all others stay as they were."""

import hashlib
import re
import tomllib
from typing import Any

from edgegen.errors import RecipeError
from edgegen.recipe import Architecture

COMMENT = "# edgegen plan:"
# Before version 0.1.0 was released the command was `edgegen slim plan`.
SEAL = re.compile(r"^(.*# edgegen (?:slim )?plan:.*) \[([0-9a-f]{16})\]$", flags=re.MULTILINE)
HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
SIZE = {  # by the table that a line stands in: the keys that set the size
    "": re.compile(r"\s*slim\.(?:keep|network)\s*="),
    "slim": re.compile(r"\s*(?:keep|network)\s*="),
}


def with_student(text: str, model: Architecture, *, note: str) -> str:
    """The text of a recipe with `model` in place of slim.keep or slim.network; `note` is a comment beside it.

    The comment ends in a seal, by which `is_planned` recognises the text. Raises RecipeError where the size is written
    in a way that is not understood: the result is parsed, and must differ in the student alone.
    """
    replaced = _replace_size(text.splitlines(), model)
    edited = None if replaced is None else _sealed(*replaced, note)
    if edited is None or tomllib.loads(edited) != _expected(text, model):
        raise RecipeError(
            "slim: the line that sets the size cannot be found and replaced; write `keep = 0.3` on a line of its own "
            f"below [slim]. It would be replaced by: {_inline(model)}"
        )
    return edited


def is_planned(text: str) -> bool:
    """Whether `with_student` made the text, and nobody has changed it since."""
    seal = SEAL.search(text)
    return seal is not None and _digest(text.replace(seal[0], seal[1], 1)) == seal[2]


def _sealed(lines: list[str], number: int, note: str) -> str:
    lines[number] += f"  {COMMENT} {note}"
    lines[number] += f" [{_digest(_joined(lines))}]"
    return _joined(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _replace_size(lines: list[str], model: Architecture) -> tuple[list[str], int] | None:
    """The lines with the student, and the number of the line for the comment; None where no line sets the size."""
    table = ""
    for number, line in enumerate(lines):
        before, after = lines[:number], lines[number + 1 :]
        header = HEADER.fullmatch(line)
        table = header[1].strip() if header else table
        if header and table == "slim.network":
            return [*before, "[slim.network]", *_keys(model), *_without_keys(after)], number
        if table in SIZE and SIZE[table].match(line):
            return [*before, ("slim." if table == "" else "") + _inline(model), *after], number
    return None


def _without_keys(lines: list[str]) -> list[str]:
    """`lines` begin inside a table: its comments and blank lines, and everything after the table."""
    end = next((number for number, line in enumerate(lines) if HEADER.fullmatch(line)), len(lines))
    return [line for line in lines[:end] if not line.strip() or line.lstrip().startswith("#")] + lines[end:]


def _keys(model: Architecture) -> list[str]:
    values = {"channels": list(model.channels), "blocks": model.blocks, "attention": list(model.attention)}
    return [f"{key} = {value}" for key, value in {**values, "embedding": model.embedding}.items()]


def _inline(model: Architecture) -> str:
    return f"network = {{ {', '.join(_keys(model))} }}"


def _expected(text: str, model: Architecture) -> dict[str, Any]:
    values = tomllib.loads(text)
    values["slim"].pop("keep", None)
    values["slim"]["network"] = model.model_dump(mode="json")
    return values
