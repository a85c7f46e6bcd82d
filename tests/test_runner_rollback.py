"""Rollback: any kept generation runs again, live, without a script; history only grows."""

from __future__ import annotations

import pytest

from pyinfra_overlaymig import lab
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
    """A migration that was rolled back is applied again by its layer; over another stack, or edited, it is refused."""
    assert three.run(RUNNER, "rollback", "1").code == 0
    script = "mkdir -p /var/lib/web; echo s >/var/lib/web/s; rm /etc/issue"
    three.sh("echo newer >/data/state/var/lib/web/s")
    result = three.apply("20250102-001_web", script, services=WEB, state=["/var/lib/web"])
    assert result.code == 0, result.text
    assert "its layer is used again" in result.text
    assert three.sh("cat /var/lib/web/s") == "newer\n"
    assert three.run(RUNNER, "rollback", "0").code == 0
    result = three.apply("20250102-001_web", script, services=WEB, state=["/var/lib/web"])
    assert result.code == 3
    assert "over another stack" in result.text
    assert "was edited" in three.apply("20250101-001_one", "echo edited >/etc/one").text


def test_what_cannot_be_gone_to_is_refused(three: Rig) -> None:
    """A generation or id that is not there is refused by name, and nothing happens."""
    before = three.tree()
    for target, words in (("99", "no generation 99"), ("20250109-001_none", "no generation has 20250109-001_none")):
        result = three.run(RUNNER, "rollback", target)
        assert result.code == 4
        assert words in result.err
    assert three.tree() ^ before == frozenset()
