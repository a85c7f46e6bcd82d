"""What is crashed: each verb that writes, in each situation, as one table, and where an earlier crash cut it off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.modes import Mode
from tests.crash.victim import Done, Strike, Victim

READY = {"check": "true"}
ONE = """
echo one >/etc/one
mkdir -p /var/lib/app/dir; cd /var/lib/app; echo kept >kept; echo gone >gone; ln kept twin; echo in >dir/in
mkdir -p /opt/v1/data; ln -s v1 /opt/cur; echo linked >/opt/v1/data/linked
mkdir -p /srv/pg/15; echo inner >/srv/pg/15/inner; echo conf >/srv/pg/conf; chmod 750 /srv/pg
"""
ONE_MANIFEST: dict[str, Any] = {
    "state": ["/var/lib/app", "/opt/cur/data", "/srv/pg/15"],
    "services": {
        "one": {"run": "exec sleep 1111", **READY},
        "shared": {"run": "exec sleep 3333", **READY},
        "paused": {"run": "exec sleep 5555", **READY},
    },
}
UNTOUCHED = "sshd: /usr/sbin/sshd"
"""A process that no migration here gives a reason to restart."""
TWO = r"""
echo two >/etc/two; rm /etc/issue; echo changed >/etc/one; rm -rf /etc/skel; mkdir /etc/skel; echo new >/etc/skel/new
mkdir /opt/two; cd /opt/two; echo x >"a b"; ln "a b" linked; ln -s /nowhere dangling; mkfifo fifo
printf n >"$(printf 'new\nline')"; chown 12:34 linked; chmod 4750 linked; setfattr -n user.note -v noted linked
echo can >can; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 can
cd /var/lib/app; echo new >new; ln new new.twin; setfattr -n user.note -v noted new
echo changed >kept; ln -f kept twin
rm gone; mkdir -p deep/er; echo d >deep/er/d; rm -rf dir; echo file >dir; chmod 700 .
mkdir -p /var/lib/two; echo s >/var/lib/two/s
mkdir -p /opt/v2/data; ln -sfn v2 /opt/cur; echo more >/opt/v1/data/more
echo outer >/srv/pg/outer; mv /srv/pg/15 /srv/pg/16
"""
EDITED = f"""
cd /var/lib/app; rm -rf new new.twin dir deep; echo gone >gone; cd /
{TWO}
echo edited >/etc/two; echo edited >/var/lib/two/s
"""
TWO_MANIFEST: dict[str, Any] = {
    "state": ["/var/lib/app", "/var/lib/two", "/srv/pg"],
    "stop": ["paused"],
    "snapshot": True,
    "services": {"two": {"run": "exec sleep 2222", **READY}, "shared": {"run": "exec sleep 4444", **READY}},
}


Act = Callable[[Victim, Strike], Done]


def apply(victim: Victim, strike: Strike) -> Done:
    bundle = victim.migration("20250102-001_two", TWO, verify="test -e /etc/two", **TWO_MANIFEST)
    return victim.attempt("apply", "-", strike=strike, stdin=bundle)


def apply_ill(victim: Victim, strike: Strike) -> Done:
    bundle = victim.migration("20250102-002_ill", TWO, verify="exit 1", **TWO_MANIFEST)
    return victim.attempt("apply", "-", strike=strike, stdin=bundle)


def apply_edited(victim: Victim, strike: Strike) -> Done:
    bundle = victim.migration("20250102-001_two", EDITED, verify="test -e /etc/two", **TWO_MANIFEST)
    return victim.attempt("apply", "-", strike=strike, stdin=bundle)


def rollback(victim: Victim, strike: Strike) -> Done:
    return victim.attempt("rollback", "1", strike=strike)


def rollback_with_state(victim: Victim, strike: Strike) -> Done:
    return victim.attempt("rollback", "--restore-state", "1", strike=strike)


def recover(victim: Victim, strike: Strike) -> Done:
    return victim.attempt("recover", strike=strike)


def boot(victim: Victim, strike: Strike) -> Done:
    return victim.attempt_boot(strike)


@dataclass(frozen=True)
class Scenario:
    """``act`` on a machine as it was saved under ``start``; with ``cut``, an earlier act was cut off at that call.

    ``calls``: at least so many does it make, in whatever language. A crash before any of them leaves one of
    ``outcomes``: the first when the verb says that it has failed, the last when it says that it has succeeded.
    """

    start: str
    act: Act
    calls: int
    outcomes: tuple[str, ...]
    cut: tuple[Act, tuple[str, ...]] | None = None
    modes: tuple[Mode, ...] = (Mode.KILL, Mode.POWER, Mode.FAIL, Mode.SPACE)


# Where a verb is cut off is said by what is on disk, see FORMAT.md, and not by how the runner comes to it.
COMMITTED = (r"^rename\w*\(.*/generations/current\)", r"^f(data)?sync\(.*/generations\)")
SEALING = (r"^rename\w*\(.*/staging/20250102-001_two/upper, ",)
TAKING_BACK = (r"^rename\w*\([^,]*/layers/20250102-002_ill, ",)
KILLED = (Mode.KILL, Mode.FAIL, Mode.SPACE)
SCENARIOS = {
    "apply": Scenario("one", apply, 100, ("one", "two")),
    "apply, unhealthy": Scenario("one", apply_ill, 150, ("one",)),
    "apply of a sealed layer": Scenario("back", apply, 50, ("back", "again")),
    "apply of an edited one": Scenario("back", apply_edited, 100, ("back", "edited")),
    "rollback": Scenario("two", rollback, 30, ("two", "back")),
    "rollback with state": Scenario("two", rollback_with_state, 40, ("two", "restored")),
    "recover before the commit": Scenario("one", recover, 10, ("one",), (apply, SEALING), KILLED),
    "recover after the commit": Scenario("one", recover, 40, ("one", "two"), (apply, COMMITTED), KILLED),
    "recover of a revert": Scenario("one", recover, 30, ("one",), (apply_ill, TAKING_BACK), KILLED),
    "recover of a rollback": Scenario("two", recover, 25, ("two", "back"), (rollback, COMMITTED), KILLED),
    "boot": Scenario("two", boot, 40, ("two",)),
    "boot before the commit": Scenario("one", boot, 40, ("one",), (apply, SEALING)),
    "boot after the commit": Scenario("one", boot, 60, ("one", "two"), (apply, COMMITTED)),
    "boot after the commit of an edited one": Scenario("back", boot, 60, ("back", "edited"), (apply_edited, COMMITTED)),
    "boot in a revert": Scenario("one", boot, 40, ("one",), (apply_ill, TAKING_BACK)),
    "boot after a rollback": Scenario("two", boot, 40, ("two", "back"), (rollback, COMMITTED)),
}
