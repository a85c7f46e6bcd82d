"""The schema of migration.yaml; it must look at no other file."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

from pyinfra_overlaymig.document import Value, read
from pyinfra_overlaymig.model import ID_EXAMPLE, Migration, Service, valid_id

_DAY: Final = 86_400
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]*\$?")
_SIGNALS: Final = frozenset(one.name for one in signal.Signals)
_KEYS: Final = (
    "description", "depends", "conflicts", "state", "stop", "timeout", "verify_timeout", "services",
)  # fmt: skip
_SERVICE_KEYS: Final = (
    "run", "prepare", "finish", "user", "check", "notification_fd", "ready_timeout", "environment", "down_signal",
    "timeout_kill",
)  # fmt: skip
_NOT_STATE: Final = (
    "/data", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/lib/apt", "/var/cache/debconf",  # noqa: S108
)  # fmt: skip


def load_manifest(file: Path, id: str) -> Migration:
    """The migration called ``id`` as far as its manifest tells: without members and links."""
    top = read(file, "the manifest")
    keys = top.mapping(_KEYS)
    if "description" not in keys:
        raise top.wrong("`description` is missing", "say in a line what the migration brings")
    return Migration(
        id=id,
        folder=file.parent,
        description=keys["description"].text(),
        depends=_ids(keys.get("depends"), id),
        conflicts=_ids(keys.get("conflicts"), id),
        state=_state(keys.get("state")),
        stop=keys["stop"].texts(_NAME, "postgresql") if "stop" in keys else (),
        timeout=_seconds(keys.get("timeout"), 1800),
        verify_timeout=_seconds(keys.get("verify_timeout"), 60),
        services=_services(keys.get("services")),
    )


def _seconds(value: Value | None, default: int) -> int:
    return value.integer(1, _DAY) if value else default


def _ids(value: Value | None, own: str) -> tuple[str, ...]:
    if value is None:
        return ()
    for item in value.items():
        id = item.text()
        if not valid_id(id):
            raise item.wrong(f"`{id}` is no id", f"write it like {ID_EXAMPLE}")
        if id == own:
            raise item.wrong(f"{value.what} names the migration itself", "take it out")
    return value.texts()


def _state(value: Value | None) -> tuple[str, ...]:
    if value is None:
        return ()
    found: list[str] = []
    for item in value.items():
        path = _state_path(item)
        for other in found:
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                raise item.wrong(f"{path} and {other} are one in the other", "name the outer one only")
        found.append(path)
    return tuple(found)


def _state_path(item: Value) -> str:
    text = item.text()
    path = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
    if not text.startswith("/") or ".." in text.split("/") or path == "/":
        raise item.wrong(f"state path {text!r} is no path below /", "write it like /var/lib/postgresql")
    for system in _NOT_STATE:
        if f"{path}/".startswith(f"{system}/") or f"{system}/".startswith(f"{path}/"):
            raise item.wrong(f"{path} cannot be state: {system} is the system's own", "name the service's own directory")
    return path


def _services(value: Value | None) -> tuple[Service, ...]:
    if value is None:
        return ()
    services = []
    for name, body in value.mapping().items():
        if not _NAME.fullmatch(name):
            raise body.wrong(f"a service cannot be called {name!r}", "use lower case letters, digits and . _ -")
        services.append(_service(name, body))
    return tuple(sorted(services, key=lambda one: one.name))


def _service(name: str, body: Value) -> Service:
    keys = body.mapping(_SERVICE_KEYS)
    if "run" not in keys:
        raise body.wrong(f"{body.what} has no `run`", "say which program it runs")
    if "check" in keys and "notification_fd" in keys:
        raise keys["check"].wrong(f"{body.what} has both `check` and `notification_fd`", "keep the one that it knows")
    return Service(
        name=name,
        run=_run(keys["run"]),
        prepare=_text(keys, "prepare"),
        finish=_text(keys, "finish"),
        user=keys["user"].text(_USER, "postgres") if "user" in keys else None,
        check=_text(keys, "check"),
        notification_fd=keys["notification_fd"].integer(3, 9) if "notification_fd" in keys else None,
        ready_timeout=_seconds(keys.get("ready_timeout"), 60),
        environment=_environment(keys.get("environment")),
        down_signal=_signal(keys.get("down_signal")),
        timeout_kill=keys["timeout_kill"].integer(1, 1000 * _DAY) if "timeout_kill" in keys else None,
    )


def _text(keys: dict[str, Value], key: str) -> str | None:
    return keys[key].text() if key in keys else None


def _run(value: Value) -> str:
    """A single simple command is given its `exec`: the program, not a shell, has to get s6's signals."""
    text = value.text()
    plain = text.strip()
    if "\n" not in plain and not re.search(r"[;&|<>(){}`]|^\s*(exec|if|while|until|for|case|set|\.)\b|^\w+=", plain):
        return f"exec {plain}"
    return text


def _environment(value: Value | None) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    found = []
    for name, one in value.mapping().items():
        if not _VARIABLE.fullmatch(name):
            raise one.wrong(f"a variable cannot be called {name!r}", "use letters, digits and _")
        found.append((name, one.any_text()))
    return tuple(sorted(found))


def _signal(value: Value | None) -> str | None:
    if value is None:
        return None
    name = value.text()
    if name not in _SIGNALS:
        raise value.wrong(f"there is no signal {name}", "write it like SIGTERM or SIGINT")
    return name
