"""`edgegen devices`: the devices on which files can be measured, and what they are."""

import json
import shutil
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from edgegen.cli.run import JsonOption
from edgegen.cli.terminal import show
from edgegen.errors import DeviceError, UsageError

TEXT = """Show what a device is: its chip, its system, how busy it is, and what runs there.

Without a device: this machine and the phones that adb lists, and how others are named.

Example: edgegen devices

  edgegen devices ssh:pi@raspberrypi

  edgegen devices arm64 browser --fetch"""
NAMES = "host, ssh:USER@HOST, adb:SERIAL, arm64, browser, browser:webgpu, macos"


def register(app: typer.Typer) -> None:
    app.command("devices", help=TEXT)(devices)


def devices(
    names: Annotated[list[str] | None, typer.Argument(metavar="DEVICE...", help=f"{NAMES}.")] = None,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help="Download what measuring there needs (host: 90 kB, ARM boards and phones: 40 MB, arm64: 115 MB, "
            "browser: 140 MB).",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Leaves nothing on a device. One that cannot be reached is listed with the others, and the exit code is 6."""
    if fetch and not names:
        raise UsageError("--fetch needs a DEVICE: nothing is downloaded by default")
    from edgegen.profilers.files.profile import connect, runners_of

    rows: list[dict[str, Any]] = []
    for name in names or ["host", *_phones()]:
        with ExitStack() as stack:
            try:
                device = connect(name)
                stack.callback(device.close)
                if fetch:
                    device.fetch()
                rows.append({"device": name, **device.probe(), "runs": runners_of(device), "error": None})
            except DeviceError as e:
                rows.append({"device": name, "error": str(e)})
    if as_json:
        print(json.dumps({"devices": rows}, indent=2))
    else:
        for row in rows:
            show(*_lines(row))
        if not names:
            show(f"others by name: {NAMES}")
    unreachable = [f"{row['device']}: {row['error']}" for row in rows if row["error"]]
    if unreachable:
        raise DeviceError("\n  ".join(unreachable))


def _phones() -> list[str]:
    """The devices that adb lists, where adb is installed."""
    from edgegen.profilers.devices.adb import attached

    return [f"adb:{serial}" for serial in attached()] if shutil.which("adb") else []


def _lines(row: dict[str, Any]) -> list[str]:
    if row["error"]:
        return [f"{row['device']}: not reached"]
    memory = "unknown" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**30:.0f} GiB"
    load = "unknown" if row["load_average"] is None else f"{row['load_average'][0]:.2f}"
    virtual = ", a virtual machine" if row["virtual"] else ""
    chip = ", ".join(filter(None, [row["model"], row["cpu"] or row["arch"] or "unknown"]))
    state = [f"load {load}"]
    if row["battery_c"] is not None:
        state.append(f"battery {row['battery_c']:g} °C")
    if row["thermal_status"] is not None:
        state.append(f"thermal status {row['thermal_status']}")
    lines = [
        f"{row['device']}: {chip}, {row['threads'] or '?'} threads, {memory}{virtual}",
        f"  {row['os'] or 'unknown system'}, {row['arch'] or 'unknown processor'}, {', '.join(state)}",
    ]
    return lines + [f"  {suffix}: {runner}" for suffix, runner in row["runs"].items()]
