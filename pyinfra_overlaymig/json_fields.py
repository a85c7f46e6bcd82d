"""Takes values out of JSON and says which one is not what it should be; it must know no schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pyinfra_overlaymig.errors import InvalidStatus

T = TypeVar("T")

_HINT = "bring the machine's runner and this overlaymig to one version: machine_prepared"


def mismatch(where: str, name: str, value: Any) -> InvalidStatus:
    """The error for a value that is not what ``name`` says."""
    return InvalidStatus(f"{where} should be {name}, but is {value!r}", hint=_HINT)


@dataclass(frozen=True)
class Fields:
    """A JSON object; ``where`` is how messages call it. Keys it has besides are left alone."""

    values: dict[str, Any]
    where: str

    @classmethod
    def of(cls, value: Any, where: str) -> Fields:
        """``value``, which must be an object."""
        if not isinstance(value, dict):
            raise mismatch(where, "an object", value)
        return cls(value, where)

    def text(self, key: str) -> str:
        return self._get(key, str, "text")

    def word(self, key: str) -> str:
        """Text, or a number as text."""
        return str(self._get(key, (str, int), "a word or a number"))

    def number(self, key: str) -> int:
        return self._get(key, int, "a whole number")

    def truth(self, key: str) -> bool:
        return self._get(key, bool, "true or false")

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._get(key, list, "a list")
        for one in found:
            if not isinstance(one, str):
                raise mismatch(f"{self.where}.{key}[]", "text", one)
        return tuple(found)

    def objects(self, key: str, make: Callable[[Fields], T]) -> tuple[T, ...]:
        """What ``make`` makes of each object of a list."""
        return tuple(make(Fields.of(one, f"{self.where}.{key}[]")) for one in self._get(key, list, "a list"))

    def maybe(self, key: str, make: Callable[[Fields], T]) -> T | None:
        """What ``make`` makes of an object, None for null."""
        value = self.values.get(key)
        return None if value is None else make(Fields.of(value, f"{self.where}.{key}"))

    def _get(self, key: str, kind: Any, name: str) -> Any:
        value = self.values.get(key)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise mismatch(f"{self.where}.{key}", name, value)
        return value
