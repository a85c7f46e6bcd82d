"""Arguments of operations that come from outside, as texts: from pyinfra's command line, `--data` and inventories.

They are read before the operation is, as a text that is not empty counts as true: `restore_state=no` would restore.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast

from pyinfra.api import OperationError

from pyinfra_overlaymig.format.limits import LONGEST_CONFIRM

T = TypeVar("T", bound=Callable[..., Any])

_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1", "y", "t"), True),
    **dict.fromkeys(("false", "no", "off", "0", "n", "f"), False),
}


def read_first(**readers: Callable[[str, Any], Any]) -> Callable[[T], T]:
    """Before the operation, each of these arguments that is given is read by its reader, which gets its name too."""

    def around(operation: T) -> T:
        names = list(inspect.signature(operation).parameters)

        @wraps(operation)
        def reading(*given: Any, **named: Any) -> Any:
            read = [_read(readers, name, value) for name, value in zip(names, given, strict=False)]
            return operation(*read, *given[len(read) :], **{name: _read(readers, name, named[name]) for name in named})

        return cast(T, reading)

    return around


def truth(name: str, value: Any) -> bool:
    """What stands for true or false, as YAML and people write it; anything else is an OperationError."""
    if isinstance(value, bool):
        return value
    found = _WORDS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if found is None:
        raise OperationError(f"{name} cannot be {value!r}\n    hint: write true or false (yes, no, on, off, 1, 0)")
    return found


def truth_or_none(name: str, value: Any) -> bool | None:
    """The same, or None, which leaves something as it is."""
    return None if value is None or str(value).strip().lower() in ("none", "null") else truth(name, value)


def truth_or_text(name: str, value: Any) -> bool | str:
    """What stands for true or false, or else a text that says more."""
    return truth(name, value) if not isinstance(value, str) or value.strip().lower() in _WORDS else value


def seconds(name: str, value: Any) -> int:
    """A whole number of seconds, maybe none."""
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal():
        raise OperationError(f"{name} cannot be {value!r}\n    hint: write a whole number of seconds")
    return int(text)


def confirmation(name: str, value: Any) -> int:
    """As many seconds as a machine waits for its confirmation; none: it does not."""
    found = seconds(name, value)
    if found > LONGEST_CONFIRM:
        raise OperationError(f"{name} cannot be {value!r}\n    hint: write 1 to {LONGEST_CONFIRM} seconds, or 0")
    return found


def _read(readers: dict[str, Callable[[str, Any], Any]], name: str, value: Any) -> Any:
    return readers[name](name, value) if name in readers else value
