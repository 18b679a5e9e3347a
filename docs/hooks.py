"""What mkdocs does beside rendering: pages from files outside of docs/, and the recipe's tables from its models.

The front page is README.md; CONTRIBUTING.md, CHANGELOG.md and the benches of examples/ are pages, too. Their links are
those of the repository, so that they work there as well, and are turned into the site's here.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from recipe_reference import markdown as recipe_tables  # beside this file, where mkdocs looks while it loads hooks

ROOT = Path(__file__).parent.parent

# Files of the repository that are pages or pictures of the site, and their names there.
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/digits.png": "images/digits.png",
    "examples/digits.toml": "examples/digits.toml",
    **{f"examples/{path.name}": f"benches/{path.name}" for path in sorted((ROOT / "examples").glob("bench_*.md"))},
    **{f"examples/{path.name}": f"benches/{path.name}" for path in sorted((ROOT / "examples").glob("bench_*.json"))},
}
LINK = re.compile(r"(\]\()([^)\s#]+)")
RECIPE_TABLES = "<!-- the tables of the recipe -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside of docs/."""
    for source, page in OUTSIDE.items():
        path = ROOT / source
        content: Any = path.read_text(encoding="utf-8") if path.suffix == ".md" else path.read_bytes()
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns the repository's links into the site's, and fills in the recipe's tables."""
    place = page.file.src_uri
    source = next((source for source, name in OUTSIDE.items() if name == place), f"docs/{place}")

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if ":" in match[2] or not (target in OUTSIDE or target.startswith("docs/")):
            return match[0]
        name = OUTSIDE.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(name, posixpath.dirname(place) or ".")

    if RECIPE_TABLES in markdown:
        markdown = markdown.replace(RECIPE_TABLES, recipe_tables())
    return LINK.sub(link, markdown)
