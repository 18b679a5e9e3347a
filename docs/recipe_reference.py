"""The manual's list of every table and key of a recipe, made from the models of edgegen/recipe/."""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edgegen import registry
from edgegen.recipe import Recipe
from edgegen.support.tables import table_of

METHOD_RECORD = "objective"  # the field of a table that holds the keys of its method


@dataclass(frozen=True)
class Key:
    """A row: what a key may be, what it is where the recipe leaves it out, and what it means."""

    name: str
    values: str
    default: str
    description: str


def markdown() -> str:
    """All tables in the order of the recipe, then the keys of every training method."""
    parts = [*_lines(["### Keys outside of tables", ""], own_keys(Recipe))]
    for name, table in tables(Recipe).items():
        parts += ["", *_lines([f"### `[{name}]`", "", _summary(table), ""], own_keys(table))]
        parts += _where_left_out(name)
    methods = methods_with_keys()
    if methods:
        parts += ["", "### The keys of each method", ""]
        parts += ["They stand in the table whose `method` names the method, beside the table's own keys."]
    for name, record in methods.items():
        parts += ["", f"#### `method = {json.dumps(name)}`", "", _summary(record), "", f"Source: {record.paper}"]
        parts += _lines([""], own_keys(record)) if record.model_fields else ["", "It has no keys of its own."]
    return "\n".join(parts)


def tables(root: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel]]:
    """Every table by its name as TOML writes it, such as slim.network."""
    listed: dict[str, type[BaseModel]] = {}
    for name, field in root.model_fields.items():
        table = table_of(field.annotation)
        if table is not None:
            listed |= {prefix + name: table, **tables(table, f"{prefix}{name}.")}
    return listed


def own_keys(table: type[BaseModel]) -> list[Key]:
    """The keys of a table that are not tables, or need not be."""
    return [
        Key(name, _values(field.annotation, field.metadata), _default(field), _description(table, name))
        for name, field in table.model_fields.items()
        if name != METHOD_RECORD and (table_of(field.annotation) is None or str in _kinds(field.annotation))
    ]


def methods_with_keys() -> dict[str, Any]:
    """The training methods that edgegen brings, and the record of each one's keys."""
    if not any("method" in table.model_fields for table in tables(Recipe).values()):
        return {}
    return {name: registry.load("objective", name) for name in registry.BUILT_IN["objective"]}


def _lines(head: list[str], keys: list[Key]) -> list[str]:
    rows = [f"| `{key.name}` | {key.values} | {key.default} | {key.description} |" for key in keys]
    return [*head, "| key | value | default | meaning |", "|---|---|---|---|", *rows]


def _summary(table: type[BaseModel]) -> str:
    """The docstring's first paragraph; a docstring that a table inherits says nothing of it."""
    text = (table.__dict__.get("__doc__") or "").strip()
    return " ".join(text.partition("\n\n")[0].split())


def _description(table: type[BaseModel], name: str) -> str:
    """The key's description; one that a table gives another default keeps that of its base."""
    for kind in table.__mro__:
        fields: Mapping[str, FieldInfo] = getattr(kind, "model_fields", {})
        if name in fields and fields[name].description:
            return str(fields[name].description).replace("|", "\\|")
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined, "a key that is not required has a default"
    return "-" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _kinds(annotation: Any) -> list[Any]:
    """A type with all that it may be."""
    return [annotation, *(kind for part in typing.get_args(annotation) for kind in _kinds(part))]


def _values(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    """A type in words: "whole number, at least 1"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(arguments[0], [*_constraints(arguments[1:]), *metadata])
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_values(kind, metadata) for kind in arguments if kind is not type(None))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list: {_values(arguments[0])}"
        return f"[{', '.join(map(_values, arguments))}]"
    if table_of(annotation) is not None:
        return "table"
    switch = "`true`, `false`"
    known = {str: "text", int: "whole number", float: "number", bool: switch, dict[str, bool]: f"a table of {switch}"}
    words = known[annotation]
    limits = list(_limits(_constraints(metadata)))
    return ", ".join([words, *limits])


def _constraints(metadata: typing.Sequence[Any]) -> list[Any]:
    """What annotated-types says of a value; pydantic wraps it in a FieldInfo."""
    return [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _limits(constraints: list[Any]) -> Iterator[str]:
    forms = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}
    for constraint in constraints:
        for name, form in forms.items():
            limit = getattr(constraint, name, None)
            if limit is not None:
                yield form.format("2^63" if limit == 2**63 else f"{limit:g}")


def _where_left_out(name: str) -> list[str]:
    """What a recipe without the table means, where the defaults of its keys do not say it."""
    parent, _, last = name.rpartition(".")
    field = (tables(Recipe)[parent] if parent else Recipe).model_fields[last]
    if field.is_required():
        return []
    value = field.get_default(call_default_factory=True)
    if value is None:
        return [] if parent else ["", f"Without a table `[{name}]` the stage does not run."]
    if value == type(value)():
        return []
    keys = ", ".join(f"`{key} = {_toml(value)}`" for key, value in value if value is not None)
    return ["", f"Without a table `[{name}]` it is: {keys}."]
