"""`edgegen devices`: where files can be measured from here, and what these machines are."""

import json
from typing import Annotated, Any

import typer

from edgegen.cli.run import JsonOption
from edgegen.errors import DeviceError

TEXT = """Show what a device is: its chip, its system, how busy it is, and what runs there.

Without a device: this machine, and how others are named.

Example: edgegen devices

  edgegen devices ssh:pi@raspberrypi"""


def register(app: typer.Typer) -> None:
    app.command("devices", help=TEXT)(devices)


def devices(
    names: Annotated[list[str] | None, typer.Argument(metavar="DEVICE...", help="host, ssh:USER@HOST.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Asks only; leaves nothing there. A device that cannot be reached is told with the others, and ends in exit 6."""
    from edgegen.profiling import connect, runners_of

    rows: list[dict[str, Any]] = []
    for name in names or ["host"]:
        device = connect(name)
        try:
            rows.append({"device": name, **device.probe(), "runs": runners_of(device), "error": None})
        except DeviceError as e:
            rows.append({"device": name, "error": str(e)})
        finally:
            device.close()
    if as_json:
        print(json.dumps({"devices": rows}, indent=2))
    else:
        for row in rows:
            print("\n".join(_lines(row)))
        if not names:
            print("others by name: edgegen devices ssh:USER@HOST")
    lost = [f"{row['device']}: {row['error']}" for row in rows if row["error"]]
    if lost:
        raise DeviceError("\n  ".join(lost))


def _lines(row: dict[str, Any]) -> list[str]:
    if row["error"]:
        return [f"{row['device']}: not reached"]
    memory = "unknown" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**30:.0f} GiB"
    load = "unknown" if row["load_average"] is None else f"{row['load_average'][0]:.2f}"
    virtual = ", a virtual machine" if row["virtual"] else ""
    chip = row["cpu"] or row["arch"] or "unknown"
    lines = [
        f"{row['device']}: {chip}, {row['threads'] or '?'} threads, {memory}{virtual}",
        f"  {row['os'] or 'unknown system'}, {row['arch'] or 'unknown processor'}, load {load}",
    ]
    return lines + [f"  {form}: {what}" for form, what in row["runs"].items()]
