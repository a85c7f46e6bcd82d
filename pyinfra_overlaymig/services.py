"""Renders the s6 service directories of a migration as sh; it must run nothing and read nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyinfra_overlaymig.migration import Migration, Service

_HEADER: Final = "#!/bin/sh\n"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PRE_START: Final = """\
#!/bin/sh
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

# A last line `exec PROGRAM`; `exec` with nothing but redirections makes no program of the shell.
_EXEC: Final = re.compile(r"^\s*exec\s+(?![0-9]*[<>&])\S")

# s6-supervise makes the process of a service the leader of its process group, and signals it alone.
_SWEEP: Final = """\
# Ends what the shell that was the service left running.
read -r group <group
kill -TERM "-$group" 2>/dev/null || :
"""

_LOG_RUN: Final = """\
#!/bin/sh
mkdir -p /data/state/var/log/{name}
exec s6-log n5 s1000000 T /data/state/var/log/{name}
"""


@dataclass(frozen=True)
class Rendered:
    """A file of a service directory; ``path`` is relative to it."""

    path: str
    text: str
    executable: bool


def render(migration: Migration, service: Service) -> tuple[Rendered, ...]:
    """The service directory of ``service``, sorted by path."""
    return tuple(sorted(_files(migration, service), key=lambda file: file.path))


def _files(migration: Migration, service: Service) -> Iterator[Rendered]:
    yield Rendered("run", _run(service), executable=True)
    yield Rendered("main", _main(service), executable=True)
    yield Rendered("pre-start", _pre_start(migration, service), executable=True)
    yield Rendered("log/run", _LOG_RUN.format(name=service.name), executable=True)
    for path, script in (
        ("data/check", service.check),
        ("prepare", service.prepare),
        ("finish", _finish(service)),
    ):
        if script is not None:
            yield Rendered(path, f"{_HEADER}{script.rstrip()}\n", executable=True)
    for path, value in (
        ("notification-fd", 3 if service.check else service.notification_fd),
        ("down-signal", service.down_signal),
        ("timeout-kill", service.timeout_kill),
    ):
        if value is not None:
            yield Rendered(path, f"{value}\n", executable=False)


def _main(service: Service) -> str:
    """The service must be its process, as s6 signals that: `exec` goes before a single command."""
    text = service.run.strip()
    add_exec = not _ends_in_exec(text) and _is_one_command(text)
    return f"{_HEADER}{'exec ' if add_exec else ''}{text}\n"


def _finish(service: Service) -> str | None:
    sweep = _SWEEP if _stays_a_shell(service) else None
    return "\n".join(filter(None, (sweep, service.finish))) or None


def _stays_a_shell(service: Service) -> bool:
    text = service.run.strip()
    return not _ends_in_exec(text) and not _is_one_command(text)


def _ends_in_exec(text: str) -> bool:
    *_, last = text.replace("\\\n", " ").splitlines() or [""]
    return bool(_EXEC.match(last)) and not re.search(r"[;&|]", last)


def _is_one_command(text: str) -> bool:
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.commenters = ""
    try:
        tokens = list(words)
    except ValueError:
        return False
    one_line = "\n" not in text.replace("\\\n", " ")
    operators = any(set(token) <= set(";&|()") for token in tokens)
    return one_line and not operators and "=" not in tokens[0]


def _pre_start(migration: Migration, service: Service) -> str:
    binds = "".join(f"bind_state {shlex.quote(path)}\n" for path in sorted(migration.state))
    marker = f"/data/state/services/{service.name}"
    return f"{_PRE_START}{binds}mkdir -p {marker}\n: >>{marker}/initialized\n"


def _step(name: str, path: str) -> str:
    """A line that runs one script before the service, and says so when it fails."""
    return f'{path} || {{ echo "{name}: {path} failed with exit $?"; exit 111; }}\n'


def _run(service: Service) -> str:
    lines = [f"{_HEADER}exec 2>&1\n", _step(service.name, "./pre-start")]
    lines.append(f'PATH="${{PATH:-{_PATH}}}"\nexport PATH\n')
    if service.user:
        who = service.user
        lines.append(f"HOME=~{who} USER={who} LOGNAME={who}\nexport HOME USER LOGNAME\n")
    for name, value in service.environment:
        lines.append(f"export {name}={shlex.quote(value)}\n")
    if service.prepare:
        lines.append(_step(service.name, "./prepare"))
    if _stays_a_shell(service):
        lines.append('echo "$$" >group\n')
    lines.append(f"exec {_program(service)}\n")
    return "".join(lines)


def _program(service: Service) -> str:
    """The last command of `run`: polls from the service directory, then leaves it for `/`."""
    notify = "s6-notifyoncheck -d -3 3 -n 0 -s 100 -w 500 -t 5000 " if service.check else ""
    user = f"s6-setuidgid {service.user} " if service.user else ""
    return f"""{notify}sh -c 'cd / && exec "$@"' sh {user}"$(pwd -P)/main\""""
