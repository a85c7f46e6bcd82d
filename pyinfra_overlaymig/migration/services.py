"""Renders s6 service directories, of migrations and of others; the scripts in them are files in s6/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyinfra_overlaymig.format.paths import LOGS, PATH, SCANDIR
from pyinfra_overlaymig.format.readiness import BEGINS, FIRST_CHECK, NEEDS, NEXT_CHECK, TELLS
from pyinfra_overlaymig.migration.model import Migration, Service
from pyinfra_overlaymig.migration.scripts import script

_HEADER: Final = "#!/bin/sh\n"

# A last line `exec PROGRAM`; `exec` with nothing but redirections makes no program of the shell.
_EXEC: Final = re.compile(r"^\s*exec\s+(?![0-9]*[<>&])\S")

# Asks as often as it takes, each time for no longer than five seconds.
_NOTIFY: Final = f"s6-notifyoncheck -d -3 3 -n 0 -s {FIRST_CHECK} -w {NEXT_CHECK} -t 7000 "

# Milliseconds that such a process is given, where the service sets no limit itself.
_PATIENCE: Final = 30_000


@dataclass(frozen=True)
class Rendered:
    """A file of a service directory; ``path`` is relative to it."""

    path: str
    text: str
    executable: bool

    @property
    def mode(self) -> int:
        """Permission bits; the environment may hold secrets."""
        return 0o600 if self.path.startswith("env/") else 0o755 if self.executable else 0o644


def render(migration: Migration, service: Service) -> tuple[Rendered, ...]:
    """The service directory of a migration's service, sorted by path."""
    return _sorted(_files(service, f"{LOGS}/{service.name}", _pre_start(migration, service)))


def render_alone(service: Service, log: str | None, scandir: str = SCANDIR) -> tuple[Rendered, ...]:
    """The service directory of a service that no migration brings, sorted by path; ``log``: folder for its output."""
    return _sorted(_files(service, log, None, scandir))


def _sorted(files: Iterator[Rendered]) -> tuple[Rendered, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _files(service: Service, log: str | None, pre_start: str | None, scandir: str = SCANDIR) -> Iterator[Rendered]:
    yield Rendered("run", _run(service, pre_start, scandir), executable=True)
    yield Rendered("main", _main(service), executable=True)
    if pre_start is not None:
        yield Rendered("pre-start", pre_start, executable=True)
    if log is not None:
        yield Rendered("log/run", _log_run(service, log), executable=True)
    for name, value in service.environment:
        yield Rendered(f"env/{name}", f"{value}\n", executable=False)
    if service.needs:
        yield Rendered(NEEDS, "".join(f"{other}\n" for other in sorted(service.needs)), executable=False)
    if _tells_nothing(service):
        yield Rendered(BEGINS, "", executable=False)
    at_its_limit = service.check and script("check.sh", {"NAME": service.name}).removeprefix(_HEADER)
    for path, own in (("data/check", at_its_limit), ("check", service.check), ("prepare", service.prepare)):
        if own is not None:
            yield Rendered(path, f"{_HEADER}{own.rstrip()}\n", executable=True)
    finish = _finish(service, pre_start)
    if finish is not None:
        yield Rendered("finish", finish, executable=True)
    for path, setting in _settings(service):
        yield Rendered(path, f"{setting}\n", executable=False)


def _settings(service: Service) -> Iterator[tuple[str, object]]:
    """What s6 itself reads: names of files with one line, and that."""
    yield TELLS, service.notification_fd or 3
    if _stays_a_shell(service):
        yield "timeout-finish", _tries(service) * 100 + 10_000
    if service.down_signal is not None:
        yield "down-signal", service.down_signal
    if service.timeout_kill is not None:
        yield "timeout-kill", service.timeout_kill
    if service.max_death_tally is not None:
        yield "max-death-tally", service.max_death_tally


def _main(service: Service) -> str:
    """The service must be its process, as s6 signals that: `exec` goes before a single command."""
    text = service.run.strip()
    add_exec = not _ends_in_exec(text) and _is_one_command(text)
    return f"{_HEADER}{'exec ' if add_exec else ''}{text}\n"


def _finish(service: Service, pre_start: str | None) -> str | None:
    """What s6 runs when it ended; nothing where there is nothing to do."""
    asked = {"stay-down": pre_start is not None, "check": bool(service.check), "sweep": _stays_a_shell(service)}
    parts = _asked(asked)
    if not parts:
        return f"{_HEADER}{service.finish.rstrip()}\n" if service.finish is not None else None
    fields = {"SIGNAL": _signal(service), "TRIES": f"{_tries(service)}", "NAME": service.name}
    text = script("finish.sh", fields, parts)
    return "\n".join(filter(None, (text, service.finish))).rstrip() + "\n"


def _asked(parts: dict[str, bool]) -> list[str]:
    return [part for part, asked in parts.items() if asked]


def _tells_nothing(service: Service) -> bool:
    return not service.check and not service.notification_fd


def _stays_a_shell(service: Service) -> bool:
    text = service.run.strip()
    return not _ends_in_exec(text) and not _is_one_command(text)


def _ends_in_exec(text: str) -> bool:
    *_, last = text.replace("\\\n", " ").splitlines() or [""]
    return bool(_EXEC.match(last)) and _is_one_command(last)


def _is_one_command(text: str) -> bool:
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.commenters = ""
    try:
        tokens = list(words)
    except ValueError:
        return False
    one_line = "\n" not in text.replace("\\\n", " ")
    operators = any(token and set(token) <= set(";&|()") for token in tokens)
    return one_line and not operators and "=" not in tokens[0]


def _pre_start(migration: Migration, service: Service) -> str:
    state = " ".join(shlex.quote(path) for path in sorted(migration.state))
    return script("pre-start.sh", {"STATE": state, "NAME": service.name})


def _run(service: Service, pre_start: str | None, scandir: str) -> str:
    """It ends in the service: polls from the service directory, and leaves it for `/`."""
    fields = _instance(service) | {
        "SCANDIR": shlex.quote(scandir),
        "PATH": PATH,
        "USER": service.user or "",
        "ENVIRONMENT": "s6-envdir -fL env " if service.environment else "",
        "NOTIFY": _NOTIFY if service.check else "",
        "SETUID": f"s6-setuidgid {service.user} " if service.user else "",
    }
    parts = {
        "needs": bool(service.needs),
        "pre-start": pre_start is not None,
        "user": bool(service.user),
        "prepare": bool(service.prepare),
        "begins": _tells_nothing(service),
    }
    return script("run.sh", fields, _asked(parts))


def _instance(service: Service) -> dict[str, str]:
    """The fields of one-instance.sh."""
    return {
        "NAME": service.name,
        "SIGNAL": _signal(service),
        # s6-supervise makes the process of a service the leader of its process group, and signals it alone.
        "WHOM": "-" if _stays_a_shell(service) else "",
        "TRIES": f"{_tries(service)}",
    }


def _signal(service: Service) -> str:
    return (service.down_signal or "SIGTERM").removeprefix("SIG")


def _tries(service: Service) -> int:
    """How often it is looked after, each tenth of a second, before it is killed."""
    return (service.timeout_kill or _PATIENCE) // 100 + 1


def _log_run(service: Service, folder: str) -> str:
    logger = Service(f"{service.name}/log", run="s6-log")
    return script("log-run.sh", _instance(logger) | {"FOLDER": shlex.quote(folder)})
