"""What of another's text a terminal gets to see."""

import pytest

from edgegen.support.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv 1 (ä, 画, 🙂)", "conv 1 (ä, 画, 🙂)"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("net\nok  50 dB\r", r"net\nok  50 dB\r"),
        ("gnp.\u202eexe\u2028", r"gnp.\u202eexe\u2028"),
        ("\x9b31m\udc80\x00", r"\x9b31m\udc80\x00"),
    ],
)
def test_what_does_not_stand_for_itself_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
