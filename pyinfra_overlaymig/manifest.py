"""The schema of migration.yaml: every key, its form and its default; it must read nothing else."""

from __future__ import annotations

import posixpath
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pyinfra_overlaymig.document import Value, read
from pyinfra_overlaymig.model import ID_EXAMPLE, Service, valid_id

SERVICE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
FOREIGN: Final = ("/data", "/proc", "/sys", "/dev", "/run", "/tmp", "/var/run")  # noqa: S108 - refused here, never written
SYSTEM: Final = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache/debconf")

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAY = 24 * 60 * 60
_MANIFEST_KEYS = (
    "description",
    "depends",
    "conflicts",
    "state",
    "stop",
    "timeout",
    "verify_timeout",
    "services",
)
_SERVICE_KEYS = (
    "run",
    "prepare",
    "finish",
    "user",
    "check",
    "notification_fd",
    "ready_timeout",
    "environment",
    "down_signal",
    "timeout_kill",
)


@dataclass(frozen=True)
class Manifest:
    """What migration.yaml says; the fields are those of ``Migration``."""

    description: str
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    timeout: int = 1800
    verify_timeout: int = 60
    services: tuple[Service, ...] = ()
    lines: dict[str, int] = field(default_factory=dict, compare=False)


def load_manifest(file: Path, id: str) -> Manifest:
    """The manifest in ``file``, of the migration ``id``; InvalidMigration says what is wrong."""
    top = read(file, "the manifest")
    keys = top.mapping(_MANIFEST_KEYS)
    if "description" not in keys:
        raise top.wrong("`description` is missing", "add `description: what it is for`")
    return Manifest(
        description=keys["description"].text(),
        depends=_ids(keys.get("depends"), id, ()),
        conflicts=_ids(keys.get("conflicts"), id, _ids(keys.get("depends"), id, ())),
        state=_state(keys["state"]) if "state" in keys else (),
        stop=keys["stop"].texts(SERVICE_NAME, "postgresql") if "stop" in keys else (),
        timeout=keys["timeout"].integer(1, _DAY) if "timeout" in keys else 1800,
        verify_timeout=keys["verify_timeout"].integer(1, _DAY) if "verify_timeout" in keys else 60,
        services=_services(keys["services"]) if "services" in keys else (),
        lines={key: value.line for key, value in keys.items()},
    )


def _ids(value: Value | None, own: str, excluded: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return ()
    for item in value.items():
        text = item.text()
        if not valid_id(text):
            raise item.wrong(f"{text!r} is no migration id", f"write it like {ID_EXAMPLE}")
        if text == own:
            raise item.wrong(f"{value.what} names the migration itself", "leave it out")
        if text in excluded:
            raise item.wrong(f"{text} is in `depends` and in `conflicts`", "choose one of them")
    return value.texts()


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _state_path(item: Value) -> str:
    text = item.text()
    if not text.startswith("/") or ".." in text.split("/"):
        raise item.wrong(
            f"state path {text!r} is not absolute or has `..` in it",
            "write it like /var/lib/postgresql",
        )
    path = posixpath.normpath("/" + text.lstrip("/"))
    for top in FOREIGN:
        if path == "/" or _below(path, top):
            raise item.wrong(
                f"state path {text!r} cannot be state: {top} and / are not a layer's",
                "name the directory that the service keeps its data in",
            )
    for top in SYSTEM:
        if _below(path, top) or _below(top, path):
            raise item.wrong(
                f"state path {text!r} touches {top}, which belongs to the system",
                "packages and files would disagree after a rollback; name a narrower directory",
            )
    return path


def _state(value: Value) -> tuple[str, ...]:
    paths: list[str] = []
    for item in value.items():
        path = _state_path(item)
        for other in paths:
            if _below(path, other) or _below(other, path):
                raise item.wrong(f"state path {path!r} and {other!r} overlap", "keep the outer one")
        paths.append(path)
    return tuple(paths)


def _services(value: Value) -> tuple[Service, ...]:
    services = []
    for name, body in value.mapping().items():
        if not SERVICE_NAME.fullmatch(name):
            raise body.wrong(f"{name!r} is no service name", "write it like postgresql")
        services.append(_service(name, body))
    return tuple(services)


def _service(name: str, body: Value) -> Service:
    keys = body.mapping(_SERVICE_KEYS)
    if "run" not in keys:
        raise body.wrong(f"service `{name}` has no `run`", "add the command that is the service")
    if "check" in keys and "notification_fd" in keys:
        raise keys["check"].wrong(
            "`check` and `notification_fd` exclude each other",
            "keep `check` to poll, or `notification_fd` if the program tells when it is ready",
        )
    return Service(
        name=name,
        run=keys["run"].text(),
        prepare=keys["prepare"].text() if "prepare" in keys else None,
        finish=keys["finish"].text() if "finish" in keys else None,
        user=keys["user"].text(_USER, "postgres") if "user" in keys else None,
        check=keys["check"].text() if "check" in keys else None,
        notification_fd=(keys["notification_fd"].integer(3, 255) if "notification_fd" in keys else None),
        ready_timeout=keys["ready_timeout"].integer(1, _DAY) if "ready_timeout" in keys else 60,
        environment=_environment(keys["environment"]) if "environment" in keys else (),
        down_signal=_signal(keys["down_signal"]) if "down_signal" in keys else None,
        timeout_kill=(keys["timeout_kill"].integer(0, _DAY * 1000) if "timeout_kill" in keys else None),
    )


def _environment(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = []
    for name, body in value.mapping().items():
        if not _VARIABLE.fullmatch(name):
            raise body.wrong(f"{name!r} is no variable name", "write it like PGDATA")
        pairs.append((name, body.any_text()))
    return tuple(pairs)


def _signal(value: Value) -> str:
    text = value.text()
    name = text.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise value.wrong(f"{text!r} is no signal", "write it like SIGINT")
    return f"SIG{name}"
