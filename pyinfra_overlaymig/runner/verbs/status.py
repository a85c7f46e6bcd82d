"""status: all about this machine as one JSON document. Takes no lock, changes nothing, always prints, exits 0.

What cannot be read is told as a machine of which nothing is known: it must not look like one that has nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

from pyinfra_overlaymig.format import FORMAT, history, lines, octal, readiness
from pyinfra_overlaymig.format.paths import AWAITED, LIVE, RUN, SCANDIR, SERVICES, STAGING
from pyinfra_overlaymig.runner import base, capabilities, fallback, files, lock, metadata, s6, store
from pyinfra_overlaymig.runner.audit import auditd
from pyinfra_overlaymig.runner.say import answer, explain, usage
from pyinfra_overlaymig.runner.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DOWN = {"up": False, "ready": False, "pid": -1, "wanted_up": True}


def main(arguments: list[str]) -> int:
    if arguments:
        raise usage("status takes no arguments", "system-migrate status")
    try:
        document = _document()
    except Exception as error:  # noqa: BLE001 - whatever it is, who asks is told that it is not known
        explain(error)
        document = {"known": False, "format": FORMAT}
    answer(json.dumps(document, separators=(",", ":")) + "\n")
    return 0


def _document() -> dict[str, Any]:
    current = store.current()
    past = metadata.read(current)
    booted = capabilities.booted()
    return {
        **_machine(),
        "booted": booted,
        "generation": current,
        "running": store.running(),
        "failed_boots": fallback.failed_boots(current),
        "stack": list(store.stack(current)),
        "generations": history.tell_generations(past.generations),
        "migrations": history.tell_migrations(past.migrations),
        "broken": store.broken({one.n: one.stack for one in past.generations}),
        "evidence": _evidence(),
        "services": _services(past.migrations),
        "defined": s6.directories(f"{LIVE}/{SERVICES}"),
        "stale": _stale(),
        "lock": _lock(),
        "audit": auditd.state(),
        "missing": capabilities.missing(),
        "unfit": capabilities.unfit(is_booted=booted),
    }


def _machine() -> dict[str, Any]:
    about = os.uname()
    return {
        "format": FORMAT,
        "runner": {"version": VERSION, "digest": files.first_line(f"{sys.path[0]}/digest")},
        "host": re.sub(r"[^A-Za-z0-9._-]", "", about.nodename),
        "boot_id": files.first_line("/proc/sys/kernel/random/boot_id"),
        "kernel": re.sub(r"[^A-Za-z0-9._+-]", "", about.release),
        "base": base.identity(capabilities.root()),
    }


def _evidence() -> list[dict[str, Any]]:
    """What is kept of migrations that failed; not what is just being removed."""
    found = []
    for id in files.names(STAGING):
        if id.endswith(".new") or id.startswith("."):
            continue
        if text := files.read(f"{STAGING}/{id}/failed"):
            one = dict(lines.pairs(text))
            found.append({"id": id, "failed_at": one.get("failed_at", ""), "exit": one.get("exit", "")})
    return found


def _services(migrations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is supervised, and what the current generation promises but nobody supervises."""
    names = [name for name in files.names(SCANDIR) if not name.startswith(".")]
    found = [_service(name) for name in names if os.path.isdir(f"{SCANDIR}/{name}/supervise")]
    there = {one["name"] for one in found}
    promised = {name for one in migrations if one["active"] for name in one["services"]} - there
    return found + [{"name": name, **_DOWN, "since": 0, "reason": ""} for name in sorted(promised)]


def _service(name: str) -> dict[str, Any]:
    """One service, as s6 tells. One that announces no readiness is ready when it is up."""
    directory = f"{SCANDIR}/{name}"
    one = s6.read(directory)
    if one is None:
        return {"name": name, **_DOWN, "since": int(time.time()), "reason": _reason(directory)}
    return {
        "name": name,
        "up": one.up,
        "ready": readiness.is_ready(up=one.up, told=one.ready, tells=os.path.isfile(f"{directory}/{readiness.TELLS}")),
        "pid": one.pid or -1,
        "wanted_up": one.wanted_up,
        "since": int(one.since),
        "reason": "" if one.up else _reason(directory),
    }


def _reason(directory: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ._/:@=+,()-]", "", files.read(f"{directory}/{readiness.REASON}"))


def _stale() -> list[dict[str, Any]]:
    """Processes that hold what a switch took away."""
    if not files.read(f"{RUN}/stale"):
        return []
    from pyinfra_overlaymig.runner import bindings

    return [
        {"pid": one.pid, "name": octal.escape_text(one.name), "what": one.what, "path": octal.escape_text(one.path)}
        for one in bindings.told()
    ]


def _lock() -> dict[str, Any] | None:
    if lock.free():
        return None
    one = lock.owner()
    pid = int(one.pid) if one.pid.isdecimal() else 0
    rest = dict(zip(one._fields[3:], one[3:], strict=True))
    awaits = "confirmation" if files.there(AWAITED) else ""
    return {"who": one.who, "from": one.source, "pid": pid, **rest, "awaits": awaits}
