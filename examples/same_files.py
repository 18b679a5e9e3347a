"""Do two runs of a recipe give the same files? Compares SHA-256, without the words that name a version of the recipe.

    python examples/same_files.py BEFORE AFTER

BEFORE and AFTER are folders with a manifest.json, such as runs/digits/verify/latest/artifacts. In every file the
recipe's hash and the key of its student, which both stand in the metadata, are replaced by zeros first. Ends with 1
where a file differs.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def digest(path: Path, lineage: dict[str, Any]) -> str:
    """Of a file, or of all files of a package."""
    content = b"".join(one.read_bytes() for one in sorted([path, *path.rglob("*")]) if one.is_file())
    for key in ("recipe_sha256", "generator"):
        word = str(lineage[key]).encode()
        content = content.replace(word, b"0" * len(word))
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    folders = [Path(argument) for argument in sys.argv[1:3]]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    names = [{row["file"] for row in manifest["artifacts"]} for manifest in manifests]
    same = names[0] == names[1]
    for name in sorted(names[0] | names[1]):
        if not all(name in listed for listed in names):
            print(f"only on one side: {name}")
            continue
        before, after = (digest(f / name, m["lineage"]) for f, m in zip(folders, manifests, strict=True))
        same &= before == after
        print(f"{'same     ' if before == after else 'DIFFERENT'} {name} {before[:16]} {after[:16]}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
