"""A board or server by the system's ssh: the user's own configuration, keys and jump hosts; host keys are checked."""

import shlex
import shutil
from collections.abc import Sequence

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices.shell import SHORT_S, ShellDevice
from edgegen.support.processes import finish
from edgegen.support.scratch import new_folder

ALIVE_S = 15  # without a sign of the other end, until a connection counts as lost


class SshDevice(ShellDevice):
    """`host` as ssh takes it: a name of ~/.ssh/config, or USER@HOST. One connection serves all commands.

    `options` come before it; `python` is the device's Python with onnxruntime and numpy.
    """

    def __init__(self, host: str, *, options: Sequence[str] = (), python: str = "python3") -> None:
        super().__init__()
        if not host or host.startswith("-"):
            raise UsageError(f"--device ssh:{host}: give ssh:USER@HOST, or a name that ~/.ssh/config knows")
        if shutil.which("ssh") is None:
            raise DeviceError("no ssh on this machine: apt install openssh-client")
        self.name, self.host, self.options, self.python = "ssh", host, tuple(options), python
        self.folder_here = new_folder()
        self.control = self.folder_here / "c"  # short: a socket's path has some 100 characters

    def shell(self, script: str) -> list[str]:
        settings = {
            "BatchMode": "yes",  # nobody is there to type a password
            "ControlMaster": "auto",
            "ControlPath": str(self.control),
            "ControlPersist": "60",
            "ServerAliveInterval": str(ALIVE_S // 3),
            "ServerAliveCountMax": "3",
        }
        given = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *self.options, *given, "-T", "--", self.host, f"sh -c {shlex.quote(script)}"]

    def folder_script(self) -> str:
        return 'mktemp -d "${TMPDIR:-/tmp}/edgegen.XXXXXX"'

    def explain(self, stderr: str) -> str:
        reason = (stderr.strip().splitlines() or ["the connection was lost"])[-1]
        return f"{reason}; try `ssh {self.host} true`, which must work without a password and with a known host key"

    def close(self) -> None:
        try:
            super().close()
        finally:
            command = ["ssh", *self.options, "-o", f"ControlPath={self.control}", "-O", "exit", "--", self.host]
            finish(command, name=self.name, timeout_s=SHORT_S)
            shutil.rmtree(self.folder_here, ignore_errors=True)


def connect(host: str) -> SshDevice:
    """What `--device ssh:HOST` names."""
    return SshDevice(host)
