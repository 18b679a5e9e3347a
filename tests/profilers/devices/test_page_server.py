"""What a page is served and may send, and what a page that leaves or lies does; a browser is not needed for it."""

import contextlib
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_page import FACTS, FakePage, ask
from small_nets import sigmoid

from edgegen.errors import DeviceError, UsageError
from edgegen.profilers.devices import connections, page, page_server
from edgegen.profilers.devices.browser import BrowserDevice
from edgegen.profilers.devices.page_server import PageServer
from edgegen.profilers.files.profile import profile_files
from edgegen.profilers.timing.process import Worker
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.support.progress import Silent

FEW = ProfileOptions(min_runs=3, max_seconds=0.05, timeout_seconds=10.0, warm_seconds=0.0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PageServer]:
    monkeypatch.setattr(page, "POLL_S", 0.1)
    with PageServer({}) as made:
        yield made


def opened(server: PageServer) -> str:
    """The key."""
    status, key, _ = ask(server, "POST", "/open", key=server.page.token, body=json.dumps(FACTS).encode())
    assert status == 200
    return key.decode()


@pytest.mark.parametrize("key", ["", "wrong", "ü"])
def test_without_the_token_nothing_is_read_or_taken(server: PageServer, tmp_path: Path, key: str) -> None:
    (tmp_path / "net.onnx").write_bytes(b"secret")
    server.files["net.onnx"], server.outputs["out"] = tmp_path / "net.onnx", None
    body = json.dumps(FACTS).encode()
    assert ask(server, "POST", "/open", key=key, body=body)[0] == 403
    opened(server)
    given = key.encode("utf-8").decode("latin-1")
    for secret in (given, server.page.token):  # the token opens, and nothing else
        for method, path in (
            ("GET", "/next"),
            ("GET", "/file/net.onnx"),
            ("POST", "/file/out"),
            ("POST", "/said/0"),
            ("POST", "/ended/0"),
            ("POST", "/bye"),
        ):
            status, came, _ = ask(server, method, path, key=secret, body=b"x" if method == "POST" else None)
            assert (status, came) == (403, b"only the page that was opened first may do this"), path
    assert server.outputs["out"] is None
    assert server.page.gone() == ""


def test_a_second_page_is_refused_with_a_clear_text(server: PageServer) -> None:
    opened(server)
    status, text, _ = ask(server, "POST", "/open", key=server.page.token, body=json.dumps(FACTS).encode())
    assert (status, text[:48]) == (409, b"This address was already opened in another page.")


def test_only_what_stands_in_the_table_is_served(server: PageServer, tmp_path: Path) -> None:
    (tmp_path / "ein Bild.onnx").write_bytes(b"model")
    (tmp_path / "other").write_bytes(b"not yours")
    server.files["ein Bild.onnx"] = tmp_path / "ein Bild.onnx"
    key = opened(server)
    assert ask(server, "GET", "/file/ein%20Bild.onnx", key=key)[:2] == (200, b"model")
    for path in (
        "/file/",
        "/file",
        "/file/other",
        "/file/../other",
        "/file/..%2fother",
        f"/file/{tmp_path}/other",
        f"/file/%2f{tmp_path}/other",
        "//etc/passwd",
        "/../../etc/passwd",
        "/page.js/../onnx_runner.py",
        "/onnx_runner.py",
        "/runners/",
        "/ort/",
        "/ort/..%2fpackage.json",
        "/.",
    ):
        assert ask(server, "GET", path, key=key)[0] == 404, path


def test_a_model_that_went_away_is_said(server: PageServer, tmp_path: Path) -> None:
    server.files["net.onnx"] = tmp_path / "net.onnx"
    assert ask(server, "GET", "/file/net.onnx", key=opened(server))[:2] == (404, b"net.onnx is not there any more")


def test_outputs_are_taken_once_where_they_were_asked_for(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "FILE_LIMIT", 8)
    key = opened(server)
    server.outputs["out"] = None
    assert ask(server, "POST", "/file/other", key=key, body=b"x")[0] == 404
    assert ask(server, "POST", "/file/out", key=key, body=b"123456789")[0] == 413
    assert ask(server, "POST", "/file/out", key=key, body=b"", headers={"Content-Length": "9" * 99})[0] == 413
    assert ask(server, "POST", "/file/out", key=key, body=b"", headers={"Content-Length": "-1"})[0] == 411
    assert ask(server, "POST", "/file/out", key=key, body=None, headers={"Transfer-Encoding": "chunked"})[0] == 411
    assert server.outputs["out"] is None
    assert ask(server, "POST", "/file/out", key=key, body=b"12345678")[0] == 200
    assert ask(server, "POST", "/file/out", key=key, body=b"other")[0] == 404
    assert server.outputs["out"] == b"12345678"


def test_it_listens_to_this_machine_alone_unless_asked() -> None:
    for lan, address in ((False, "127.0.0.1"), (True, "0.0.0.0")):
        with PageServer({}, lan=lan) as made:
            listening = {one.laddr for one in psutil.Process().net_connections("tcp") if one.status == "LISTEN"}
            assert {one.ip for one in listening if one.port == made.port} == {address}


def test_another_name_that_leads_here_is_refused(server: PageServer) -> None:
    """DNS rebinding: a page of evil.test, whose name was pointed at 127.0.0.1."""
    for host, status in ((f"evil.test:{server.port}", 421), ("localhost:9000", 200), ("localhost.evil.test", 421)):
        assert ask(server, "GET", "/", headers={"Host": host})[0] == status
    with PageServer({}, lan=True) as lan:
        own = socket.gethostname()
        for host, status in (
            (f"phone.test:{lan.port}", 421),
            ("192.168.1.7:80", 200),
            ("[fe80::1]:80", 200),
            (own, 200),
        ):
            assert ask(lan, "GET", "/", headers={"Host": host})[0] == status


def test_a_header_that_comes_twice_is_refused(server: PageServer) -> None:
    for name in ("Host", "Content-Length"):
        request = f"POST /open HTTP/1.1\r\nEdgegen-Key: {server.page.token}\r\n"
        request += "Host: localhost\r\n" * (name != "Host") + f"{name}: localhost\r\n" * 2
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(request.encode() + b"\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert server.page.facts is None


@pytest.mark.parametrize(
    "start", [b"", b"GET / HT", b"POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_byte_now_and_then_keeps_no_connection_open(
    server: PageServer, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(start)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 20 and not select.select([connection], [], [], 0.1)[0]:
                connection.sendall(b"x")
            connection.recv(1000)
    assert time.monotonic() - began < 10


def test_one_address_has_a_limited_number_of_connections(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)).sendall(b"GET")
        with pytest.raises((ConnectionError, http.client.BadStatusLine)):
            ask(server, "GET", "/")
    for _ in range(100):  # until their threads have seen that they are closed
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            assert ask(server, "GET", "/")[0] == 200
            break
        time.sleep(0.05)
    else:
        pytest.fail("no place becomes free")


def test_of_equal_results_at_once_one_is_taken(server: PageServer) -> None:
    key = opened(server)
    server.outputs["out"] = None
    together = threading.Barrier(8)

    def post(number: int) -> int:
        together.wait()
        return ask(server, "POST", "/file/out", key=key, body=b"%d" % number * 100_000)[0]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(post, range(8))) == [200] + [404] * 7


def test_more_answers_than_commands_are_refused(server: PageServer) -> None:
    key = opened(server)
    server.page.start({})
    statuses = [ask(server, "POST", "/said/0", key=key, body=b"{}")[0] for _ in range(page.MOST_PENDING + 1)]
    assert statuses == [200] * page.MOST_PENDING + [429]


def test_every_answer_isolates_the_page_and_allows_no_other_site(server: PageServer) -> None:
    for method, path in (("GET", "/"), ("GET", "/page_worker.js"), ("GET", "/none"), ("OPTIONS", "/next")):
        _, _, headers = ask(server, method, path, headers={"Origin": "https://evil.test"})
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'")
        assert not [name for name in headers if name.startswith("Access-Control")]


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be had: Address already in use; give another"):
            PageServer({}, port=port)
    with pytest.raises(UsageError, match=r"port 70000 cannot be had: .*0-65535.*; give another"):
        PageServer({}, port=70000)


def test_a_page_that_says_nonsense_of_itself_is_none(server: PageServer) -> None:
    wrong = [{"clock_step_ms": step} for step in (-1, float("inf"), float("nan"))] + [
        {"threads": 0},
        {"threads": 10**30},
    ]
    for facts in (b"", b"[]", b'{"user_agent": 1}', *(json.dumps({**FACTS, **changes}).encode() for changes in wrong)):
        assert ask(server, "POST", "/open", key=server.page.token, body=facts)[0] == 400
    assert server.page.facts is None


def test_a_page_answers_a_worker(server: PageServer) -> None:
    fake = FakePage(server)
    worker = Worker(device := BrowserDevice("wasm", server), device.runner("onnx", "net.onnx"), timeout_s=10.0).ready()
    assert worker.ask("block", 1, 1, 1)["samples_ms"] == [1.0] * 30
    worker.stop()
    server.page.close("done")
    fake.close()


def changed(**facts: Any) -> Callable[[dict[str, Any]], str]:
    return lambda answer: json.dumps({**answer, **facts} if answer["event"] == "block" else answer)


def text(text: str) -> Callable[[dict[str, Any]], str]:
    return lambda answer: text if answer["event"] == "block" else json.dumps(answer)


def without(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda answer: json.dumps({k: v for k, v in answer.items() if k != name or answer["event"] != "block"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (changed(nonce="0123456789abcdef"), "the answer is to another command"),
        (changed(number=0), "the answer is to another command"),
        (changed(event="open"), "the answer is to another command"),
        (changed(samples_ms=[1.0, -1.0]), "the answer has impossible numbers"),
        (changed(samples_ms=[1.0, float("nan")]), "the answer has impossible numbers"),
        (changed(samples_ms=[]), "the answer has impossible numbers"),
        (changed(samples_ms=[0.0, 0.0]), "the answer has impossible numbers"),
        (changed(samples_ms="fast"), "the answer has impossible numbers"),
        (changed(samples_ms=[10**400]), "the answer has impossible numbers"),
        (changed(cpu_ms="none"), "the answer has impossible numbers"),
        (changed(threads=1.5), "the answer has impossible numbers"),
        (without("samples_ms"), "the answer has impossible numbers"),
        (without("nonce"), "the answer is not one of the protocol"),
        (text("no JSON"), "the answer is not one of the protocol"),
        (text("[1]"), "the answer is not one of the protocol"),
        (text("1" * 10_000), "the answer is not one of the protocol"),
        (text("[" * 100_000), "the answer is not one of the protocol"),
    ],
)
def test_an_answer_that_was_tampered_with_is_refused(server: PageServer, line: Any, message: str) -> None:
    fake = FakePage(server, line=line)
    worker = Worker(device := BrowserDevice("wasm", server), device.runner("onnx", "net.onnx"), timeout_s=10.0).ready()
    with pytest.raises(DeviceError, match=message):
        worker.ask("block", 1, 1, 1)
    worker.stop()
    server.page.close("done")
    fake.close()


@pytest.mark.parametrize("event", ["ready", "open", "run", "block", "probe"])
def test_a_page_that_is_closed_ends_the_measuring(
    server: PageServer, tmp_path: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sigmoid(tmp_path / "net.onnx")
    if event in ("block", "probe"):
        passes(monkeypatch)
    fake = FakePage(server, leave_at=event)
    with pytest.raises(DeviceError, match=r"^the page was closed$"):
        profile_files([path], BrowserDevice("wasm", server), options=FEW, progress=Silent())
    fake.close()


def test_a_page_that_falls_silent_ends_the_measuring(
    server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sigmoid(tmp_path / "net.onnx")
    passes(monkeypatch)
    monkeypatch.setattr(page, "SILENCE_S", 1.0)
    fake = FakePage(server, hush_at="block")
    with pytest.raises(DeviceError, match=r"^no sign of the page for 1 s: closed, or the screen is off$"):
        profile_files([path], BrowserDevice("wasm", server), options=FEW, progress=Silent())
    fake.close()


def passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the numbers is another test's."""
    from edgegen.profilers.files import profile
    from edgegen.profilers.files.check import Check
    from edgegen.profilers.schema import Numerics

    numerics = Numerics(reference="r", snr_db=None, max_abs=0.0, passed=True)
    monkeypatch.setattr(
        profile, "check_files", lambda placements, *_, **__: [Check(placement, numerics) for placement in placements]
    )


def test_a_clock_that_is_too_coarse_makes_a_time_noisy(
    server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 ms in steps of 1 ms is noisy; what takes no step at all has no time."""
    path = sigmoid(tmp_path / "net.onnx")
    passes(monkeypatch)
    monkeypatch.setitem(FACTS, "clock_step_ms", 1.0)
    fake = FakePage(server, line=changed(samples_ms=[30.0, 30.0]))
    (one,) = profile_files([path], BrowserDevice("wasm", server), options=FEW, progress=Silent()).results
    assert one.verdict.status == "noisy"
    assert "the device's clock goes in steps of 1 ms, 3% of the median" in one.verdict.reasons
    fake.line = changed(samples_ms=[30.0, 0.0])
    (one,) = profile_files([path], BrowserDevice("wasm", server), options=FEW, progress=Silent()).results
    assert one.latency is None
    assert one.verdict.reasons == ("takes less time than the device's clock can tell (1 ms): not timed",)
    server.page.close("done")
    fake.close()


@pytest.mark.parametrize(
    ("gpu", "is_fallback", "emulated"),
    [
        ("nobody's", True, "a GPU in software (nobody's)"),
        ("mesa llvmpipe", None, "a GPU in software (mesa llvmpipe)"),
        ("google swiftshader", False, "a GPU in software (google swiftshader)"),
        ("apple m2", False, None),
        ("qualcomm adreno", None, None),
    ],
)
def test_a_gpu_that_is_a_program_is_known_by_its_flag_or_its_name(
    server: PageServer, gpu: str, is_fallback: bool | None, emulated: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FACTS, "gpu", gpu)
    monkeypatch.setitem(FACTS, "gpu_is_fallback", is_fallback)
    opened(server)
    assert BrowserDevice("webgpu", server).probe()["emulated"] == emulated
    assert BrowserDevice("wasm", server).probe()["emulated"] is None


def test_fewer_threads_than_asked_are_said(server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sigmoid(tmp_path / "net.onnx")
    passes(monkeypatch)
    monkeypatch.setitem(FACTS, "cross_origin_isolated", False)
    fake = FakePage(server)
    measured = profile_files([path], BrowserDevice("wasm", server), threads=(2,), options=FEW, progress=Silent())
    (reason,) = [one for one in measured.results[0].verdict.reasons if "threads" in one]
    assert reason.startswith("2 threads were asked, 1 ran: the page is not cross-origin isolated")
    server.page.close("done")
    fake.close()


def test_what_a_browser_cannot_do_is_said(server: PageServer, tmp_path: Path) -> None:
    device = BrowserDevice("wasm", server)
    with pytest.raises(UsageError, match=r"a .pte does not run in a browser; .onnx files do"):
        device.runner("pte", "net.pte")
    with pytest.raises(UsageError, match="--per-op: browser has no profiler of single operations"):
        profile_files([sigmoid(tmp_path / "net.onnx")], device, per_op=True, progress=Silent())
    with pytest.raises(DeviceError, match="browser: a page starts no programs"):
        device.run(["ls"], timeout_s=1)
    key = opened(server)
    with pytest.raises(DeviceError, match="no WebGPU in this browser: no GPU that it may use"):
        BrowserDevice("webgpu", server).probe()
    place = device.place("out")
    with pytest.raises(DeviceError, match="browser: the page sent no out"):
        device.get(place, tmp_path / "out")
    device.place("out")
    ask(server, "POST", "/file/out", key=key, body=b"numbers")
    device.get(place, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"numbers"
