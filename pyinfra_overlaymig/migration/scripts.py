"""Fills in the scripts of s6 directories. They are files in s6/, which shellcheck reads as they are.

A line `. ./FILE` becomes what is in that file. Lines between `#if WHEN` and `#fi WHEN` stay where WHEN is asked for.
`@FIELD@` becomes its value as it is: who gives it quotes it. Lines `#if`, `#fi` and `# shellcheck` go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib import resources

_FIELD = re.compile(r"@([A-Z_]+)@")
_MARK = re.compile(r"#(if|fi) ([a-z-]+)\n")
_INCLUDE = re.compile(r"\. \./([a-z-]+\.sh)\n")
_DIRECTIVE = re.compile(r"\s*# shellcheck .*\n")


def script(name: str, fields: dict[str, str], when: Collection[str] = ()) -> str:
    """The script ``name`` with these ``fields``, and its parts for ``when``; a field that is not given: KeyError."""
    text = "".join(_chosen(_lines(name), when))
    return filled(text, fields)


def filled(text: str, fields: dict[str, str]) -> str:
    """``text`` with these values for its fields; one that is not given is a KeyError."""
    return _FIELD.sub(lambda match: fields[match[1]], text)


@cache
def _lines(name: str) -> tuple[str, ...]:
    """Of a script, with those that it takes in."""
    text = (resources.files(__package__) / "s6" / name).read_text("utf-8")
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        include = _INCLUDE.fullmatch(line)
        found += _lines(include[1]) if include else [line]
    return tuple(line for line in found if not _DIRECTIVE.fullmatch(line))


def _chosen(lines: Collection[str], when: Collection[str]) -> Iterator[str]:
    """Parts do not nest."""
    part = ""
    known = {mark[2] for line in lines if (mark := _MARK.fullmatch(line))}
    if not known.issuperset(when):
        raise ValueError(f"no script has parts for {', '.join(sorted(set(when) - known))}")
    for line in lines:
        mark = _MARK.fullmatch(line)
        if not mark:
            if part in ("", *when):
                yield line
        elif (mark[1] == "if") == bool(part) or (part and part != mark[2]):
            raise ValueError(f"this closes or opens what it cannot: {line!r}")
        else:
            part = mark[2] if mark[1] == "if" else ""
