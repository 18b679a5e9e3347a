"""Work that tells nothing of itself is heard of."""

import time

from edgegen.support.progress import Silent, heartbeat


class Heard(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_heartbeat_says_what_is_waited_for_and_ends_with_its_block() -> None:
    heard = Heard()
    with heartbeat(heard, lambda: "making a.pte", every_s=0.01):
        while len(heard.messages) < 2:
            time.sleep(0.01)
    count = len(heard.messages)
    time.sleep(0.05)
    assert len(heard.messages) == count
    assert heard.messages[0] == "  making a.pte (0:00)"
    with heartbeat(heard, lambda: "", every_s=0.01):
        time.sleep(0.05)
    assert len(heard.messages) == count
