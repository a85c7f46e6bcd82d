"""Arguments of `s6_service`: what they define, and what cannot be, said before any machine is changed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, NamedTuple, TypeVar, cast

from pyinfra.api import OperationError

from pyinfra_overlaymig.errors import InvalidMigration
from pyinfra_overlaymig.format.paths import LOGS
from pyinfra_overlaymig.migration.manifest import service_of
from pyinfra_overlaymig.migration.services import Rendered, render_alone

T = TypeVar("T", bound=Callable[..., Any])

_DEFINES: Final = (
    *("run", "prepare", "finish", "user", "environment", "check", "notification_fd"),
    *("down_signal", "timeout_kill", "max_death_tally", "needs"),
)
_NAME = re.compile(r"[A-Za-z0-9_@%+:][A-Za-z0-9_@%+:.-]*")
_LETTERS: Final = {
    "SIGHUP": "h", "SIGUSR1": "1", "SIGUSR2": "2", "SIGINT": "i", "SIGQUIT": "q", "SIGALRM": "a", "SIGABRT": "b",
    "SIGTERM": "t", "SIGWINCH": "y", "SIGSTOP": "p", "SIGCONT": "c", "SIGKILL": "k",
}  # fmt: skip
"""What s6-svc calls the signals that it sends."""


class Wanted(NamedTuple):
    """What a service is to be. ``files`` define it, unless that is done elsewhere; ``signal`` is s6-svc's letter."""

    service: str
    present: bool
    files: tuple[Rendered, ...]
    running: bool | None
    enabled: bool | None
    restarted: bool
    signal: str | None
    log: str | None
    timeout: int
    scandir: str
    sourcedir: str
    livedir: str


def checked_first(operation: T) -> T:
    """With `-y` pyinfra runs an operation only after others changed machines: check it before."""
    known = {name: one.default for name, one in inspect.signature(operation).parameters.items()}

    @wraps(operation)
    def checked(*given: Any, **named: Any) -> Any:
        found = {**known, **dict(zip(known, given, strict=False)), **named}
        if isinstance(found["service"], str):
            wanted_of(found)
        return operation(*given, **named)

    return cast(T, checked)


def wanted_of(given: Mapping[str, Any]) -> Wanted:
    """What all arguments of `s6_service`, by their names, mean; OperationError where they cannot be."""
    service, log = given["service"], given["log"]
    _check_names(service, **{name: given[name] for name in ("scandir", "sourcedir", "livedir")})
    folder = f"{LOGS}/{service}" if log is True else log or None
    own = {name: given[name] for name in _DEFINES if given[name] is not None}
    as_given = {name: given[name] for name in Wanted._fields if name in given and name != "log"}
    files = _definition(service, own, folder, given["scandir"]) if given["present"] else ()
    return Wanted(**as_given, files=files, signal=_letter(given["reloaded"]), log=folder)


def _check_names(service: str, **folders: str) -> None:
    if not _NAME.fullmatch(service):
        raise OperationError(f"{service!r} is no service name")
    for name, folder in folders.items():
        if not folder.startswith("/") and (folder or name != "sourcedir"):
            raise OperationError(f"{name} must be an absolute path, not {folder!r}")


def _letter(reloaded: bool | str) -> str | None:
    """What s6-svc calls the signal of ``reloaded``."""
    if isinstance(reloaded, bool):
        return "h" if reloaded else None
    name = f"SIG{reloaded.upper().removeprefix('SIG')}"
    if name not in _LETTERS:
        raise OperationError(f"s6-svc sends no signal {reloaded!r}, but {', '.join(_LETTERS)}")
    return _LETTERS[name]


def _definition(service: str, own: Mapping[str, object], log: str | None, scandir: str) -> tuple[Rendered, ...]:
    if not own:
        return ()
    if log is not None and not log.startswith("/"):
        raise OperationError(f"log must be True, False or an absolute path, not {log!r}")
    try:
        return render_alone(service_of(service, {name: _plain(own[name]) for name in own}), log, scandir)
    except InvalidMigration as error:
        raise OperationError(f"s6_service {service}: {error.message}\n    hint: {error.hint}") from error


def _plain(value: object) -> object:
    """As YAML has it, by whose rules arguments are checked."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
