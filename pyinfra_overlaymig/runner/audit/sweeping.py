"""What sessions leave behind whose runners were killed: their rules, a daemon that was theirs, half-made captures."""

from __future__ import annotations

import os
from contextlib import suppress

from pyinfra_overlaymig.format.paths import CAPTURES
from pyinfra_overlaymig.runner import files, spawn
from pyinfra_overlaymig.runner.audit import auditd, rules, shared
from pyinfra_overlaymig.runner.audit.netlink import Audit


def sweep() -> None:
    """Deletes rules of sessions that are over, and ends a daemon of ours that nobody needs.

    Rules of others are not ours: they have another key. A capture may run meanwhile.
    """
    for name in files.names(CAPTURES):
        maker = name.rpartition(".")[2]
        if name.startswith(".") and maker.isdigit() and not spawn.lives(int(maker)):
            files.drop(f"{CAPTURES}/{name}")
    auditd.end()
    if shared.there():
        return
    # Where there is no audit, or not for this process, there is nothing of ours.
    with suppress(OSError), Audit() as audit:
        if any(rules.ours(rule) for rule in audit.rules()):
            alive = living()
            rules.end(audit, lambda session: session not in alive)


def living() -> set[int]:
    """The sessions that have processes."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := files.read(f"/proc/{name}/sessionid")):
            found.add(int(text))
    return found
