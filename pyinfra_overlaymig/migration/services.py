"""Renders s6 service directories as sh, of migrations and of others; it must run nothing and read nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyinfra_overlaymig.format.paths import LOGS, PATH, SCANDIR
from pyinfra_overlaymig.migration.model import Migration, Service

_HEADER: Final = "#!/bin/sh\n"

_PRE_START: Final = """\
#!/bin/sh
# Binds the state that this service works on, and sees to its owners, before it starts; marks it as initialized.
set -eu
# Services that share a state path start at the same time.
exec 9>>/run/overlaymig-state.lock
flock 9

bind_state() {
    ! mountpoint -q "$1" || return 0
    if [ "$(readlink "$1")" = "/data/state$1" ]; then
        mkdir -p "/data/state$1"
        return
    fi
    mkdir -p "$1"
    # The first time it starts from what the layers have there.
    if [ ! -d "/data/state$1" ]; then
        rm -rf "/data/state$1.new"
        mkdir -p "/data/state${1%/*}"
        cp -a "$1" "/data/state$1.new"
        mv -T "/data/state$1.new" "/data/state$1"
    fi
    mount --bind "/data/state$1" "$1"
}

# Files belong to names, disks keep numbers: where an account that owned something here at the last start has another
# number now, as after a rollback and another order of installations, its files follow. Numbers may have been swapped,
# so all files move to free numbers first; `moving` says that this is done.
owners_follow() {
    record=/data/system/accounts/$(printf '%s' "$1" | sed 's/%/%25/g; s,/,%2f,g')
    # A full disk is no reason to stay down: where nothing has changed, nothing is written to it.
    lists=/run/overlaymig-owners
    mkdir -p /data/system/accounts "$lists"
    { sed 's/^/u:/' /etc/passwd; sed 's/^/g:/' /etc/group; } | awk -F : '{ print $1, $2, $4 }' >"$lists/all"
    if [ -f "$record" ]; then
        [ -f "$record.moving" ] || owners_leave "$1"
        [ ! -f "$record.moving" ] || while read -r kind old new; do
            owners_change "$1" "$kind" "$((old + 1000000000))" "$new"
        done <"$record.moving"
    fi
    find "/data/state$1" -xdev -printf 'u %U\ng %G\n' | sort -u >"$lists/here"
    awk 'NR == FNR { here[$1, $2]; next } ($1, $3) in here' "$lists/here" "$lists/all" >"$lists/new"
    if ! cmp -s "$lists/new" "$record"; then
        cp "$lists/new" "$record.new"
        mv -f "$record.new" "$record"
    fi
    rm -rf "$record.moving" "$lists"
}

owners_leave() {
    awk 'NR == FNR { was[$1, $2] = $3; next } ($1, $2) in was && was[$1, $2] != $3 { print $1, was[$1, $2], $3 }' \
        "$record" "$lists/all" >"$lists/moves"
    [ -s "$lists/moves" ] || return 0
    cp "$lists/moves" "$record.moves"
    while read -r kind old new; do
        echo "$1: what was $kind $old becomes $new"
        owners_change "$1" "$kind" "$old" "$((old + 1000000000))"
    done <"$record.moves"
    mv -f "$record.moves" "$record.moving"
}

owners_change() {
    case $2 in
    u) find "/data/state$1" -xdev -uid "$3" -exec chown -h "$4" {} + ;;
    g) find "/data/state$1" -xdev -gid "$3" -exec chgrp -h "$4" {} + ;;
    esac
}

"""

# A last line `exec PROGRAM`; `exec` with nothing but redirections makes no program of the shell.
_EXEC: Final = re.compile(r"^\s*exec\s+(?![0-9]*[<>&])\S")

# s6-supervise makes the process of a service the leader of its process group, and signals it alone.
_SWEEP: Final = """\
# What the shell that was the service left running ends before the service counts as down.
read -r group _ <group
kill -s {signal} -- "-$group" 2>/dev/null || :
tries={tries}
while kill -0 -- "-$group" 2>/dev/null && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
kill -s KILL -- "-$group" 2>/dev/null || :
"""

# A process is known by its number and the time that it began (field 22 of its stat), as numbers are used again.
_ONE_INSTANCE: Final = """\
# Where s6-supervise itself was killed, what it had started still runs: that ends first, or there would be two.
begun() {{ sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }}
runs() {{ [ "$(begun "$old")" = "$since" ]; }}
if read -r old since 2>/dev/null <group && [ -n "$since" ] && runs; then
    echo "{name}: its process $old of before still runs, and ends first"
    kill -s {signal} -- "{whom}$old" || :
    tries={tries}
    while runs && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    if runs; then kill -s KILL -- "-$old" || :; fi
fi
echo "$$ $(begun "$$")" >group
"""

# The pid of `run` is up for s6, whatever it waits for: ready is what counts.
_WAIT: Final = """\
# What it needs is ready before it starts, whoever starts it, and after a restart of the machine too.
is_ready() {{
    event=-U
    [ -e {scandir}/"$1/notification-fd" ] || event=-u
    # No longer than a second at a time: what is stopped meanwhile must leave nobody waiting, and should say for what.
    s6-svwait -t 1000 "$event" {scandir}/"$1" 2>/dev/null
}}
while read -r need; do
    is_ready "$need" || {{
        echo "{name}: waiting for $need"
        until is_ready "$need"; do sleep 0.2; done
    }}
done <data/needs
"""

# A service that tells nothing is ready when its own program begins, which is after all that it waits for.
_BEGINS: Final = "echo >&3\nexec 3>&-\n"

_PREPARED: Final = """\
if ! ./pre-start >pre-start.said 2>&1; then
    cat pre-start.said
    echo "{name}: ./pre-start failed; it stays down until s6-svc -u"
    tail -n 1 pre-start.said >reason
    exit 111
fi
cat pre-start.said
rm -f reason
"""

_STAY_DOWN: Final = """\
# A pre-start that failed will fail again: it stays down, and `status` says why.
[ ! -f reason ] || exit 125
"""

# Milliseconds that such a process is given, where the service sets no limit itself.
_PATIENCE: Final = 30_000

_LOG_RUN: Final = """\
#!/bin/sh
{one_instance}mkdir -p {folder}
exec s6-log n5 s1000000 T {folder}
"""


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
        yield Rendered("data/needs", "".join(f"{other}\n" for other in sorted(service.needs)), executable=False)
    if _tells_nothing(service):
        yield Rendered("data/begins", "", executable=False)
    for path, script in (
        ("data/check", service.check),
        ("prepare", service.prepare),
        ("finish", _finish(service, pre_start)),
    ):
        if script is not None:
            yield Rendered(path, f"{_HEADER}{script.rstrip()}\n", executable=True)
    for path, setting in (
        ("notification-fd", service.notification_fd or 3),
        ("timeout-finish", (_tries(service) * 100 + 10_000) if _stays_a_shell(service) else None),
        ("down-signal", service.down_signal),
        ("timeout-kill", service.timeout_kill),
        ("max-death-tally", service.max_death_tally),
    ):
        if setting is not None:
            yield Rendered(path, f"{setting}\n", executable=False)


def _main(service: Service) -> str:
    """The service must be its process, as s6 signals that: `exec` goes before a single command."""
    text = service.run.strip()
    add_exec = not _ends_in_exec(text) and _is_one_command(text)
    return f"{_HEADER}{'exec ' if add_exec else ''}{text}\n"


def _finish(service: Service, pre_start: str | None) -> str | None:
    sweep = _SWEEP.format(signal=_signal(service), tries=_tries(service)) if _stays_a_shell(service) else None
    stay_down = _STAY_DOWN if pre_start is not None else None
    return "\n".join(filter(None, (stay_down, sweep, service.finish))) or None


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
    paths = [shlex.quote(path) for path in sorted(migration.state)]
    binds = "".join(f"bind_state {path}\nowners_follow {path}\n" for path in paths)
    marker = f"/data/state/services/{service.name}"
    return f"{_PRE_START}{binds}mkdir -p {marker}\n: >>{marker}/initialized\n"


def _step(name: str, path: str, before: str = "") -> str:
    """A line that runs one script before the service, and says so when it fails."""
    return f'{before}{path} || {{ echo "{name}: {path} failed with exit $?"; exit 111; }}\n'


def _run(service: Service, pre_start: str | None, scandir: str) -> str:
    lines = [f"{_HEADER}exec 2>&1\n", _one_instance(service)]
    if service.needs:
        lines.append(_WAIT.format(name=service.name, scandir=shlex.quote(scandir)))
    if pre_start is not None:
        lines.append(_PREPARED.format(name=service.name))
    lines.append(f'PATH="${{PATH:-{PATH}}}"\nexport PATH\n')
    if service.user:
        who = service.user
        lines.append(f"HOME=~{who} USER={who} LOGNAME={who}\nexport HOME USER LOGNAME\n")
    with_environment = "s6-envdir -fL env " if service.environment else ""
    if service.prepare:
        lines.append(_step(service.name, "./prepare", with_environment))
    if _tells_nothing(service):
        lines.append(_BEGINS)
    lines.append(f"exec {with_environment}{_program(service)}\n")
    return "".join(lines)


def _one_instance(service: Service) -> str:
    return _ONE_INSTANCE.format(
        name=service.name,
        signal=_signal(service),
        whom="-" if _stays_a_shell(service) else "",
        tries=_tries(service),
    )


def _signal(service: Service) -> str:
    return (service.down_signal or "SIGTERM").removeprefix("SIG")


def _tries(service: Service) -> int:
    """How often it is looked after, each tenth of a second, before it is killed."""
    return (service.timeout_kill or _PATIENCE) // 100 + 1


def _log_run(service: Service, folder: str) -> str:
    logger = Service(f"{service.name}/log", run="s6-log")
    return _LOG_RUN.format(one_instance=_one_instance(logger), folder=shlex.quote(folder))


def _program(service: Service) -> str:
    """The last command of `run`: polls from the service directory, then leaves it for `/`."""
    notify = "s6-notifyoncheck -d -3 3 -n 0 -s 100 -w 500 -t 5000 " if service.check else ""
    user = f"s6-setuidgid {service.user} " if service.user else ""
    return f"""{notify}sh -c 'cd / && exec "$@"' sh {user}"$(pwd -P)/main\""""
