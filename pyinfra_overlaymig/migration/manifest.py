"""The schema of migration.yaml: every key, its form and its default; it must read nothing else."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml

from pyinfra_overlaymig.format import rules
from pyinfra_overlaymig.format.ids import ID_EXAMPLE, why_no_id
from pyinfra_overlaymig.migration.document import Value, read
from pyinfra_overlaymig.migration.interpreters import sh_trouble
from pyinfra_overlaymig.migration.model import Service

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_MODE = re.compile("0?[0-7]{3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MANIFEST_KEYS = (
    "description",
    "depends",
    "conflicts",
    "state",
    "state_links",
    "stop",
    "snapshot",
    "drift",
    "audit",
    "timeout",
    "verify_timeout",
    "verify_retries",
    "modes",
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
    "max_death_tally",
    "needs",
    "restart",
)


@dataclass(frozen=True)
class Manifest:
    """What migration.yaml says; the fields are those of ``Migration``, and modes by paths from the root."""

    description: str
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    state_links: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    snapshot: bool = False
    drift: str = "refuse"
    audit: str = "wanted"
    timeout: int = 1800
    verify_timeout: int = 60
    verify_retries: int = 0
    modes: dict[str, int] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    lines: dict[str, int] = field(default_factory=dict, compare=False)


def service_of(name: str, arguments: Mapping[str, object]) -> Service:
    """A service given by a program instead of a file; InvalidMigration says what is wrong with it."""
    text = yaml.safe_dump({name: dict(arguments)})
    node = cast("yaml.Node", yaml.compose(text, Loader=yaml.SafeLoader))
    (service,) = _services(Value(node, Path("arguments"), "the service"))
    return service


def load_manifest(file: Path, id: str) -> Manifest:
    """The manifest in ``file``, of the migration ``id``; InvalidMigration says what is wrong."""
    top = read(file, "the manifest", "every migration has one, with at least a description")
    keys = top.mapping(_MANIFEST_KEYS)
    if "description" not in keys:
        raise top.wrong("`description` is missing", "add `description: what it is for`")
    return Manifest(
        description=keys["description"].line_of_text(),
        depends=_ids(keys.get("depends"), id, ()),
        conflicts=_ids(keys.get("conflicts"), id, _ids(keys.get("depends"), id, ())),
        state=_state(keys["state"]) if "state" in keys else (),
        state_links=_state_links(keys),
        stop=keys["stop"].texts(rules.SERVICE_NAME, "postgresql") if "stop" in keys else (),
        snapshot=_snapshot(keys),
        drift=_choice(keys["drift"], rules.DRIFT) if "drift" in keys else "refuse",
        audit=_choice(keys["audit"], rules.AUDIT) if "audit" in keys else "wanted",
        timeout=keys["timeout"].integer(1, rules.DAY) if "timeout" in keys else 1800,
        verify_timeout=keys["verify_timeout"].integer(1, rules.DAY) if "verify_timeout" in keys else 60,
        verify_retries=keys["verify_retries"].integer(0, 1000) if "verify_retries" in keys else 0,
        modes=_modes(keys["modes"]) if "modes" in keys else {},
        services=_services(keys["services"]) if "services" in keys else (),
        lines=dict(_lines(keys)),
    )


def _ids(value: Value | None, own: str, excluded: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return ()
    for item in value.items():
        text = item.text()
        if why := why_no_id(text):
            raise item.wrong(f"{text!r} is no migration id: {why}", f"write it like {ID_EXAMPLE}")
        if text == own:
            raise item.wrong(f"{value.what} names the migration itself", "leave it out")
        if text in excluded:
            raise item.wrong(f"{text} is in `depends` and in `conflicts`", "choose one of them")
    return value.texts()


def _snapshot(keys: dict[str, Value]) -> bool:
    if "snapshot" not in keys:
        return False
    wanted = keys["snapshot"].boolean()
    if wanted and "state" not in keys:
        raise keys["snapshot"].wrong("`snapshot` needs `state`", "name the state paths that it is to be taken of")
    return wanted


def _choice(value: Value, known: tuple[str, ...]) -> str:
    text = value.text()
    if text not in known:
        raise value.wrong(f"{value.what} is {text!r}", f"write one of {', '.join(known)}")
    return text


def _lines(keys: dict[str, Value]) -> Iterator[tuple[str, int]]:
    """The line of each key, and of each name of something that another migration may have to bring."""
    for key, value in keys.items():
        yield key, value.line
        if key == "modes":
            yield from ((f"modes {path.strip('/')}", body.line) for path, body in value.mapping().items())
        if key in ("depends", "conflicts"):
            yield from ((f"{key} {item.text()}", item.line) for item in value.items())
    services = keys["services"].mapping() if "services" in keys else {}
    for name, body in services.items():
        needs = body.mapping().get("needs")
        for item in needs.items() if needs else ():
            yield f"{name} needs {item.text()}", item.line


def _modes(value: Value) -> dict[str, int]:
    modes: dict[str, int] = {}
    for name, body in value.mapping().items():
        path = name.strip("/")
        if not rules.inside(path) or path in modes:
            raise body.wrong(f"{name!r} is no path of a file, or is there twice", "write it like /etc/demo/secret")
        text = body.text(_MODE, '"0600"')
        modes[path] = int(text, 8)
    return modes


def _state(value: Value) -> tuple[str, ...]:
    paths: list[str] = []
    for item in value.items():
        trouble = rules.state_trouble(item.text())
        if trouble:
            raise item.wrong(*trouble)
        paths.append(rules.state_path(item.text()))
        over = rules.overlap(paths)
        if over:
            raise item.wrong(f"state path {over[0]!r} and {over[1]!r} overlap", "keep the outer one")
    return tuple(paths)


def _state_links(keys: dict[str, Value]) -> tuple[str, ...]:
    if "state_links" not in keys:
        return ()
    declared = _state(keys["state"]) if "state" in keys else ()
    links = _state(keys["state_links"])
    for item, path in zip(keys["state_links"].items(), links, strict=True):
        if path not in declared:
            raise item.wrong(f"{path!r} is a state link and no state path", "name it under `state` as well")
    return links


def _services(value: Value) -> tuple[Service, ...]:
    services = []
    for name, body in value.mapping().items():
        if not rules.SERVICE_NAME.fullmatch(name):
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
        run=_sh(keys["run"]),
        prepare=_sh(keys["prepare"]) if "prepare" in keys else None,
        finish=_sh(keys["finish"]) if "finish" in keys else None,
        user=keys["user"].text(_USER, "postgres") if "user" in keys else None,
        check=_sh(keys["check"]) if "check" in keys else None,
        notification_fd=(keys["notification_fd"].integer(3, 255) if "notification_fd" in keys else None),
        ready_timeout=keys["ready_timeout"].integer(1, rules.DAY) if "ready_timeout" in keys else 60,
        environment=_environment(keys["environment"]) if "environment" in keys else (),
        down_signal=_signal(keys["down_signal"]) if "down_signal" in keys else None,
        timeout_kill=(keys["timeout_kill"].integer(0, rules.DAY * 1000) if "timeout_kill" in keys else None),
        max_death_tally=(keys["max_death_tally"].integer(1, 4096) if "max_death_tally" in keys else None),
        needs=_needs(keys["needs"], name) if "needs" in keys else (),
        restart=_choice(keys["restart"], rules.RESTART) if "restart" in keys else "changed",
    )


def _sh(value: Value) -> str:
    text = value.text()
    trouble = sh_trouble(text)
    if trouble:
        raise value.wrong(f"{value.what} is no sh as it stands: {trouble}", "look for what is not closed before that")
    return text


def _needs(value: Value, own: str) -> tuple[str, ...]:
    for item in value.items():
        if item.text() == own:
            raise item.wrong(f"service `{own}` needs itself", "leave it out")
    return value.texts(rules.SERVICE_NAME, "postgresql")


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
