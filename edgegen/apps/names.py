"""From the name that a person gives an app to the names that its platform's tools accept."""

import re
import unicodedata

from edgegen.errors import UsageError

LONGEST_TITLE = 50  # characters under an icon; stores allow 30
# Of Kotlin (hard keywords) and Java, in which Android's tools write sources of the same package.
RESERVED = re.compile(
    "abstract|as|assert|boolean|break|byte|case|catch|char|class|const|continue|default|do|"
    "double|else|enum|extends|false|final|finally|float|for|fun|goto|if|implements|import|"
    "in|instanceof|int|interface|is|long|native|new|null|object|package|private|protected|"
    "public|return|short|static|strictfp|super|switch|synchronized|this|throw|throws|"
    "transient|true|try|typealias|typeof|val|var|void|volatile|when|while"
)


def check_title(name: str) -> str:
    """The name as people read it. Raises UsageError where it is empty, too long or not of printable characters."""
    title = " ".join(name.split())
    if not title:
        raise UsageError("--name: is empty; give the name that people see, e.g. --name Flowers")
    if len(title) > LONGEST_TITLE:
        raise UsageError(f"--name: has {len(title)} characters; at most {LONGEST_TITLE} fit under an icon")
    if not title.isprintable():
        raise UsageError(f"--name {title!r}: has characters that nothing prints")
    return title


def identifier(title: str) -> str:
    """Lower-case letters a-z and digits, after a letter, no reserved word: "Blüten & Co" becomes "blutenco".

    Raises UsageError where nothing is left.
    """
    plain = unicodedata.normalize("NFKD", title.replace("ß", "ss"))
    letters = re.sub(r"[^a-z0-9]", "", plain.lower())
    if not letters:
        raise UsageError(
            f"--name {title!r}: has no letter a-z and no digit, of which names of packages are made; add some, e.g. "
            "--name Flowers, and change the title later"
        )
    if letters[0].isdigit() or RESERVED.fullmatch(letters):
        return f"app{letters}"
    return letters


def for_strings_xml(title: str) -> str:
    """As the value of a string in Android's resources."""
    text = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(['\"\\])", r"\\\1", text)
    return f"\\{text}" if text[0] in "@?" else text


def in_kotlin(text: str) -> str:
    """Between the quotes of a Kotlin string."""
    return re.sub(r"([\\\"$])", r"\\\1", text)


def quoted(text: str) -> str:
    """As a string of Swift or of Xcode's project file, with its quotes."""
    return '"' + re.sub(r"([\\\"])", r"\\\1", text) + '"'
