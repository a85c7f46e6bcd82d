"""Fields of audit's records: quoted, in hex or in brackets; and a log, block by block."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_ESCAPES = {0: "\\000", 9: "\\011", 10: "\\012", 32: "\\040", 92: "\\134"}


def value(word: str) -> str:
    """What stands after the first `=`, escaped: quoted, or in hex, or in brackets where there is nothing."""
    text = word[word.find("=") + 1 :]
    if text.startswith('"'):
        text = text[1:-1]
        return text.replace("\\", "\\134") if "\\" in text else text
    if text.startswith("("):
        return ""
    try:
        return bytes.fromhex(text).decode("latin-1").translate(_ESCAPES)
    except ValueError:
        # Cut off, or no text at all.
        return ""


def trimmed(path: str) -> str:
    """Without slashes at its end."""
    return path.rstrip("/") if path.endswith("/") else path


def base(path: str) -> str:
    return trimmed(path).rpartition("/")[2]


def blocks(path: str) -> Iterator[list[str]]:
    """The lines of the file ``path``, many at a time."""
    rest = ""
    with open(path, encoding="latin-1", newline="") as file:
        while block := file.read(_BLOCK):
            lines = (rest + block).split("\n")
            rest = lines.pop()
            yield lines
    if rest:
        yield [rest]
