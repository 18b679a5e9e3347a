"""Debian packages of any release and processor, by apt with a configuration of its own; none is installed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from edgegen.errors import DeviceError
from edgegen.profilers.runners.toolchain import called

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def require_tools(purpose: str) -> None:
    """Raises DeviceError on a machine without apt."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DeviceError(f"no {missing[0]} on this machine: {purpose} is made on Debian or Ubuntu")


def download(packages: Sequence[str], state: Path, *, suite: str, architectures: Sequence[str]) -> list[Path]:
    """The packages of a release with all they need, into the folder `state`; the first architecture is the default.

    Raises DeviceError where apt fails: no connection, an unknown package.
    """
    given = _configured(state, suite=suite, architectures=architectures)
    called("apt-get", *given, "install", "-y", "--download-only", "--no-install-recommends", *packages)
    return sorted((state / "archives").glob("*.deb"))


def download_alone(package: str, state: Path, *, suite: str, architecture: str = "amd64") -> Path:
    """One package of a release without what it needs, into the folder `state`. Raises DeviceError as `download`."""
    given = _configured(state, suite=suite, architectures=[architecture])
    called("env", "-C", state / "archives", "apt-get", *given, "download", package)
    (archive,) = (state / "archives").glob("*.deb")
    return archive


def download_source(package: str, state: Path, *, suite: str) -> Path:
    """The archive of a package's source, as its authors published it, into the folder `state`. Raises as `download`."""
    given = _configured(state, suite=suite, architectures=["amd64"], kind="deb-src")
    called("env", "-C", state / "archives", "apt-get", *given, "source", "--download-only", package)
    (archive,) = (state / "archives").glob("*.orig.tar.*[!c]")
    return archive


def _configured(state: Path, *, suite: str, architectures: Sequence[str], kind: str = "deb") -> list[str]:
    """apt's options for a release in the folder `state`, whose lists of packages are downloaded."""
    for name in ("lists/partial", "archives/partial", "etc/preferences.d", "etc/apt.conf.d"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    known = ",".join(architectures)
    source = f"{kind} [arch={known} signed-by={KEYS}] http://deb.debian.org/debian {suite} main\n"
    (state / "sources.list").write_text(source, encoding="utf-8")
    options = {
        "APT::Architecture": architectures[0],
        "APT::Architectures": known,
        "APT::Sandbox::User": "",
        "Dir::Etc": state / "etc",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
    }
    given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    called("apt-get", *given, "update")
    return given
