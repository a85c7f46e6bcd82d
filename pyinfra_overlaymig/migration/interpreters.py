"""What a script is refused for, or warned of, before any machine has it: by its interpreter, which runs none of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import Final

from pyinfra_overlaymig.errors import InvalidMigration

SHELLS: Final = ("sh", "dash", "ash", "bash", "ksh", "mksh", "zsh")
_BOMS: Final = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_ENV_OPTION = re.compile(r"-.*|[A-Za-z_]\w*=.*")
_VERSION = re.compile(r"(?<=^python)3?(\.[0-9]+)*$|(?<=^ruby)[0-9.]+$")
_LINE = re.compile(r"\b(?:line )?([0-9]+)[:,)]")
_PATIENCE = 20.0


def check(file: Path, content: bytes) -> None:
    """InvalidMigration where no interpreter can run it, or its own says that it will not."""
    for mark, encoding in _BOMS.items():
        if content.startswith(mark):
            raise InvalidMigration(
                f"begins with the byte order mark of {encoding}, so that nothing can run it",
                hint="save it as UTF-8 without BOM (sed -i '1s/^\\xef\\xbb\\xbf//' takes that of UTF-8 away)",
                file=file,
                line=1,
            )
    if b"\r\n" in content:
        raise InvalidMigration(
            "has DOS line ends, which sh takes for part of the words",
            hint=f"run `sed -i 's/\\r$//' {file.name}`",
            file=file,
        )
    words = interpreter(content)
    if not words:
        raise InvalidMigration(
            "does not say what runs it",
            hint="let its first line be `#!/bin/sh`, or `#!` and the path of another program",
            file=file,
            line=1,
        )
    if not words[0].startswith("/"):
        raise InvalidMigration(
            f"is to be run by {words[0]!r}, which is no path", hint="write it like `#!/bin/sh`", file=file, line=1
        )
    if b"\0" in content:
        raise InvalidMigration("holds a NUL", hint="a script is text: put what is none into files/", file=file)
    _check_syntax(file, content, program_of(words))


def interpreter(content: bytes) -> list[str]:
    """The words of the first line, if it names who runs the rest."""
    first = content.split(b"\n", 1)[0]
    return first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []


def program_of(words: list[str]) -> str:
    """The name of the program that reads the script, without its version: through env, and what env is told."""
    names = [word.rpartition("/")[2] for word in words]
    if names[:1] == ["env"]:
        names = [name for name in names[1:] if not _ENV_OPTION.fullmatch(name)]
    return _VERSION.sub("", names[0]) if names else ""


def sh_trouble(text: str) -> str:
    """What sh would say of ``text`` before it runs any of it; empty where that is nothing."""
    checker = _checker("sh")
    if checker is None or not text.strip():
        return ""
    try:
        done = subprocess.run(checker, input=text.encode("utf-8", "replace"), capture_output=True, check=False)
    except OSError:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[0] if done.returncode != 0 and said else ""


def _check_syntax(file: Path, content: bytes, program: str) -> None:
    if program == "python":
        _compile(file, content)
        return
    argv = _checker(program)
    if argv is None:
        return
    try:
        done = subprocess.run(
            [*argv, file.absolute()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            check=False, timeout=_PATIENCE,
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError):
        # Nobody here can say.
        return
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().replace(f"{file.absolute()}: ", "")
        first = said.splitlines()[0] if said else f"exit {done.returncode}"
        found = _LINE.search(first)
        raise InvalidMigration(
            f"is no {program} as it stands: {first}",
            hint=f"correct it until `{' '.join(argv)} {file.name}` says nothing",
            file=file,
            line=int(found[1]) if found else None,
        )


@cache
def _checker(program: str) -> tuple[str, ...] | None:
    """What looks at a script of ``program`` without running any of it; None where there is nothing like that here."""
    options = {**dict.fromkeys(SHELLS, "-n"), "ruby": "-c", "node": "--check"}
    name = "sh" if program in ("dash", "ash") and not shutil.which(program) else program
    return (name, options[name]) if name in options and shutil.which(name) else None


def _compile(file: Path, content: bytes) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(content, str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise InvalidMigration(
            f"is no Python as it stands: {getattr(error, 'msg', error)}",
            hint=f"correct it until `python3 -m py_compile {file.name}` says nothing",
            file=file,
            line=getattr(error, "lineno", None),
        ) from error
