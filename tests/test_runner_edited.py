"""A migration that was rolled back and edited since is applied anew: what it was goes once that is done, or comes
back.
"""

from __future__ import annotations

import json

import pytest

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig

ONE, TWO, THREE, LATE = "20250101-001_one", "20250102-001_two", "20250103-001_three", "20240101-001_late"


@pytest.fixture
def back(fresh: Rig) -> Rig:
    """One, two with state, three; then back to one: generations 1 to 4."""
    assert fresh.apply(ONE, "echo one >/etc/one").code == 0
    assert fresh.apply(TWO, "echo two >/etc/two; echo s >/var/lib/two/s", state=["/var/lib/two"]).code == 0
    assert fresh.apply(THREE, "cat /etc/two >/etc/three").code == 0
    assert fresh.run(RUNNER, "rollback", ONE).code == 0
    return fresh


def history(rig: Rig) -> tuple[list[int], list[str]]:
    """The generations that are recorded, and the migrations; each has its layer, and no generation lacks one."""
    status = rig.status()
    ids = sorted(one.id for one in status.migrations)
    assert rig.sh("ls /data/system/layers").split() == ids
    assert {layer for one in status.generations for layer in one.stack} <= {*ids}
    index = json.loads(rig.sh("cat /data/system/migrations/metadata.json"))
    assert [one["id"] for one in index["migrations"]] == ids
    return [one.n for one in status.generations], ids


def test_it_takes_the_place_of_what_it_was(back: Rig) -> None:
    """With its new content, over state as it is; what was applied over it goes with it, and is applied as a new one."""
    result = back.apply(TWO, "echo edited >/etc/two; cat /var/lib/two/s >/etc/seen", state=["/var/lib/two"])
    assert result.code == 0, result.text
    assert "and edited since: it is applied anew" in result.text
    assert "its layer goes for good, and generation 2, 3" in result.text
    assert f"what was applied over it: {THREE}" in result.text
    assert back.sh("cat /etc/two /etc/seen; test ! -e /etc/three") == "edited\ns\n"
    assert history(back) == ([1, 4, 5], [ONE, TWO])
    assert "running the install script" in back.apply(THREE, "cat /etc/two >/etc/three").text
    assert back.sh("cat /etc/three") == "edited\n"
    assert back.run(RUNNER, "rollback", "5").code == 0
    lab.restart(back.lab, back.name)
    assert back.sh("cat /etc/two; test ! -e /etc/three; ls -A /data/system/staging") == "edited\n"
    assert back.apply(TWO, "echo again >/etc/two").code == 3, "it is in the stack now"


def test_where_it_fails_everything_is_as_it_was(back: Rig) -> None:
    """In its script, its service, its health check: the old layer and every generation can be gone back to."""
    before, was = back.tree(), history(back)
    for script, verify in (("exit 1", None), ("echo edited >/etc/two", "exit 1"), ("chattr +i /etc/one", None)):
        result = back.apply(TWO, script, verify=verify, state=["/var/lib/two"])
        assert result.code == 9, result.text
        assert history(back) == was
        assert {line for line in back.tree() ^ before if not line.isdigit()} == set()
    bundle = back.migration(TWO, "echo edited >/etc/two", state=["/var/lib/two"])
    back.run(RUNNER, "apply", "--confirm", "1", "-", stdin=bundle)
    back.sh("flock -s -w 60 /data/system/lock/flock true")
    assert history(back) == was
    assert back.sh("test ! -e /etc/two; find /data/system/staging -name former") == ""
    assert back.run(RUNNER, "rollback", "3").code == 0
    assert back.sh("cat /etc/two /etc/three /var/lib/two/s") == "two\ntwo\ns\n"


def test_over_another_stack_it_is_applied_anew(back: Rig) -> None:
    """Ids forbid nothing: a late one goes on top, and what was rolled back on top of that, not being what it was."""
    result = back.apply(LATE, "echo late >/etc/late")
    assert result.code == 0
    assert f"{LATE} goes on top of {ONE}, although it is older" in result.text
    assert back.status().late == {LATE: ONE}
    result = back.apply(TWO, "echo two >/etc/two; echo s >/var/lib/two/s", state=["/var/lib/two"])
    assert result.code == 0, result.text
    assert "over another stack: it is applied anew" in result.text
    assert back.status().stack == (ONE, LATE, TWO)
    assert history(back) == ([1, 4, 5, 6], [LATE, ONE, TWO])
