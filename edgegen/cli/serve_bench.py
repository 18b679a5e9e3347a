"""`edgegen serve-bench`: a page that measures the files of a folder in the browser that opens it, a phone's too."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgegen.cli.profile import COLUMNS, cells, check_options, write_and_print
from edgegen.cli.run import JsonOption
from edgegen.errors import DataError, EdgegenError, UsageError

if TYPE_CHECKING:
    from edgegen.profilers.devices.page_server import PageServer
    from edgegen.profilers.schema import Profile

TEXT = """Serve a page that measures the .onnx files of a folder in the browser that opens it, such as a phone's.

An Android phone on a cable: adb reverse tcp:8000 tcp:8000, and open http://localhost:8000/#... on it.

Example: edgegen serve-bench phone/ --port 8000 --threads 1,2 -o phone.json"""
SHOWN = ("file", "p50 ms (95 %)", "p90", "right", "verdict")  # of COLUMNS: what a phone's screen has room for


def register(app: typer.Typer) -> None:
    app.command("serve-bench", help=TEXT)(serve_bench)


def serve_bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with .onnx files.")],
    lan: Annotated[
        bool, typer.Option("--lan", help="Also to other machines of the network; their browsers then allow one thread.")
    ] = False,
    port: Annotated[int, typer.Option("--port", metavar="N", help="Default: one that is free.")] = 0,
    backend: Annotated[str, typer.Option("--backend", metavar="wasm|webgpu", help="Processor or GPU.")] = "wasm",
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="LIST", help="Such as 1,2: each file with each; default 1.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--profile", metavar="quick|full", help="quick: 3 s a file. full: 10 to 60 s, three cold starts."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.json", help="Keep all samples, for edgegen compare.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serves one page, to the first browser that opens the address."""
    profile_name, counts = check_options(kind, threads, output)
    files = sorted(folder.glob("*.onnx"))
    if not files:
        raise DataError(f"no .onnx file in {folder}")
    from edgegen.profilers.devices.browser import LIBRARIES, BrowserDevice, PageProgress, runtime
    from edgegen.profilers.devices.page_server import PageServer
    from edgegen.profilers.files.profile import profile_files
    from edgegen.support.progress import progress

    if backend not in LIBRARIES:
        raise UsageError(f"--backend {backend}: there are {' and '.join(LIBRARIES)}")
    with PageServer(runtime(backend), lan=lan, port=port) as server:
        try:
            server.page.send("show", notes=["Measured in turn: " + ", ".join(path.name for path in files)])
            page_progress = PageProgress(server.page, progress())
            # The address is printed when the files have been read: nobody waits at the page for files that are refused.
            device = BrowserDevice(backend, server, invite=lambda: _invite(server))
            profile = profile_files(files, device, profile=profile_name, threads=counts, progress=page_progress)
        except BaseException as e:
            reason = str(e) if isinstance(e, EdgegenError) else "edgegen was stopped"
            server.page.close(f"Stopped: {reason}")
            raise
        _show(profile, server)
        server.page.close("Done. This page can be closed.")
    write_and_print(profile, output=output, as_json=as_json)


def _invite(server: "PageServer") -> None:
    """Prints the address on stderr: stdout is for data."""
    lines = [f"open this address once, in the browser that is to be measured:\n\n  {server.address}\n"]
    if server.lan:
        lines.append(
            "warning: all machines of this network reach this port, and browsers call the address insecure: "
            "one thread, no WebGPU.\nAn Android phone on a cable has neither limit: without --lan, adb reverse "
            f"tcp:{server.port} tcp:{server.port}, and open http://localhost:{server.port}/#..."
        )
    print("\n".join(lines), file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        import segno

        segno.make(server.address).terminal(out=sys.stderr, compact=True)


def _show(profile: "Profile", server: "PageServer") -> None:
    """The table, on the page."""
    rows = [dict(zip(COLUMNS, [record.label, *cells(record)], strict=True)) for record in profile.results]
    limits = [profile.target["limits"]] if profile.target["limits"] else []
    reasons = [f"{record.label}: {reason}" for record in profile.results for reason in record.verdict.reasons]
    server.page.send(
        "show",
        head=SHOWN,
        rows=[[row[name] for name in SHOWN] for row in rows],
        notes=limits + reasons,
    )
