"""Renders the services of a migration as s6 service directories; it must not touch a machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyinfra_overlaymig.migration import Migration, Service

_READY_FD: Final = 3
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRE_START: Final = """\
# Binds the state that this service works on, before it starts; marks the service as initialized.
set -eu
# Services that share a state path start at the same time.
exec 9>>/run/overlaymig-state.lock
flock 9

bind_state() {
    ! mountpoint -q "$1" || return 0
    mkdir -p "$1"
    if [ ! -d "/data/state$1" ]; then
        mkdir -p "/data/state$1"
        chown --reference="$1" "/data/state$1"
        chmod --reference="$1" "/data/state$1"
    fi
    mount --bind "/data/state$1" "$1"
}

"""


@dataclass(frozen=True)
class File:
    """A file of a service directory; ``path`` is relative to it."""

    path: str
    text: str
    executable: bool = False


def render(migration: Migration, service: Service) -> tuple[File, ...]:
    """The service directory of ``service``, by path. s6-svscan takes a copy of it."""
    return tuple(sorted(_files(migration, service), key=lambda file: file.path))


def _files(migration: Migration, service: Service) -> Iterator[File]:
    name = service.name
    yield _program("pre-start", _pre_start(migration, name))
    yield _program("run", _run(service))
    yield _program("main", service.run)
    yield _program("log/run", f"mkdir -p /data/state/var/log/{name}\nexec s6-log n5 s1000000 T /data/state/var/log/{name}")
    for path, text in (("prepare", service.prepare), ("finish", service.finish), ("data/check", service.check)):
        if text is not None:
            yield _program(path, text)
    ready = _READY_FD if service.check else service.notification_fd
    for path, value in (
        ("notification-fd", ready),
        ("down-signal", service.down_signal),
        ("timeout-kill", service.timeout_kill),
    ):
        if value is not None:
            yield File(path, f"{value}\n")


def _program(path: str, text: str) -> File:
    return File(path, f"#!/bin/sh\n{text}{'' if text.endswith(chr(10)) else chr(10)}", executable=True)


def _pre_start(migration: Migration, name: str) -> str:
    binds = "".join(f"bind_state {shlex.quote(path)}\n" for path in migration.state)
    mark = f"mkdir -p /data/state/services/{name}\n: >>/data/state/services/{name}/initialized\n"
    return f"{_PRE_START}{binds}{mark}"


def _run(service: Service) -> str:
    lines = ["exec 2>&1", _step(service, "./pre-start"), f'PATH="${{PATH:-{_PATH}}}"', "export PATH"]
    if service.user:
        lines += [
            f"HOME=~{service.user} USER={service.user} LOGNAME={service.user}",
            "export HOME USER LOGNAME",
        ]
    for key, value in service.environment:
        lines += [f"{key}={shlex.quote(value)}", f"export {key}"]
    if service.prepare is not None:
        lines.append(_step(service, "./prepare"))
    poll = f"s6-notifyoncheck -d -3 {_READY_FD} -n 0 -s 100 -w 500 -t 5000 " if service.check else ""
    user = f"s6-setuidgid {service.user} " if service.user else ""
    # The check runs in the service directory, the program in /.
    lines.append(f"""exec {poll}sh -c 'cd / && exec "$@"' sh {user}"$(pwd -P)/main\"""")
    return "\n".join(lines)


def _step(service: Service, program: str) -> str:
    return f'{program} || {{ echo "{service.name}: {program} failed with exit $?"; exit 111; }}'
