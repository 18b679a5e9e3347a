"""Text of others, from a file, a device or a vendor's tool, as a terminal may show it."""


def printable(text: str) -> str:
    r"""The text with escapes, such as \x1b, \n or \u202e, for all that does not stand for itself on a line.

    These are control codes, which command a terminal; line ends, which begin a line that looks like ours; and marks
    that turn the direction of writing.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def printable_lines(text: str) -> str:
    """Text of ours with several lines, in which names and words of others may be."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
