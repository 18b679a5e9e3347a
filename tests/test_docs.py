"""README, manual and CONTRIBUTING: links, paths, commands, TOML and Python are right; public names are described."""

import importlib.util
import inspect
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from helpers import TINY

import edgegen
from edgegen import recipe
from edgegen.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BENCHES = sorted((ROOT / "examples").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# A path in code text starts with a folder of the repository; NAME and * stand for anything.
FOLDERS = ("edgegen", "exporters", "quantize", "tests", "examples", "docs", "optimum_plugin")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
SCRIPT = re.compile(r"(?:python|edgegen run) ((?:tests|examples)/[\w./-]+)")


def prose(text: str) -> str:
    """Without code blocks."""
    return FENCE.sub("", text)


def blocks(text: str, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(text) if name == language]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(prose(page.read_text())):
        if ":" in target:
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        if not place.exists():
            yield f"{page.name}: no file {target}"
        elif anchor and anchor not in anchors(place):
            yield f"{page.name}: no heading {target}"


def missing_paths(page: Path) -> Iterator[str]:
    text = page.read_text()
    for path in [*PATH.findall(text), *SCRIPT.findall(text)]:
        if "NAME" not in path and not (ROOT / path).exists():
            yield f"{page.name}: no {path}"


@pytest.mark.parametrize("page", [*PAGES, *BENCHES], ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []
    assert list(missing_paths(page)) == []


def test_wrong_links_and_paths_are_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](#a-title) [b](#no) [c](no.md) `edgegen/no.py` `python tests/no.py` [d](https://x)\n"
    )
    assert list(broken_links(page)) == ["page.md: no heading #no", "page.md: no file no.md"]
    assert list(missing_paths(page)) == ["page.md: no edgegen/no.py", "page.md: no tests/no.py"]


def commands(text: str) -> list[str]:
    """Lines of code, indented or fenced, that begin with `edgegen`."""
    fenced = "\n".join(code for _, code in FENCE.findall(text))
    indented = re.findall(r"^ {4,}(edgegen .+)$", prose(text), re.MULTILINE)
    return [*indented, *re.findall(r"^ *(edgegen .+)$", fenced, re.MULTILINE)]


def mentions(text: str) -> list[str]:
    """A command in a sentence, with its options but not all of their values: `edgegen plan --budget`."""
    return re.findall(r"`edgegen ([a-z][^`]*)`", prose(text))


def command_of(name: str) -> Any:
    """A command's parser. Raises LookupError where there is none."""
    group: Any = typer.main.get_command(app)
    if name not in group.commands:
        raise LookupError(f"no command {name}")
    return group.commands[name]


def fault(line: str) -> str:
    """Why the command line does not take it, "" where it does. Nothing is run."""
    name, *arguments = shlex.split(line, comments=True)[1:]
    try:
        command_of(name).make_context(name, arguments)
    except Exception as e:  # noqa: BLE001  (typer brings a click of its own, whose errors are of other classes)
        return e.format_message() if hasattr(e, "format_message") else str(e)
    return ""


def unknown_options(words: str) -> list[str]:
    name, *arguments = words.split()
    known = {option for parameter in command_of(name).params for option in parameter.opts + parameter.secondary_opts}
    return [word for word in arguments if word.startswith("-") and word not in known]


COMMANDS = sorted({(page.name, line) for page in [*PAGES, *BENCHES] for line in commands(page.read_text())})


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value.partition("  ")[0])
def test_commands_parse(page: str, line: str) -> None:
    assert fault(line) == ""


@pytest.mark.parametrize("page", [*PAGES, *BENCHES], ids=lambda page: page.name)
def test_commands_in_sentences_have_these_options(page: Path) -> None:
    assert {words: unknown for words in mentions(page.read_text()) if (unknown := unknown_options(words))} == {}


def test_commands_are_collected_and_wrong_ones_are_reported() -> None:
    assert len(COMMANDS) > 40
    assert commands("    edgegen run x\nand `edgegen run y`\n```\nedgegen run z\n```\nedgegen is\n") == [
        "edgegen run x",
        "edgegen run z",
    ]
    assert mentions("and `edgegen run --to` or `edgegen`") == ["run --to"]
    assert fault("edgegen rum digits") == "no command rum"
    assert "--two" in fault("edgegen run digits --two distill")
    assert "RECIPE" in fault("edgegen run")
    assert unknown_options("run --to --two") == ["--two"]


TOML = [(page.name, code) for page in PAGES for code in blocks(page.read_text(), "toml")]


@pytest.mark.parametrize(("page", "code"), TOML, ids=[f"{page}-{code.split()[0]}" for page, code in TOML])
def test_toml_is_read(page: str, code: str) -> None:
    values: dict[str, Any] = tomllib.loads(code)
    if isinstance(values.get("inputs"), dict):
        assert recipe.Files.model_validate_json(json.dumps(values), strict=True)
        return
    if "inputs" in values:
        from edgegen.models.sources.signature_file import SignatureFile

        assert SignatureFile.model_validate_json(json.dumps(values), strict=True)
        return
    required = {"name": "example", "slim": {"keep": 0.3}}
    assert recipe.parse({**required, **values}, where=page)


def python_blocks() -> dict[str, list[str]]:
    pages = {page.name: blocks(page.read_text(), "python") for page in PAGES}
    return {name: codes for name, codes in pages.items() if codes}


@pytest.mark.long
@pytest.mark.parametrize("page", python_blocks())
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks in turn. The recipe `digits` is a file of that name here, which trains for seconds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text(TINY)
    names: dict[str, Any] = {}
    for code in python_blocks()[page]:
        exec(compile(code, page, "exec"), names)  # our own text


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table with this first line."""
    lines = text.partition(head)[2].splitlines()[2:]
    table = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_map_has_every_folder() -> None:
    listed = [row[0].strip("`/") for row in rows((ROOT / "CONTRIBUTING.md").read_text(), "| folder | what is there |")]
    packages = {
        str(init.parent.relative_to(ROOT))
        for top in ("edgegen", "exporters", "quantize")
        for init in (ROOT / top).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in init.parents)
    }
    assert sorted(set(listed)) == sorted(listed)
    assert packages - {"edgegen"} <= set(listed)
    assert [folder for folder in listed if not (ROOT / folder).is_dir()] == []


def test_ten_things_are_where_the_map_says() -> None:
    things = rows((ROOT / "CONTRIBUTING.md").read_text(), "| where is | file | name there |")
    assert len(things) == 10
    for thing, file, name in things:
        assert name.strip("`") in (ROOT / file.strip("`")).read_text(), thing


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_the_manual_lists_every_key_of_the_recipe_with_its_default_and_meaning() -> None:
    reference = load(ROOT / "docs" / "recipe_reference.py")
    text = reference.markdown()
    tables = reference.tables(recipe.Recipe)
    assert {"data", "teacher", "teacher.model", "slim.network", "recover", "report"} <= set(tables)
    for name, table in tables.items():
        assert f"### `[{name}]`\n\n{reference._summary(table)}\n" in text
        assert reference._summary(table), f"[{name}] has no docstring"
    records = {**tables, "": recipe.Recipe, **reference.methods_with_keys()}
    unexplained = [
        f"{name}.{key.name}"
        for name, record in records.items()
        for key in reference.own_keys(record)
        if not key.description
    ]
    assert unexplained == []
    assert "| `learning_rate` | number, above 0 | `0.001` | largest learning rate of Adam |" in text
    assert '| `solver` | `"euler"`, `"heun"`, `"dpm_solver_pp"`, `"rk45"` | `"heun"` |' in text
    assert "<!-- the tables of the recipe -->" in (ROOT / "docs" / "recipe.md").read_text()


def test_the_api_page_lists_the_public_names() -> None:
    listed = re.findall(r"^::: edgegen\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(edgegen.__all__)


@pytest.mark.parametrize("name", edgegen.__all__)
def test_public_names_describe_their_parts(name: str) -> None:
    """Functions every argument and the result, classes every field."""
    thing: Any = getattr(edgegen, name)
    text = inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        fields = getattr(thing, "__dataclass_fields__", None) or getattr(thing, "model_fields", None) or ()
        section = text.partition("Attributes:\n")[2]
        assert section
        assert [field for field in fields if not re.search(rf"^    {field}: ", section, re.MULTILINE)] == []
        return
    assert "\nReturns:\n" in text
    section = text.partition("Args:\n")[2].partition("\nReturns:\n")[0]
    parameters = list(inspect.signature(thing).parameters)
    assert re.findall(r"^    (\w+): ", section, re.MULTILINE) == parameters
