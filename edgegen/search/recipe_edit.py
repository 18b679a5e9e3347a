"""A recipe's text with another student: the lines that say how small change, every other stays as the user wrote it."""

import hashlib
import re
import tomllib
from typing import Any

from edgegen.errors import RecipeError
from edgegen.recipe import Architecture

MARK = "# edgegen slim plan:"
SEAL = re.compile(rf"^(.*{re.escape(MARK)}.*) \[([0-9a-f]{{16}})\]$", flags=re.MULTILINE)
HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?")
SIZE = {  # by the table that a line stands in: what says how small there
    "": re.compile(r"\s*slim\.(?:keep|model)\s*="),
    "slim": re.compile(r"\s*(?:keep|model)\s*="),
}


def with_student(text: str, model: Architecture, *, note: str) -> str:
    """The text of a recipe in which `model` takes the place of slim.keep or slim.model; `note` is a comment beside it.

    The comment ends in a seal, by which `is_planned` knows the text again. Raises RecipeError where the size is written
    in a way that is not understood: what comes out is read back, and must differ in the student alone.
    """
    changed = _changed(text.splitlines(), model)
    made = None if changed is None else _sealed(*changed, note)
    if made is None or tomllib.loads(made) != _expected(text, model):
        raise RecipeError(
            "slim: the line that says how small cannot be found and replaced; write `keep = 0.3` on a line of its own "
            f"below [slim]. In its place would come: {_inline(model)}"
        )
    return made


def is_planned(text: str) -> bool:
    """Whether `with_student` made the text, and nobody has changed it since."""
    found = SEAL.search(text)
    return found is not None and _digest(text.replace(found[0], found[1], 1)) == found[2]


def _sealed(lines: list[str], number: int, note: str) -> str:
    lines[number] += f"  {MARK} {note}"
    lines[number] += f" [{_digest(_joined(lines))}]"
    return _joined(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _changed(lines: list[str], model: Architecture) -> tuple[list[str], int] | None:
    """The lines with the student, and the number of the line for the comment; None where no line says how small."""
    table = ""
    for number, line in enumerate(lines):
        before, after = lines[:number], lines[number + 1 :]
        header = HEADER.fullmatch(line)
        table = header[1].strip() if header else table
        if header and table == "slim.model":
            return [*before, "[slim.model]", *_keys(model), *_without_keys(after)], number
        if table in SIZE and SIZE[table].match(line):
            return [*before, ("slim." if table == "" else "") + _inline(model), *after], number
    return None


def _without_keys(lines: list[str]) -> list[str]:
    """What is left of a table that `lines` begin in: comments and blank lines; and all that comes after it."""
    end = next((number for number, line in enumerate(lines) if HEADER.fullmatch(line)), len(lines))
    return [line for line in lines[:end] if not line.strip() or line.lstrip().startswith("#")] + lines[end:]


def _keys(model: Architecture) -> list[str]:
    values = {"channels": list(model.channels), "blocks": model.blocks, "attention": list(model.attention)}
    return [f"{key} = {value}" for key, value in {**values, "embedding": model.embedding}.items()]


def _inline(model: Architecture) -> str:
    return f"model = {{ {', '.join(_keys(model))} }}"


def _expected(text: str, model: Architecture) -> dict[str, Any]:
    values = tomllib.loads(text)
    values["slim"].pop("keep", None)
    values["slim"]["model"] = model.model_dump(mode="json")
    return values
