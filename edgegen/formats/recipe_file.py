"""Where recipes are: the user's files, and those that come with the package."""

from pathlib import Path

from edgegen.errors import RecipeError, unknown_name


def shipped() -> dict[str, Path]:
    """The recipes in the package: `edgegen run digits` finds them by name."""
    folder = Path(__file__).parents[1] / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises RecipeError that says what there is."""
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix == "" and len(path.parts) == 1:
        if name in shipped():
            return shipped()[name]
        raise RecipeError(unknown_name("recipe", name, shipped()) + " Or give the path of a .toml file.")
    near = ", ".join(sorted(p.name for p in path.parent.glob("*.toml"))) if path.parent.is_dir() else ""
    raise RecipeError(f"no recipe file '{name}'" + (f"; beside it there are: {near}" if near else "; check the path"))
