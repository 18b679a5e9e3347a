"""What tests of devices need beside pip's packages, and how it is fetched: `python tests/device_parts.py`.

Each part is fetched where it can be, into edgegen's cache; what cannot is said with its reason, and its tests skip with
that reason. With the argument `counting` also an emulator that counts instructions, which takes minutes to build.
Debian's adbd is the real daemon of an Android phone. It asks nobody for a key and listens everywhere: it runs in a
network of its own, and the client reaches its server through a socket in a folder.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from edgegen.errors import DeviceError, EdgegenError
from edgegen.profilers.devices.browser import LIBRARIES, HeadlessDevice, runtime
from edgegen.profilers.devices.chromium import find_browser
from edgegen.profilers.devices.emulator import EmulatedDevice
from edgegen.profilers.devices.host import HostDevice
from edgegen.profilers.runners import debian
from edgegen.profilers.runners.toolchain import cache, called

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
SUITE = "bookworm-backports"
PACKAGES = ("adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog")
NEEDED = ("libprotobuf32", "bookworm")  # by adbd, and of which release
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SERIAL = "127.0.0.1:5555"  # the server also lists the same daemon as emulator-5554
SCRIPT = """
ip link set lo up || exit 1
"$1"/usr/lib/android-sdk/platform-tools/adbd >"$2"/adbd.log 2>&1 &
adbd=$!
echo $adbd >"$2"/pid
adb start-server >"$2"/server.log 2>&1
until adb connect 127.0.0.1:5555 2>&1 | grep -q connected; do
  sleep 0.1
  kill -0 $adbd || { adb kill-server; exit 1; }
done
echo ready
cat >/dev/null
adb kill-server
kill $adbd
"""


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[None]:
    """A server that only its own key can log in to; `ssh -F FOLDER/client board` reaches it."""
    assert SSHD is not None, "asked before"
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = _free_port()
    server = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PasswordAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": folder / "pid",
    }
    (folder / "server").write_text("".join(f"{name} {value}\n" for name, value in server.items()))
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    client = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": psutil.Process().username(),
        "IdentityFile": folder / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known",
    }
    (folder / "client").write_text("Host board\n" + "".join(f"  {name} {value}\n" for name, value in client.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-f", str(folder / "server")], stderr=subprocess.DEVNULL)
    for _ in range(100):
        if (folder / "pid").exists():
            break
        time.sleep(0.05)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def adbd_folder() -> Path:
    return cache() / "adbd"


def fetch_adbd() -> None:
    """Debian's adbd and its libraries, unpacked; nothing is installed."""
    target = adbd_folder()
    if (target / "complete").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    state = target.with_name("adbd.partial")
    shutil.rmtree(state, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "root"):
        (state / name).mkdir(parents=True)
    (state / "sources.list").write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian {SUITE} main\n")
    options = {
        "APT::Sandbox::User": "",
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
    }
    given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    called("apt-get", *given, "update")
    with contextlib.chdir(state / "archives"):
        called("apt-get", *given, "download", *(f"{package}/{SUITE}" for package in PACKAGES))
    needed = debian.download_alone(NEEDED[0], state / "needed", suite=NEEDED[1])
    for archive in (*(state / "archives").glob("*.deb"), needed):
        called("dpkg-deb", "-x", archive, state / "root")
    (state / "root/complete").touch()
    (state / "root").replace(target)
    shutil.rmtree(state)


def no_adbd() -> str | None:
    """Why there is no adbd to test against."""
    if shutil.which("adb") is None:
        return "no adb: apt install adb"
    if not (adbd_folder() / "complete").exists():
        return "no adbd: python tests/device_parts.py"
    alone = subprocess.run([*_alone(), "true"], capture_output=True, text=True)
    return f"no network of its own for adbd: {alone.stderr.strip()}" if alone.returncode else None


def no_browser() -> str | None:
    """Why there is no browser to test with, or nothing for it to run."""
    try:
        find_browser()
        for backend in LIBRARIES:
            runtime(backend)
    except DeviceError as e:
        return str(e)
    return None


def _alone() -> list[str]:
    return ["unshare", "--net", *(["--map-root-user"] if os.getuid() else [])]


@contextlib.contextmanager
def adbd(folder: Path) -> Iterator[Mapping[str, str]]:
    """A running adbd; the environment by which an adb client reaches it. Its files go to `folder`."""
    environment = {"ADB_SERVER_SOCKET": f"localfilesystem:{folder}/s", "HOME": str(folder)}
    root = adbd_folder()
    libraries = {"LD_LIBRARY_PATH": ":".join(f"{root}/usr/lib/x86_64-linux-gnu{part}" for part in ("/android", ""))}
    process = subprocess.Popen(
        [*_alone(), "sh", "-c", SCRIPT, "sh", str(root), str(folder)],
        env={**os.environ, **environment, **libraries},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        logs = [folder / "adbd.log", folder / "server.log"]
        assert process.stdout.readline() == "ready\n", [log.read_text()[-500:] for log in logs if log.exists()]
        yield environment
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def xnnpack_folder() -> Path:
    return cache() / "onnxruntime-xnnpack-arm64"


def fetch_xnnpack() -> None:
    """Debian's ONNX Runtime for ARM64, which has XNNPACK; PyPI's has not. For EDGEGEN_ONNXRUNTIME."""
    target = xnnpack_folder()
    if target.is_dir():
        return
    state = target.with_name(f"{target.name}.partial")
    shutil.rmtree(state, ignore_errors=True)
    for archive in debian.download(["libonnxruntime1.21"], state, suite="trixie", architectures=("arm64",)):
        if not archive.name.startswith(("gcc", "libc6", "libgcc", "libstdc++")):  # the emulated Linux has them
            called("dpkg-deb", "-x", archive, state / "root")
    (state / "made").mkdir()
    (state / "root/usr/lib/aarch64-linux-gnu").replace(state / "made/lib")
    (state / "made").replace(target)
    shutil.rmtree(state)


def fetch_counting() -> None:
    """A qemu that counts instructions, built from Debian's source: 5 minutes of a processor."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from counting_qemu import CountingUserland

    CountingUserland().fetch()


def main(further: Sequence[str]) -> None:
    parts: Mapping[str, Callable[[], None]] = {
        "runners in C++": HostDevice().fetch,
        "an ONNX Runtime with XNNPACK": fetch_xnnpack,
        "adbd, an Android phone's daemon": fetch_adbd,
        "an emulated ARM64 Linux": lambda: EmulatedDevice().fetch(),
        "a browser": lambda: print(find_browser()),
        "onnxruntime-web": lambda: HeadlessDevice("wasm").fetch(),
    }
    if "counting" in further:
        parts = {**parts, "an emulator that counts instructions": fetch_counting}
    for name, fetch in parts.items():
        try:
            fetch()
            print(f"{name}: here")
        except EdgegenError as e:
            print(f"{name}: NOT here, its tests are skipped: {e}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
