"""Reads JSON strictly, each key with the type it must have; it must know no schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pyinfra_overlaymig.format.errors import FormatError
from pyinfra_overlaymig.format.octal import unescape_text

T = TypeVar("T")


@dataclass(frozen=True)
class Fields:
    """A JSON object that is read key by key, each with the type it must have."""

    values: Mapping[str, Any]
    where: str

    @classmethod
    def of(cls, value: object, where: str) -> Fields:
        if not isinstance(value, dict):
            raise mismatch(where, "an object", value)
        return cls(value, where)

    def _get(self, key: str, kind: type[T] | tuple[type[T], ...], name: str) -> T:
        value = self.values.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise mismatch(f"{self.where}.{key}", name, value)
        return value

    def text(self, key: str) -> str:
        return self._get(key, str, "text")

    def word(self, key: str) -> str:
        return str(self._get(key, (str, int), "a word or a number"))

    def number(self, key: str) -> int:
        return self._get(key, int, "a whole number")

    def optional_number(self, key: str) -> int | None:
        return None if self.values.get(key) is None else self.number(key)

    def optional_text(self, key: str) -> str:
        """Empty where there is none: an older runner does not tell it."""
        return "" if self.values.get(key) is None else self.text(key)

    def optional_numbers(self, key: str) -> tuple[int, ...]:
        items = self._get(key, list, "a list") if key in self.values else []
        for item in items:
            if not isinstance(item, int) or isinstance(item, bool):
                raise mismatch(f"{self.where}.{key}[]", "a whole number", item)
        return tuple(items)

    def optional_texts(self, key: str) -> tuple[str, ...]:
        return self.texts(key) if key in self.values else ()

    def flag(self, key: str) -> bool:
        return self._get(key, bool, "true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        items = self._get(key, list, "a list")
        for item in items:
            if not isinstance(item, str):
                raise mismatch(f"{self.where}.{key}[]", "text", item)
        return tuple(items)

    def paths(self, key: str) -> tuple[str, ...]:
        fields = self.texts(key)
        try:
            return tuple(map(unescape_text, fields))
        except ValueError as error:
            raise mismatch(f"{self.where}.{key}[]", "an octal-escaped path", str(error)) from error

    def objects(self, key: str, build: Callable[[Fields], T]) -> tuple[T, ...]:
        items = self._get(key, list, "a list")
        return tuple(build(Fields.of(item, f"{self.where}.{key}[]")) for item in items)

    def optional(self, key: str, build: Callable[[Fields], T]) -> T | None:
        value = self.values.get(key)
        return None if value is None else build(Fields.of(value, f"{self.where}.{key}"))


def mismatch(where: str, wanted: str, found: object) -> FormatError:
    """The error that says what is at ``where`` instead of what is ``wanted``."""
    return FormatError(
        f"{where} should be {wanted}, but is {found!r}",
        hint="let machine_prepared install the runner that belongs to this overlaymig",
    )
