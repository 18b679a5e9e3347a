"""`edgegen profile`: latency, memory and operations of exported files on a device; or a recipe's stage `profile`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgegen.cli.operations import operations_table
from edgegen.cli.run import DryOption, ForceOption, JsonOption, RunsOption, run_if_recipe
from edgegen.cli.terminal import show
from edgegen.errors import DataError, DeviceError, ParityError, UsageError
from edgegen.support.numbers import whole

if TYPE_CHECKING:
    from edgegen.profilers.schema import MeasuredFile, Profile

TEXT = """Measure exported files on a device: first whether they are right there, then latency and memory.

Several files run in turn, so that they can be compared. Of a recipe: the files that it made, on this machine.

Example: edgegen profile phone/my-unet_onnx_fp32.onnx phone/my-unet_executorch_w8a8.pte

  edgegen profile net.pte --profile full --threads 1,2 --per-op -o net.json

  edgegen profile net.onnx net.pte --device ssh:pi@raspberrypi

  edgegen profile net.onnx --device browser --threads 1,2

  edgegen profile digits"""
MOST_THREADS = 1024
COLUMNS = ("file", "p50 ms (95 %)", "p90", "first", "load", "memory MB", "right", "run by", "verdict")


def register(app: typer.Typer) -> None:
    app.command("profile", help=TEXT)(profile)


def profile(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Exported files, .onnx and .pte; or a recipe.")],
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Where: host (default), ssh:USER@HOST, adb[:SERIAL], arm64, browser, macos[:UNITS].",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--profile", metavar="quick|full", help="quick: 3 s a file. full: 10 to 60 s, three cold starts."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="LIST", help="Such as 1,2,4: each file with each; default 1.")
    ] = None,
    per_op: Annotated[bool, typer.Option("--per-op", help="Also where the time goes, in a traced pass.")] = False,
    for_minutes: Annotated[
        bool, typer.Option("--sustained", help="Also how fast each file still is after five minutes without a pause.")
    ] = False,
    provider: Annotated[
        str | None,
        typer.Option("--provider", metavar="NAME", help="ONNX Runtime's: cpu (default), xnnpack, nnapi, qnn."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.json", help="Keep all samples, for edgegen compare.")
    ] = None,
    runs: RunsOption = Path("runs"),
    force: ForceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """A recipe goes through its stages; files are measured directly."""
    flags = {"--device": device, "--profile": kind, "--threads": threads, "-o": output, "--per-op": per_op}
    flags |= {"--sustained": for_minutes, "--provider": provider, **dict.fromkeys(files[1:], True)}
    options: dict[str, Any] = {"runs": runs, "force": force, "dry_run": dry_run, "as_json": as_json}
    if run_if_recipe(files[0], "profile", flags, why="its [profile] table says how", **options):
        return
    if force or dry_run:
        raise UsageError("--force and --dry-run are for recipes")
    profile_name, counts = check_options(kind, threads, output)
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.exists():
            raise DataError(f"no file {path}")
    from edgegen.profilers.files.profile import connect, profile_files
    from edgegen.support.progress import progress

    result = profile_files(
        paths,
        connect(device or "host"),
        profile=profile_name,
        threads=counts,
        per_op=per_op,
        for_minutes=for_minutes,
        provider=_provider(provider),
        progress=progress(),
    )
    write_and_print(result, output=output, as_json=as_json)


def check_options(kind: str | None, threads: str | None, output: Path | None) -> tuple[str, tuple[int, ...]]:
    """The profile and the numbers of threads that the options name. Raises UsageError before anything is measured."""
    from edgegen.profilers.timing.protocol import PROFILES

    profile_name = kind or "quick"
    if profile_name not in PROFILES:
        raise UsageError(f"--profile {profile_name}: there are {' and '.join(PROFILES)}")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"-o {output}: no folder {output.parent}")
    return profile_name, thread_counts(threads)


def write_and_print(profile: "Profile", *, output: Path | None, as_json: bool) -> None:
    """Writes and prints the measurements. Raises ParityError and DeviceError where a file failed."""
    from edgegen.support.storage import write_json

    if output is not None:
        write_json(output, profile.to_json())
    if as_json:
        print(json.dumps(profile.to_json(), indent=2))
    else:
        show(*_table(profile))
    _raise_failures(profile)


def _provider(text: str | None) -> str:
    from edgegen.profilers.runners.programs import CPU, PROVIDERS

    if text is not None and text not in PROVIDERS:
        raise UsageError(f"--provider {text}: there are {', '.join(PROVIDERS)}")
    return text or CPU


def thread_counts(text: str | None) -> tuple[int, ...]:
    counts = [whole(part, least=1, most=MOST_THREADS) for part in (text or "1").split(",")]
    if None in counts:
        raise UsageError(f"--threads {text}: give whole numbers from 1 to {MOST_THREADS}, such as 1,2,4")
    return tuple(dict.fromkeys(count for count in counts if count is not None))


def _table(profile: "Profile") -> list[str]:
    machine = profile.target
    chip = machine["cpu"] or machine["model"] or machine["arch"] or "unknown processor"
    lines = [f"{profile.device}: {chip}, {machine['threads'] or '?'} threads, {machine['os'] or 'unknown system'}"]
    lines += [f"{machine[name]}" for name in ("user_agent", "limits") if machine.get(name)]
    lines += ["", f"| {' | '.join(COLUMNS)} |", f"{'|---' * len(COLUMNS)}|"]
    for record in profile.results:
        lines.append(f"| {record.label} | {' | '.join(cells(record))} |")
    for record in profile.results:
        lines += [f"{record.label}: {reason}" for reason in record.verdict.reasons]
        if record.sustained:
            first, last = record.sustained.first_p50_ms, record.sustained.last_p50_ms
            lines.append(
                f"{record.label}: {record.sustained.seconds:.0f} s without a pause: p50 {first:.3g} ms at the start, "
                f"{last:.3g} ms at the end ({first / last:.0%} of the speed)"
            )
        if record.ops:
            lines += operations_table(record)
    return lines


def cells(record: "MeasuredFile") -> list[str]:
    """A row of the table, without the first of COLUMNS."""
    import statistics

    snr = record.numerics.snr_db
    passed = record.numerics.passed
    right = "-" if passed is None else "no" if not passed else "equal" if snr is None else f"{snr:.0f} dB"
    last_cells = [right, record.config.runtime or "-", record.verdict.status]
    if record.latency is None:
        return ["-"] * 5 + last_cells
    low, high = record.latency.p50_ci95_ms
    memory = "-" if record.peak_rss_bytes is None else f"{record.peak_rss_bytes / 1e6:.0f}"
    first, load = (statistics.median(getattr(cold, name) for cold in record.cold) for name in ("first_ms", "load_ms"))
    times = [f"{record.latency.p50_ms:.3g} ({low:.3g} to {high:.3g})", f"{record.latency.p90_ms:.3g}", f"{first:.3g}"]
    return [*times, f"{load:.3g}", memory, *last_cells]


def _raise_failures(profile: "Profile") -> None:
    failed = [record for record in profile.results if record.verdict.status == "failed"]
    if not failed:
        return
    text = "\n  ".join(f"{record.artifact.name}: {'; '.join(record.verdict.reasons)}" for record in failed)
    if any(record.numerics.passed is False for record in failed):
        raise ParityError(f"no latency for a wrong file:\n  {text}")
    raise DeviceError(f"not measured:\n  {text}")
