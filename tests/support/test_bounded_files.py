"""Files that nobody should have to wait for, or hold in memory: each kind of fault in the one reader that all use."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edgegen.errors import DataError
from edgegen.support import bounded_files
from edgegen.support.bounded_files import mapped, parse_json, read_bytes, read_text, read_toml, tree, user_path
from edgegen.support.numbers import number, whole


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no file "),
        (os.mkfifo, "is a pipe; needed: a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device; needed: a file"),
        (lambda path: path.symlink_to("/dev/ptmx"), "is a device; needed: a file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
        (Path.mkdir, "is a folder; needed: a file"),
        (_socket, "is a socket; needed: a file"),
        (_sparse, r"has 5368709120 bytes; at most \d+ are read"),
    ],
)
@pytest.mark.parametrize("read", [read_bytes, read_text, read_toml])
def test_what_is_no_file_is_not_opened(
    tmp_path: Path, make: Callable[[Path], None], message: str, read: Callable[[Path], object]
) -> None:
    make(tmp_path / "x")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x")


def test_names_that_no_file_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no name of a file"):
        read_bytes(tmp_path / "a\0b")
    with pytest.raises(DataError, match="File name too long"):
        read_bytes(tmp_path / ("x" * 5000))


def test_files_of_proc_say_that_they_are_empty() -> None:
    assert read_text(Path("/proc/self/status")).startswith("Name:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "in each other, deeper than 100"),
        ("[" * 101 + "]" * 101, "in each other, deeper than 100"),
        ('{"a":' * 500 + "1" + "}" * 500, "in each other, deeper than 100"),
        ("NaN", "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("1e999", "1e999 is beyond what a number can hold"),
        ("9" * 400, r"99999999999999999999\.\.\. \(400 characters\) is beyond"),
        (str(1 << 64), "18446744073709551616 is beyond"),
        ('{"a": "\\ud800"}', "text that is not Unicode"),
        ("[1", "not JSON, or cut short"),
        (b"\xff\xfe\xfa", "not JSON, or cut short"),
    ],
)
def test_json_that_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"^here: .*{message}"):
        parse_json(text, where="here")


def test_json_that_is_read() -> None:
    assert parse_json("[" * 100 + "]" * 100, where="here") is not None
    assert parse_json(str((1 << 64) - 1), where="here") == (1 << 64) - 1
    assert parse_json('["\\ud83d\\ude00", null, -1.5e300]', where="here") == ["\N{GRINNING FACE}", None, -1.5e300]
    assert parse_json("[-Infinity]", where="here", infinities=True) == [float("-inf")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"a = {'[' * 100_000}", "deeper than 100"),
        ("a" + ".a" * 5000 + " = 1", "deeper than 100"),
        ("[a" + ".a" * 500 + "]", "deeper than 100"),
        ("a = ", "not TOML: Invalid value"),
    ],
)
def test_toml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(DataError, match=f"a.toml: .*{message}"):
        read_toml(tmp_path / "a.toml")


def test_a_large_file_is_mapped_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    _sparse(tmp_path / "x")
    content = mapped(tmp_path / "x")
    assert (len(content), content[4:8]) == (5 << 30, bytes(4))
    (tmp_path / "y").touch()
    assert mapped(tmp_path / "y") == b""


def test_the_whole_file_system_is_no_folder_of_images() -> None:
    with pytest.raises(DataError, match="is the whole file system; give a folder in it"):
        tree(Path("/"))


def test_a_tree_with_links_to_itself_ends_and_tells_them(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "1").touch()
    for name in "xy":
        (tmp_path / "set" / "a" / name).symlink_to("..")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2").touch()
    (tmp_path / "set" / "b").symlink_to("../elsewhere")
    found = tree(tmp_path / "set")
    assert [str(path.relative_to(tmp_path / "set")) for path in found.files] == ["a/1", "b/2"]
    assert [link.name for link, _ in found.links] == ["x", "y"]
    assert {target for _, target in found.links} == {tmp_path / "set"}


def test_a_tree_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_files, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="more than 2 files"):
        tree(tmp_path)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match=r"the name 'caf\\udce9' is not UTF-8; rename it"):
        tree(tmp_path)


def test_places_that_a_text_names(tmp_path: Path) -> None:
    assert user_path("x", base=tmp_path) == tmp_path / "x"
    assert user_path("~/x") == Path.home() / "x"
    with pytest.raises(DataError, match="write the whole path"):
        user_path("~nosuchuser/x")
    with pytest.raises(DataError, match="no file has a NUL in its name"):
        user_path("a\0b")


@pytest.mark.parametrize("text", ["", "²", "1.5", "nan", "9" * 400, "-1", "1_000", "0x10", "70000"])
def test_texts_that_are_no_whole_number(text: str) -> None:
    assert whole(text, most=65_536) is None


@pytest.mark.parametrize("text", ["", "²", "nan", "inf", "1e999", "9" * 400, "-0.1", "1e7"])
def test_texts_that_are_no_number(text: str) -> None:
    assert number(text, most=1e6) is None


def test_numbers_in_texts() -> None:
    assert (whole(" 8\n"), whole("-5", least=-9)) == (8, -5)
    assert (number("0.25"), number("1e3")) == (0.25, 1000.0)
