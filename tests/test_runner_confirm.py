"""Confirmation: after a switch a new connection has to reach the machine, or it goes back by itself."""

from __future__ import annotations

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig
from tests.test_runner_boot import settled

ID = "20250101-001_one"


def apply(rig: Rig, seconds: str) -> int:
    bundle = rig.migration(ID, "echo one >/etc/one", services={"one": {"run": "exec sleep 1111"}})
    result = rig.run(RUNNER, "apply", "--confirm", seconds, "-", stdin=bundle)
    assert "waiting up to" in result.out or result.code != 0
    return result.code


def ended(rig: Rig) -> None:
    """Wait until nobody holds the lock."""
    rig.sh("flock -s -w 30 /data/system/lock/flock true")


def test_confirmed_migration_is_applied(fresh: Rig) -> None:
    """The command returns while the machine waits; `confirm` waits for the end and has its exit code."""
    assert apply(fresh, "30") == 0
    status = fresh.status()
    assert status.migrations[0].status == "committed"
    assert status.lock
    assert (status.lock.verb, status.lock.id, status.lock.awaits) == ("apply", ID, "confirmation")
    result = fresh.run(RUNNER, "confirm")
    assert result.code == 0, result.text
    assert "confirmed: generation 1 is running" in result.out
    assert fresh.status().migrations[0].status == "applied"
    assert fresh.run(RUNNER, "confirm").code == 0


def test_unconfirmed_migration_is_taken_back(fresh: Rig) -> None:
    """Nobody comes: the machine is as it was, keeps the evidence, and says so to who comes too late."""
    before = fresh.tree()
    assert apply(fresh, "1") == 0
    ended(fresh)
    assert {line for line in fresh.tree() ^ before if not line.isdigit()} == set()
    assert [(one.id, one.why) for one in fresh.status().evidence] == [(ID, "unconfirmed")]
    assert "no new connection came within 1 s" in fresh.sh(f"cat /data/system/staging/{ID}/log")
    late = fresh.run(RUNNER, "confirm")
    assert late.code == 9
    assert "taken back: the machine is as it was before" in late.err


def test_what_awaited_a_confirmation_and_was_killed_awaits_none(fresh: Rig) -> None:
    """Whoever holds the lock after it is not taken for it, and it is taken back."""
    assert apply(fresh, "60") == 0
    fresh.sh("pkill -KILL -f '[a]pply --confirm'; until flock -n /data/system/lock/flock true; do sleep 0.05; done")
    assert fresh.status().lock is None
    assert fresh.run(RUNNER, "recover").code == 0
    assert fresh.status().stack == ()
    fresh.sh("(flock 9; sleep 5) 9>>/data/system/lock/flock >/dev/null 2>&1 &")
    fresh.sh("while flock -n /data/system/lock/flock true; do sleep 0.05; done")
    lock = fresh.status().lock
    assert lock
    assert lock.awaits == ""


def test_machine_that_restarts_unconfirmed_is_as_before(fresh: Rig) -> None:
    """Whoever resets a machine that is out of reach gets the one before."""
    assert apply(fresh, "60") == 0
    lab.restart(fresh.lab, fresh.name)
    settled(fresh)
    assert fresh.status().generation == 0
    fresh.sh("test ! -e /etc/one")
    assert [(one.id, one.why) for one in fresh.status().evidence] == [(ID, "unconfirmed")]


def test_rollback_is_confirmed_too(fresh: Rig) -> None:
    """Going to another generation can cut a machine off as well."""
    assert apply(fresh, "30") == 0
    assert fresh.run(RUNNER, "confirm").code == 0
    assert fresh.run(RUNNER, "rollback", "--confirm", "1", "0").code == 0
    ended(fresh)
    assert fresh.status().stack == (ID,)
    assert [one.name for one in fresh.status().services if one.ready] == ["one", "sshd"]
    assert fresh.run(RUNNER, "rollback", "--confirm", "30", "0").code == 0
    assert fresh.run(RUNNER, "confirm").code == 0
    assert fresh.status().stack == ()
    assert fresh.run(RUNNER, "rollback", "--confirm", "soon", "1").code == 100


def test_verify_is_tried_again(fresh: Rig) -> None:
    """A health check may be given several tries; the last one decides."""
    verify = "n=$(cat /run/tries 2>/dev/null || echo 0); echo $((n + 1)) >/run/tries; [ $n -ge 2 ]"
    assert fresh.apply("20250101-001_tries", "echo x >/etc/x", verify=verify, verify_retries=1).code == 9
    fresh.sh("rm /run/tries")
    assert fresh.apply("20250101-001_tries", "echo x >/etc/x", verify=verify, verify_retries=2).code == 0
