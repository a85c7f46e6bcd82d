"""Arguments of `s6_service`: what they define, and what cannot be, said before any machine is changed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar, cast

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


def checked_first(operation: T) -> T:
    """With `-y` pyinfra runs an operation only after others changed machines: check it before."""
    known = {name: one.default for name, one in inspect.signature(operation).parameters.items()}

    @wraps(operation)
    def checked(*given: Any, **named: Any) -> Any:
        found = {**known, **dict(zip(known, given, strict=False)), **named}
        if isinstance(found["service"], str):
            _check(found["service"], found)
        return operation(*given, **named)

    return cast(T, checked)


def _check(service: str, found: Mapping[str, Any]) -> None:
    _check_names(service, **{name: found[name] for name in ("scandir", "sourcedir", "livedir")})
    letter(found["reloaded"])
    if found["present"]:
        definition(service, {key: found[key] for key in _DEFINES}, log_folder(service, found["log"]), found["scandir"])


def log_folder(service: str, log: bool | str) -> str | None:
    """Where its output is kept."""
    return f"{LOGS}/{service}" if log is True else log or None


def _check_names(service: str, **folders: str) -> None:
    if not _NAME.fullmatch(service):
        raise OperationError(f"{service!r} is no service name")
    for name, folder in folders.items():
        if not folder.startswith("/") and (folder or name != "sourcedir"):
            raise OperationError(f"{name} must be an absolute path, not {folder!r}")


def letter(reloaded: bool | str) -> str | None:
    """What s6-svc calls the signal of ``reloaded``."""
    if isinstance(reloaded, bool):
        return "h" if reloaded else None
    name = f"SIG{reloaded.upper().removeprefix('SIG')}"
    if name not in _LETTERS:
        raise OperationError(f"s6-svc sends no signal {reloaded!r}, but {', '.join(_LETTERS)}")
    return _LETTERS[name]


def definition(service: str, own: Mapping[str, object], log: str | None, scandir: str) -> tuple[Rendered, ...]:
    """What defines the service; nothing where that is done elsewhere."""
    given = {key: _plain(value) for key, value in own.items() if value is not None}
    if not given:
        return ()
    if log is not None and not log.startswith("/"):
        raise OperationError(f"log must be True, False or an absolute path, not {log!r}")
    try:
        return render_alone(service_of(service, given), log, scandir)
    except InvalidMigration as error:
        raise OperationError(f"s6_service {service}: {error.message}\n    hint: {error.hint}") from error


def _plain(value: object) -> object:
    """As YAML has it, by whose rules arguments are checked."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
