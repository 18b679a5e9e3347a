"""The compilers that tests of the apps need, fetched into edgegen's cache: `python tests/app_parts.py [PART...]`.

Kotlin and TypeScript come from npm (125 MB), what builds a page, too (210 MB); what Kotlin's tests need on the JVM
comes from Debian (10 MB). Swift comes from Debian as a root folder of its own (600 MB to download, 2.5 GB), and only
where it is named. Where one cannot be had, its tests are skipped with the reason.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edgegen.apps.project import TEMPLATES, filled
from edgegen.errors import DeviceError, EdgegenError
from edgegen.profilers.devices.chromium import find_browser
from edgegen.profilers.runners import debian
from edgegen.profilers.runners.toolchain import cache, called

NPM = {"kotlin-compiler": "2.4.20", "typescript": "7.0.2"}
DEBIAN_SUITE = "trixie"
JVM_PACKAGES = ("libandroid-json-java", "junit5")  # Android's own org.json, and what runs the tests
# base-files has the links from /lib to /usr/lib; a C compiler links Swift's programs.
SWIFT_PACKAGES = ("swiftlang", "base-files", "gcc", "libc6-dev", "libstdc++-14-dev")
SWIFT_PLACE = "/work"  # in the root folder, where the folder of a call is seen
# Everything is mounted for one command alone: nothing is left to unmount.
SWIFT_CALL = """
mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --bind "$2" "$1/work" || exit 1
root=$1; shift 2
exec env -i HOME=/tmp LC_ALL=C.UTF-8 PATH=/usr/libexec/swift/bin:/usr/sbin:/usr/bin:/bin \\
  LD_LIBRARY_PATH=/usr/libexec/swift/lib/swift/linux chroot "$root" "$@"
"""


def home() -> Path:
    return cache() / "apps"


def npm_package(name: str) -> Path:
    return home() / "node_modules" / name


def swift_root() -> Path:
    return home() / "swift"


def fetch_npm(name: str) -> None:
    home().mkdir(parents=True, exist_ok=True)
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", "--prefix", home())
    called("npm", "install", *options, f"{name}@{NPM[name]}")


def jvm_jars() -> list[Path]:
    """The libraries of the tests in Kotlin."""
    return sorted({path.resolve() for path in (home() / "jvm").glob("usr/share/java/*.jar") if path.is_file()})


def fetch_jvm() -> None:
    """The libraries of the tests in Kotlin. Raises DeviceError."""
    _fetch_debian(home() / "jvm", JVM_PACKAGES, purpose="what runs the tests in Kotlin")


def fetch_swift() -> None:
    """Swift's compiler in a root of its own. Raises DeviceError."""
    _fetch_debian(swift_root(), SWIFT_PACKAGES, purpose="the folder of Swift", folders=(SWIFT_PLACE.strip("/"),))


def _fetch_debian(place: Path, names: Sequence[str], *, purpose: str, folders: Sequence[str] = ()) -> None:
    """Debian's packages unpacked in `place`, with further empty folders, if it is not there; nothing is installed.

    Raises DeviceError: not Debian, no connection.
    """
    if place.is_dir():
        return
    debian.require_tools(purpose)
    staging, packages = place.with_name(f"{place.name}.partial"), place.with_name(f"{place.name}.packages")
    for folder in (staging, packages):
        shutil.rmtree(folder, ignore_errors=True)
    staging.mkdir(parents=True)
    architecture = called("dpkg", "--print-architecture").strip()
    archives = debian.download(names, packages, suite=DEBIAN_SUITE, architectures=(architecture,))
    # base-files makes the links of a root, which others go through.
    for archive in sorted(archives, key=lambda path: not path.name.startswith("base-files_")):
        called("dpkg-deb", "-x", archive, staging)
    for name in folders:
        (staging / name).mkdir()
    shutil.rmtree(packages)
    staging.replace(place)


def web_modules() -> Path:
    """node_modules of a web project."""
    return home() / "web" / "node_modules"


def _web_files() -> dict[str, str]:
    """What npm reads of the template of web projects."""
    values = {"identifier": "app", "tokenizer": "huggingface"}  # with all packages that a page may have
    texts = {name: (TEMPLATES / "web" / name).read_text() for name in ("package.json", "package-lock.json")}
    return {name: filled(text, values) for name, text in texts.items()}


def fetch_web() -> None:
    if no_web() is None:
        return
    folder = home() / "web"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in _web_files().items():
        (folder / name).write_text(text)
    called("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)
    (folder / "complete").touch()


def no_web() -> str | None:
    """Why no web project can be built here."""
    files = {name: home() / "web" / name for name in _web_files()}
    texts = {name: path.read_text() for name, path in files.items() if path.is_file()}
    if no_node():
        return no_node()
    if (home() / "web" / "complete").is_file() and texts == _web_files():
        return None
    return "no Vite and onnxruntime-web: python tests/app_parts.py web"


def no_page() -> str | None:
    """Why no web project runs in a browser here."""
    return no_web() or no_playwright()


def no_node() -> str | None:
    return None if shutil.which("node") else "no node: apt install nodejs"


def no_npm_package(name: str) -> str | None:
    """Why a program of npm is not here in its version."""
    manifest = npm_package(name) / "package.json"
    if manifest.is_file() and f'"version": "{NPM[name]}"' in manifest.read_text():
        return None
    return f"no {name} {NPM[name]}: python tests/app_parts.py {name}"


def no_typescript() -> str | None:
    return no_node() or no_npm_package("typescript")


def no_playwright() -> str | None:
    """Why no test drives a browser here."""
    try:
        find_browser()
    except DeviceError as e:
        return str(e)
    return None if importlib.util.find_spec("playwright") else "no playwright: pip install playwright"


def no_chromium() -> str | None:
    """Why TypeScript does not run in a browser here."""
    return no_playwright() or no_npm_package("typescript")


def no_kotlin() -> str | None:
    return no_npm_package("kotlin-compiler") if shutil.which("java") else "no java: apt install default-jdk-headless"


def kotlin_compiler() -> list[str]:
    """The command line before its options. It ends before the JVM's optimizing compiler pays: half the CPU time."""
    jars = npm_package("kotlin-compiler") / "lib/*"
    jvm = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(jars)]
    return [*jvm, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]


def no_kotlin_tests() -> str | None:
    return no_kotlin() or (None if jvm_jars() else "no JUnit and org.json: python tests/app_parts.py jvm")


def no_swift() -> str | None:
    if not swift_root().is_dir():
        return "no Swift: `make test-swift` downloads 600 MB"
    alone = subprocess.run([*_alone(), "true"], capture_output=True, text=True, check=False)
    return f"no mounts of its own for Swift: {alone.stderr.strip()}" if alone.returncode else None


def swift(folder: Path, *command: str) -> list[str]:
    """The command line that runs a program of Swift's root folder, which sees `folder` as SWIFT_PLACE."""
    return [*_alone(), "sh", "-c", SWIFT_CALL, "sh", str(swift_root()), str(folder), *command]


def _alone() -> list[str]:
    return ["unshare", "--mount", "--pid", "--fork", *(["--map-root-user"] if os.getuid() else [])]


def main(names: list[str]) -> None:
    parts: Mapping[str, Callable[[], None]] = {
        **{name: partial(fetch_npm, name) for name in NPM},
        "jvm": fetch_jvm,
        "web": fetch_web,
        "swift": fetch_swift,
    }
    unknown = set(names) - set(parts)
    if unknown:
        raise SystemExit(f"no part {sorted(unknown)[0]}: there are {', '.join(parts)}")
    for name in names or (*NPM, "jvm", "web"):
        try:
            parts[name]()
            print(f"{name}: here")
        except EdgegenError as e:
            print(f"{name}: NOT here, its tests are skipped: {e}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
