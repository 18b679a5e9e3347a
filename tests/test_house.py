"""The house rules that a program can check; each check is tried on a planted violation as well."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PYPROJECT["tool"]["setuptools"]["package-dir"]  # of each package; ours and optimum's
ROOT_FILES = ["__init__.py", "__main__.py", "errors.py", "noise.py", "registry.py", "types.py"]
CONTRACTS = PYPROJECT["tool"]["importlinter"]["contracts"]
LAYERS = [set(layer.split(" | ")) for layer in CONTRACTS[0]["layers"]]  # from top to bottom
MOST_LAYERS, MOST_FILE_LINES, MOST_FUNCTION_LINES = 15, 320, 60
REFERENCE = re.compile(r"(edgegen(?:\.\w+)+):(\w+)")  # "module:attribute"


def modules(root: Path) -> dict[str, Path]:
    """Every module by its name. The links edgegen/exporters and edgegen/quantize are not followed."""
    by_name = {}
    for package, folder in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            parts = (package, *path.relative_to(root / folder).with_suffix("").parts)
            by_name[".".join(parts).removesuffix(".__init__")] = path
    return by_name


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    """A small tree with the given contents."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def strays(root: Path) -> list[str]:
    """What stands at the root of edgegen/ and is neither one of the six modules, nor a package, nor the recipes."""
    entries = [path for path in (root / "edgegen").iterdir() if path.name != "__pycache__"]
    packages = {path.name for path in entries if (path / "__init__.py").is_file()}
    return sorted({path.name for path in entries} - packages - {*ROOT_FILES, "py.typed", "recipes"})


def test_the_root_of_the_package_holds_the_vocabulary_alone(tmp_path: Path) -> None:
    assert strays(ROOT) == []
    assert set(ROOT_FILES) <= {path.name for path in (ROOT / "edgegen").glob("*.py")}
    files = {
        "edgegen/errors.py": "",
        "edgegen/helpers.py": "",
        "edgegen/search/__init__.py": "",
        "edgegen/old/x.py": "",
    }
    assert strays(write_tree(tmp_path, files)) == ["helpers.py", "old"]


def test_there_are_few_layers() -> None:
    assert len(LAYERS) <= MOST_LAYERS


def test_the_contracts_hold_and_planted_imports_break_them(tmp_path: Path) -> None:
    """Of libraries that must not know each other, inside artifacts, and inside pipeline; also within a function."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for folder in ("edgegen", "exporters", "quantize"):
        subprocess.run(["cp", "-a", str(ROOT / folder), str(copy)], check=True)
    (copy / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    lint = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    clean = subprocess.run(lint, cwd=copy, capture_output=True, text=True, check=False)
    assert clean.returncode == 0, clean.stdout
    planted = {
        "quantize/schemes.py": "edgegen.exporters.onnx.backend",
        "edgegen/artifacts/target.py": "edgegen.artifacts.build",
        "edgegen/pipeline/graph.py": "edgegen.pipeline.stages.data",
    }
    for file, module in planted.items():
        with (copy / file).open("a") as source:
            source.write(f"\n\ndef planted() -> None:\n    import {module}\n")
    broken = subprocess.run(lint, cwd=copy, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    for file, module in planted.items():
        importer = file.removesuffix(".py").replace("/", ".")
        assert f"{'' if importer.startswith('edgegen') else 'edgegen.'}{importer} -> {module}" in broken.stdout


def imports(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules among `known` that a file imports: in functions and for annotations alone, too."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= (submodules & known.keys()) or {str(node.module)}
    return imported & known.keys()


def circles(root: Path) -> list[str]:
    """Import circles: after each the import that closes it is left out, and the search goes on."""
    known = modules(root)
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    listed = []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as e:
            circle = e.args[1][::-1]
            listed.append(" -> ".join(circle))
            graph[circle[0]].discard(circle[1])
            continue
        return sorted(listed)


def test_no_modules_import_each_other(tmp_path: Path) -> None:
    violations = circles(ROOT)
    assert not violations, "\n".join(violations)
    files = {
        "edgegen/a.py": "import edgegen.b\n",
        "edgegen/b.py": "def late():\n    from edgegen import c\n",
        "edgegen/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from edgegen.a import x\n",
        "edgegen/d.py": "from edgegen.a import x\n",
    }
    (circle,) = circles(write_tree(tmp_path, files))
    assert set(circle.split(" -> ")) == {"edgegen.a", "edgegen.b", "edgegen.c"}


def oversized(root: Path) -> Iterator[str]:
    """Files and functions that are too long; a function from its `def` to its last line."""
    for path in modules(root).values():
        place, text = path.relative_to(root), path.read_text()
        if (lines := len(text.splitlines())) > MOST_FILE_LINES:
            yield f"{place}: {lines} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    yield f"{place}:{node.lineno}: {node.name} has {lines} lines"


def test_no_file_and_no_function_is_too_long(tmp_path: Path) -> None:
    violations = list(oversized(ROOT))
    assert not violations, "\n".join(violations)
    files = {
        "edgegen/long.py": "x = 1\n" * (MOST_FILE_LINES + 1),
        "exporters/long.py": "class A:\n    def f(self):\n" + "        x = 1\n" * MOST_FUNCTION_LINES,
        "quantize/short.py": "def f():\n" + "    x = 1\n" * (MOST_FUNCTION_LINES - 1),
    }
    assert list(oversized(write_tree(tmp_path, files))) == [
        "edgegen/long.py: 321 lines",
        "exporters/long.py:2: f has 61 lines",
    ]


def references(root: Path) -> Iterator[tuple[str, str, str]]:
    """(module, module and attribute named by a string in it)."""
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                reference = REFERENCE.fullmatch(node.value)
                if reference:
                    yield name, reference[1], reference[2]


def attributes(path: Path) -> set[str]:
    """The names that a module defines or imports at its top level."""
    defined: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            defined |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return defined


def layer(module: str) -> int:
    """Counted from the top. The package itself, with the public names, stands above all layers."""
    first = module.split(".")[1] if "." in module else ""
    return next((number for number, names in enumerate(LAYERS) if first in names), -1)


def bad_references(root: Path) -> Iterator[str]:
    """Strings "module:attribute" that name nothing, or something in a higher layer; the registry may do the latter.

    The same layer is allowed: the cells of the exporters name the functions of quantize.
    """
    known = modules(root)
    for module, target, attribute in references(root):
        if target not in known or attribute not in attributes(known[target]):
            yield f"{module}: there is no {target}:{attribute}"
        if module != "edgegen.registry" and layer(target) < layer(module):
            yield f"{module}: {target}:{attribute} is in a higher layer"


def test_strings_that_name_an_attribute_resolve_and_point_downwards(tmp_path: Path) -> None:
    violations = list(bad_references(ROOT))
    assert not violations, "\n".join(violations)
    assert len(list(references(ROOT))) > 40
    files = {
        "edgegen/registry.py": 'A = "edgegen.search.plan:run"\n',
        "edgegen/search/plan.py": "def run():\n    return 'edgegen.search.plan:stop', 'edgegen.support.none:x'\n",
        "edgegen/support/call.py": 'UP: str = "edgegen.search.plan:run"\nLOW = "edgegen.types:Image"\n',
        "edgegen/types.py": "class Image: ...\n",
        "exporters/cells.py": 'SAME, UP = "edgegen.quantize.coreml:quantize_w8", "edgegen.artifacts.build:lower"\n',
        "quantize/coreml.py": "def quantize_w8(): ...\n",
        "edgegen/artifacts/build.py": "def lower(): ...\n",
    }
    assert list(bad_references(write_tree(tmp_path, files))) == [
        "edgegen.search.plan: there is no edgegen.search.plan:stop",
        "edgegen.search.plan: there is no edgegen.support.none:x",
        "edgegen.support.call: edgegen.search.plan:run is in a higher layer",
        "edgegen.exporters.cells: edgegen.artifacts.build:lower is in a higher layer",
    ]
