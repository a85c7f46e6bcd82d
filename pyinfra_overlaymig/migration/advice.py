"""What an author is warned of: it may be meant, and most often is not. It reads texts, and refuses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pyinfra_overlaymig.migration.interpreters import SHELLS, interpreter, program_of

_BEGIN: Final = r"(?:^|[;&|({]|\$\(|`|\b(?:then|do|else|elif|if|while|until|time)\s|!\s)\s*(?:\w+=\S*\s+)*"
"""Where in a line a command may begin, variables of its own before it."""
_ERREXIT = re.compile(_BEGIN + r"set\s+(?:[-+]\w+\s+|[-+]o\s+\w+\s+)*(?:-[a-zA-Z]*e|-o\s+errexit\b)")
_HERE = re.compile(r"(?<!<)<<(?!<)(-?)\s*(?:'([^']+)'|\"([^\"]+)\"|\\?([A-Za-z_][\w.-]*))")
_FED = re.compile(r"<(?!\s*/dev/(?:tty|stdin)\b)|(?<!\|)\|(?!\|)")
"""A line that says where its input comes from."""
_FEEDS = re.compile(r"^exec\s[^;]*<|(?:\bdone|\}|\))[^;&|]*<|\|\s*(?:while\b|until\b|\{|\(|IFS=)")
"""A loop or group whose input comes from somewhere."""
_APT = re.compile(
    _BEGIN + r"(?:\S*/)?(apt-get|apt|aptitude)\s(?:[^;&|]*\s)?"
    r"(?:install|reinstall|remove|purge|upgrade|dist-upgrade|full-upgrade|autoremove|build-dep)\b"
)
_YES = re.compile(r"\s(?:-[a-zA-Z]*y|--yes|--assume-(?:yes|no)|-[a-zA-Z]*qq|-[sd]|--dry-run|--download-only)")
_ASKS: Final = tuple(
    re.compile(text)
    for text in (
        _BEGIN + r"read(?:\s|$)(?!\s*\()",
        _BEGIN + r"select\s+\w+(?:\s+in\b|\s*[;]|\s*$)",
        _BEGIN + r"cat\s*(?:-\s*)?(?:>\s*\S+\s*)?(?:$|[;&)`])",
        _BEGIN + r"(?:passwd|chfn|chsh|visudo|vipw|mysql_secure_installation)\b(?!.*\s-[dluS]\b)",
        _BEGIN + r"adduser\s(?!.*--(?:system|disabled-password|disabled-login|gecos|comment))",
        r"<\s*/dev/(?:tty|stdin)\b",
    )
)
_PYTHON_ASKS = re.compile(r"\binput\s*\(|\bsys\.stdin\b|\bgetpass\s*\(")
_READS = "reads standard input, which has nothing to read"
_KEY = re.compile(
    rb"^(?:-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[0-9]|AGE-SECRET-KEY-1)", re.MULTILINE
)


class Line(NamedTuple):
    """A command of a shell script, with the number of the line that it begins in."""

    number: int
    text: str


def of_script(name: str, content: bytes) -> Iterator[str]:
    """Each in one line."""
    words = interpreter(content)
    text = content.decode("utf-8", "replace")
    if program_of(words) == "python":
        for number, line in enumerate(text.splitlines(), 1):
            if _PYTHON_ASKS.search(line.partition("#")[0]):
                yield f"{name}:{number} {_READS}"
    elif program_of(words) in SHELLS:
        commands = list(code(text))
        if not any(re.fullmatch("-[a-z]*e[a-z]*", word) for word in words[1:]):
            yield from _goes_on(name, commands)
        yield from _stops(name, commands)


def _stops(name: str, commands: list[Line]) -> Iterator[str]:
    # Which loop it is that something feeds is not looked at: a warning for nothing is worse than none.
    feeds = any(_FEEDS.search(command.text) for command in commands)
    for command in commands:
        fed = bool(_FED.search(command.text)) or (feeds and "/dev/" not in command.text)
        yield from (f"{name}:{command.number} {what}" for what in _asks(command.text, fed=fed))


def _goes_on(name: str, lines: list[Line]) -> Iterator[str]:
    # A health check of one command is that command's.
    if len(lines) > (name == "verify.sh") and not any(_ERREXIT.search(line.text) for line in lines):
        yield f"{name} goes on after a command that fails, and then counts as done: let it begin with `set -eu`"


def _asks(line: str, *, fed: bool) -> Iterator[str]:
    apt = _APT.search(line)
    if apt and not _YES.search(line) and not _FED.search(line[: apt.end()]):
        yield f"lets {apt[1]} ask whether to go on, and nobody answers: give it -y"
    if not fed and any(asks.search(line) for asks in _ASKS):
        yield f"{_READS}: let it read a file, or a here-document"


def code(text: str) -> Iterator[Line]:
    """The commands of a shell script: lines that go on are one, here-documents are none, and comments go."""
    rest = iter(enumerate(text.splitlines(), 1))
    for number, line in rest:
        whole = line
        while whole.endswith("\\") and (more := next(rest, None)):
            whole = whole[:-1] + more[1]
        whole = _bare(whole).strip()
        for dash, *ends in _HERE.findall(whole):
            _skip_here_document(rest, "".join(ends), tabs=bool(dash))
        if whole:
            yield Line(number, whole)


def _skip_here_document(rest: Iterator[tuple[int, str]], end: str, *, tabs: bool) -> None:
    for _, line in rest:
        if (line.lstrip("\t") if tabs else line) == end:
            return


def _bare(line: str) -> str:
    """Without its comment; a # within a word, or in quotes, begins none."""
    quote = ""
    for at, one in enumerate(line):
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        elif one == "#" and (at == 0 or line[at - 1] in " \t;&|("):
            return line[:at]
    return line


def of_file(path: str, mode: int, content: bytes) -> Iterator[str]:
    """Of a file of files/, by its beginning; ``path`` as it is on the machine."""
    if mode & 0o007 and _KEY.search(content):
        remedy = f'write `modes: {{{path}: "0600"}}` into migration.yaml'
        yield f"{path} holds a private key that everybody could read ({mode:04o}): {remedy}"
