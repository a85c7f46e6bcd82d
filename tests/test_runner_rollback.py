"""Rollback: any kept generation runs again, live, without a script; history only grows."""

from __future__ import annotations

import pytest

from pyinfra_overlaymig import lab
from tests.crash.victim import Strike, Victim
from tests.rig import RUNNER, Rig

WEB = {"web": {"run": "exec sleep 1111"}}
CHANGED = {"web": {"run": "exec sleep 2222"}}


@pytest.fixture
def three(fresh: Rig) -> Rig:
    """Generations 1 to 3: a file, a service with state, the service changed."""
    assert fresh.apply("20250101-001_one", "echo one >/etc/one").code == 0
    state = ["/var/lib/web"]
    script = "mkdir -p /var/lib/web; echo s >/var/lib/web/s; rm /etc/issue"
    assert fresh.apply("20250102-001_web", script, services=WEB, state=state).code == 0
    assert fresh.apply("20250103-001_web", "echo three >/etc/three", services=CHANGED).code == 0
    return fresh


def test_back_and_forward_gives_the_same_tree(three: Rig) -> None:
    """Going back to each generation and forward again gives the same files; scripts do not run again."""
    before = three.tree()
    for target in ("1", "0", "20250102-001_web", "3"):
        result = three.run(RUNNER, "rollback", target)
        assert result.code == 0, result.text
        assert "install script" not in result.text
    after = {line for line in three.tree() ^ before if not line.isdigit()}
    assert after == set()
    status = three.status()
    assert status.generation == status.running == 7
    assert [one.n for one in status.generations] == [1, 2, 3, 4, 5, 6, 7]


def test_services_follow_the_generation(three: Rig) -> None:
    """Services that the earlier generation lacks go, with their mounts; those it defines otherwise are as it says."""
    assert "sleep 2222" in three.sh("ps ax -o args")
    sshd = three.status().service("sshd")
    assert three.run(RUNNER, "rollback", "20250102-001_web").code == 0
    processes = three.sh("sleep 0.5; ps ax -o args")
    assert "sleep 1111" in processes
    assert "sleep 2222" not in processes
    assert three.run(RUNNER, "rollback", "1").code == 0
    three.sh("test ! -e /var/lib/web/s; test -e /data/state/var/lib/web/s; test -e /etc/issue; test ! -e /etc/three")
    assert [one.name for one in three.status().services] == ["sshd"]
    again = three.status().service("sshd")
    assert sshd
    assert again
    assert again.pid == sshd.pid


def test_restart_keeps_what_was_rolled_back_to(three: Rig) -> None:
    """A machine that is restarted boots the generation that it was brought to."""
    assert three.run(RUNNER, "rollback", "1").code == 0
    lab.restart(three.lab, three.name)
    three.sh("cat /etc/one; test ! -e /etc/three")
    assert three.status().stack == ("20250101-001_one",)


def test_applying_again_uses_the_sealed_layer(three: Rig) -> None:
    """A migration that was rolled back is applied again by its layer, on state as it is now."""
    assert three.run(RUNNER, "rollback", "1").code == 0
    script = "mkdir -p /var/lib/web; echo s >/var/lib/web/s; rm /etc/issue"
    three.sh("echo newer >/data/state/var/lib/web/s")
    result = three.apply("20250102-001_web", script, services=WEB, state=["/var/lib/web"])
    assert result.code == 0, result.text
    assert "its layer is used again" in result.text
    assert three.sh("cat /var/lib/web/s") == "newer\n"


def test_what_cannot_be_gone_to_is_refused(three: Rig) -> None:
    """A generation or id that is not there is refused by name, and nothing happens."""
    before = three.tree()
    for target, words in (("99", "no generation 99"), ("20250109-001_none", "no generation has 20250109-001_none")):
        result = three.run(RUNNER, "rollback", target)
        assert result.code == 4
        assert words in result.err
    assert three.tree() ^ before == frozenset()


def test_a_generation_without_its_layer_is_refused_and_told(three: Rig) -> None:
    """`status` names it, so that a dry run foresees what the machine says."""
    assert three.run(RUNNER, "rollback", "1").code == 0
    assert three.status().broken == ()
    three.sh("mv /data/system/layers/20250103-001_web /data/away")
    assert three.status().broken == (3,)
    result = three.run(RUNNER, "rollback", "03")
    assert result.code == 3
    assert "generation 3 lacks its layer 20250103-001_web" in result.err
    assert "generation 3 is not whole any more" in result.err


STATE = ["/var/lib/app", "/var/lib/later"]
APP = {"app": {"run": "exec sleep 3333"}}


def state_of(rig: Rig) -> str:
    return rig.sh(
        "cd /data/state/var/lib; find app later ! -type d -printf '%p %m %U ' -exec cat {} \\; 2>/dev/null | sort"
    )


@pytest.fixture
def upgraded(fresh: Rig) -> Rig:
    """Generation 1: a service and its state; 2: an upgrade of both, with a snapshot; then the service went on."""
    script = "mkdir -p /var/lib/app; cd /var/lib/app; echo one >one; echo gone >gone; chown 7 one"
    assert fresh.apply("20250101-001_app", script, state=STATE[:1], services=APP).code == 0
    fresh.sh("echo live >/var/lib/app/live")
    script = "cd /var/lib/app; echo two >one; rm gone; mkdir -p /var/lib/later; echo l >/var/lib/later/l"
    assert fresh.apply("20250102-001_upgrade", script, state=STATE, snapshot=True, services=APP).code == 0
    fresh.sh("echo more >/var/lib/app/more")
    return fresh


def test_state_comes_back_from_a_snapshot(upgraded: Rig) -> None:
    """--restore-state: the state is what it was before the layers that go, and the service runs on it."""
    assert upgraded.run(RUNNER, "rollback", "1").code == 0
    assert "more" in state_of(upgraded)
    again = state_of(upgraded)
    assert upgraded.run(RUNNER, "rollback", "2").code == 0
    upgraded.sh("rm /var/lib/app/live; echo second >/var/lib/app/second")
    result = upgraded.run(RUNNER, "rollback", "--restore-state", "1")
    assert result.code == 0, result.text
    # Of the time it came onto the stack again, not of the first time.
    assert state_of(upgraded) == again
    assert [one.name for one in upgraded.status().services if one.ready] == ["app", "sshd"]
    upgraded.sh("ls /data/system/replaced/rollback/1/old/second; test ! -e /data/system/rollback")
    upgraded.sh('test -z "$(ls /data/system/snapshots)"')


def test_what_is_kept_for_a_look_can_be_given_up(upgraded: Rig) -> None:
    """`gc` names what was replaced and what failed, and gives both up; the machine stays as it is."""
    upgraded.sh("test -e /data/system/replaced/20250102-001_upgrade/1/old/gone")
    before = upgraded.tree()
    assert "what 20250102-001_upgrade replaced in state" in upgraded.run(RUNNER, "gc").out
    assert upgraded.apply("20250103-001_ill", "echo made >/etc/made; exit 1").code == 9
    assert "what is left of 20250103-001_ill, which failed" in upgraded.run(RUNNER, "gc").out
    upgraded.sh('cd /data/system; test ! -e replaced; test -z "$(ls staging)"')
    assert upgraded.tree() == before
    assert "nothing is kept" in upgraded.run(RUNNER, "gc").out
    assert upgraded.run(RUNNER, "rollback", "--restore-state", "1").code == 0


def test_state_of_the_time_before_comes_back(upgraded: Rig) -> None:
    """What the upgrade deleted is there again, with its owner; what it brought is gone, the path too."""
    assert upgraded.run(RUNNER, "rollback", "--restore-state", "1").code == 0
    upgraded.sh("test ! -e /data/state/var/lib/later; cd /var/lib/app; test ! -e more; test $(stat -c %u one) = 7")
    assert upgraded.sh("cd /var/lib/app; cat gone live one") == "gone\nlive\none\n"


def test_forward_again_after_state_was_restored(upgraded: Rig) -> None:
    """The path that went with the layer is there again, empty, as no script ran; and it is where it belongs."""
    top = upgraded.status().stack[-1]
    assert upgraded.run(RUNNER, "rollback", "--restore-state", "1").code == 0
    result = upgraded.run(RUNNER, "rollback", top)
    assert result.code == 0, result.text
    for path in (path for one in upgraded.status().migrations for path in one.state):
        upgraded.sh(f"mountpoint -q {path}")


def test_state_without_a_snapshot_is_not_restored(three: Rig) -> None:
    """Nothing to restore is a refusal: who asked for it would otherwise believe it was done."""
    before = three.tree()
    result = three.run(RUNNER, "rollback", "--restore-state", "1")
    assert result.code == 3
    assert "has a snapshot" in result.err
    assert three.tree() ^ before == frozenset()


def test_rollback_that_fails_takes_state_back(upgraded: Rig) -> None:
    """The service of the earlier generation does not come up: everything is as it was, state too."""
    upgraded.sh("echo 'exit 1' >/data/system/layers/20250101-001_app/etc/s6/services/app/main")
    before = {line for line in upgraded.tree() if not line.isdigit()}
    state = state_of(upgraded)
    result = upgraded.run(RUNNER, "rollback", "--restore-state", "1")
    assert result.code == 9, result.text
    assert "going back to generation 2" in result.text
    assert state_of(upgraded) == state
    assert {line for line in upgraded.tree() if not line.isdigit()} ^ before == set()
    assert upgraded.status().stack == ("20250101-001_app", "20250102-001_upgrade")
    assert [one.name for one in upgraded.status().services if one.ready] == ["app", "sshd"]


def test_interrupted_rollback_is_finished_with_its_services(three: Rig) -> None:
    """Killed between the switch and its services: recover brings them to the generation that runs."""
    switched = (r"^rename\w*\(.*/run/system-migrate/running\)", ".")
    done = Victim(three.lab, three.name, three.folder).attempt("rollback", "1", strike=Strike(when=switched))
    assert done.where, done.text
    assert "web" in [one.name for one in three.status().services]
    result = three.run(RUNNER, "recover")
    assert result.code == 0
    assert "going to generation 4 was interrupted: finishing it" in result.err
    assert [one.name for one in three.status().services] == ["sshd"]
    assert three.run(RUNNER, "recover").err == ""


def test_recovery_goes_back_to_what_the_migration_was_made_over(fresh: Rig) -> None:
    """Not to the newest generation before it by number: that one may have been taken back."""
    gone = {"gone": {"run": "exec sleep 1111", "check": "test ! -e /run/ill", "ready_timeout": 2}}
    assert fresh.apply("20250101-001_a", ":", services=gone).code == 0
    assert fresh.apply("20250102-001_b", "echo b >/etc/b", services={"gone": {"run": "exec sleep 2222"}}).code == 0
    fresh.sh(": >/run/ill")
    assert fresh.run(RUNNER, "rollback", "1").code == 9
    assert fresh.status().generation == 2
    bundle = fresh.migration("20250103-001_y", ":")
    fresh.run("/bin/sh", "-c", f"cat >/root/y; {RUNNER} apply --confirm 60 /root/y", stdin=bundle)
    lab.restart(fresh.lab, fresh.name)
    fresh.sh(f"{RUNNER} recover; cat /etc/b")
    assert fresh.status().stack == ("20250101-001_a", "20250102-001_b")
