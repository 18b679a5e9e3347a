"""A device: this machine, but every file is copied into a folder, as onto a board."""

import shutil
from pathlib import Path

from edgegen.profilers.devices.host import HostDevice


class Drawer(HostDevice):
    """`--device drawer`, or `--device drawer:LABEL`."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.name = f"drawer {label}".strip()

    def put(self, path: Path, name: str) -> str:
        place = self.place(name)
        shutil.copyfile(path, place)
        return place


def connect(place: str) -> Drawer:
    return Drawer(place)
