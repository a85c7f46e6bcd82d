"""Reads YAML so that complaints name file, line and remedy; it must know no schema."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from pyinfra_overlaymig.errors import InvalidMigration, unreadable

_TAG = "tag:yaml.org,2002:"
_CLOSE = 0.75
_INTEGER = re.compile(r"0|[1-9][0-9]*")


def closest(word: str, known: Collection[str], part: Callable[[str], str] = str) -> str:
    """A "did you mean" for ``word`` if something known is close to it, else the list of what is known.

    ``part`` of a word is what is compared: ids of the same day would look alike by their dates.
    """
    by_part: dict[str, str] = {part(one): one for one in sorted(known)}
    near = difflib.get_close_matches(part(word), by_part, n=1, cutoff=_CLOSE)
    if near:
        return f"did you mean `{by_part[near[0]]}`?"
    return f"known are: {', '.join(sorted(known))}" if known else "there is none"


@dataclass(frozen=True)
class Value:
    """A node of a YAML document; ``path`` is the keys that lead to it, ``what`` how messages call it."""

    node: yaml.Node
    file: Path
    what: str
    path: str = ""

    @property
    def line(self) -> int:
        """Line in the file, counted from 1."""
        return int(self.node.start_mark.line) + 1

    def wrong(self, message: str, hint: str) -> InvalidMigration:
        """The error that says what is wrong with this value."""
        return InvalidMigration(message, hint=hint, file=self.file, line=self.line)

    def text(self, form: re.Pattern[str] | None = None, example: str = "") -> str:
        """The string this is, not blank; of the given form, if any."""
        text = self.any_text()
        if not text.strip():
            raise self.wrong(f"{self.what} is empty", "give it a value, or leave the key out")
        if form and not form.fullmatch(text):
            raise self.wrong(f"{self.what} cannot be {text!r}", f"write it like {example}")
        return text

    def line_of_text(self) -> str:
        """The string this is, in one line, as it can be printed."""
        text = " ".join(self.text().split())
        if not text.isprintable():
            raise self.wrong(f"{self.what} holds control characters", "leave them out: terminals would obey them")
        return text

    def any_text(self) -> str:
        """The string this is, maybe empty."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != f"{_TAG}str":
            raise self.wrong(f"{self.what} must be text", self._quote_hint())
        text = str(self.node.value)
        if "\0" in text:
            raise self.wrong(f"{self.what} holds a NUL", "no program can take one; leave it out")
        return text

    def _quote_hint(self) -> str:
        if isinstance(self.node, yaml.ScalarNode) and self.node.value:
            return f'YAML reads it as something else; quote it: "{self.node.value}"'
        return "write one string here"

    def integer(self, low: int, high: int) -> int:
        """The whole number this is, within bounds (both included)."""
        hint = f"write a whole number from {low} to {high}"
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != f"{_TAG}int":
            raise self.wrong(f"{self.what} must be a whole number", hint)
        if not _INTEGER.fullmatch(self.node.value) or not low <= int(self.node.value) <= high:
            raise self.wrong(f"{self.what} cannot be {self.node.value}", hint)
        return int(self.node.value)

    def boolean(self) -> bool:
        """The truth value this is."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != f"{_TAG}bool":
            raise self.wrong(f"{self.what} must be true or false", "write `true`, or leave the key out")
        return str(self.node.value).lower() in ("true", "yes", "on")

    def items(self) -> tuple[Value, ...]:
        """The members of the list this is."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"{self.what} must be a list", "write `- item`, one a line")
        return tuple(Value(child, self.file, self.what, self.path) for child in self.node.value)

    def texts(self, form: re.Pattern[str] | None = None, example: str = "") -> tuple[str, ...]:
        """The strings of the list this is; a repeated one is an error."""
        seen: list[str] = []
        for item in self.items():
            text = item.text(form, example)
            if text in seen:
                raise item.wrong(f"{self.what} names {text!r} twice", "keep one of them")
            seen.append(text)
        return tuple(seen)

    def mapping(self, known: Collection[str] | None = None) -> dict[str, Value]:
        """The mapping this is, in its order; a repeated or unknown key is an error."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"{self.what} must be a mapping", "write `key: value`, one a line")
        found: dict[str, Value] = {}
        for key, value in self._pairs(self.node):
            name = key.text()
            if known is not None and name not in known:
                raise key.wrong(f"unknown key `{name}` in {self.what}", closest(name, known))
            if name in found:
                raise key.wrong(
                    f"key `{name}` is given twice (first in line {found[name].line})",
                    "keep one of them",
                )
            path = f"{self.path}.{name}" if self.path else name
            found[name] = Value(value, self.file, f"`{path}`", path)
        return found

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[Value, yaml.Node]]:
        for key, value in node.value:
            yield Value(key, self.file, f"a key of {self.what}"), value


def read(file: Path, what: str, missing: str = "every migration has one") -> Value:
    """The one document in ``file``; ``what`` is how messages call it, ``missing`` what to do where nothing is in it."""
    try:
        node = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise InvalidMigration("is no UTF-8", hint="save it as UTF-8", file=file) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidMigration(
            f"is no YAML: {error.problem or error.context}",
            hint="check indentation, colons and quotes around this line",
            file=file,
            line=mark.line + 1 if mark else None,
        ) from error
    except RecursionError as error:
        raise InvalidMigration("is nested too deeply", hint="a manifest has four levels", file=file) from error
    except yaml.YAMLError as error:
        raise InvalidMigration(f"is no YAML: {error}", hint="remove control characters", file=file) from error
    if node is None:
        raise InvalidMigration("is empty", hint=missing, file=file, line=1)
    return Value(node, file, what)
