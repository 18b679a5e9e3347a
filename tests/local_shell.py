"""A device behind a shell, without a connection that could be in the way."""

import sys

from edgegen.profilers.devices.shell import ShellDevice


class Shell(ShellDevice):
    """A shell of this machine as the device's: what ssh adds is not in the way, and a word of it can be spoilt."""

    name, python = "shell", sys.executable

    def __init__(self, *, spoil: tuple[str, str] = ("", "")) -> None:
        super().__init__()
        self.spoil = spoil

    def shell(self, script: str) -> list[str]:
        return ["sh", "-c", script.replace(*self.spoil) if self.spoil[0] else script]

    def folder_script(self) -> str:
        return "mktemp -d /tmp/edgegen.XXXXXX"

    def explain(self, stderr: str) -> str:
        return f"lost: {stderr}"
