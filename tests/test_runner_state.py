"""State outlives generations, and is as transactional as the rest of a migration."""

from __future__ import annotations

import pytest

from pyinfra_overlaymig import lab as labs
from tests.rig import RUNNER, Rig

MAKE = """
mkdir -p /var/lib/app/keep /var/lib/app/swap
cd /var/lib/app
echo one >changed; echo gone >deleted; echo file >becomes-dir; echo x >swap/x; echo k >keep/k; ln -s changed link
chmod 700 keep; chown 1:1 keep/k; echo n >"$(printf 'odd\\nname ')"; echo f >-dash
"""
CHANGE = """
cd /var/lib/app
echo two >changed; rm deleted; rm becomes-dir; mkdir becomes-dir; echo in >becomes-dir/in
rm -rf swap; mkdir swap; echo y >swap/y; chmod 755 keep; chown 2:2 keep/k; ln -sfn keep link
rm -- "$(printf 'odd\\nname ')"; echo g >-dash; mkdir -p new/deep; echo d >new/deep/d
"""
CHECK_CHANGED = """
cd /var/lib/app
test $(cat changed) = two; test ! -e deleted; test $(cat becomes-dir/in) = in; test "$(ls swap)" = y
test $(stat -c %a keep) = 755; test $(stat -c %u keep/k) = 2; test $(readlink link) = keep
test ! -e "$(printf 'odd\\nname ')"; test $(cat ./-dash) = g; test $(cat new/deep/d) = d
"""


@pytest.fixture
def app(fresh: Rig) -> Rig:
    result = fresh.apply("20250101-001_app", MAKE, state=["/var/lib/app"])
    assert result.code == 0, result.text
    return fresh


def test_state_leaves_the_layer(app: Rig) -> None:
    """No file of a state path is in the layer, and no inode is shared: the path is mounted from /data/state."""
    app.sh(
        'test -z "$(find /data/system/layers/20250101-001_app/var/lib/app -mindepth 1)"; mountpoint -q /var/lib/app;'
        "test /var/lib/app -ef /data/state/var/lib/app"
    )


def test_later_migration_changes_state(app: Rig) -> None:
    """A later migration's changes to existing state (new, changed, deleted, metadata) are there once it is applied."""
    result = app.apply("20250102-001_change", f"{CHANGE}\nexec 3<>/var/lib/app/changed")
    assert result.code == 0, result.text
    app.sh(CHECK_CHANGED)
    assert "20250102" not in app.sh("ls /data/system/staging")


@pytest.mark.parametrize("fault", ["script", "verify"])
def test_failed_migration_leaves_state_untouched(app: Rig, fault: str) -> None:
    """A script or a health check that fails leaves state byte for byte as it was."""
    before = app.tree()
    verify = f"{CHECK_CHANGED}\necho the check saw the new state; exit 3" if fault == "verify" else None
    result = app.apply("20250102-001_change", CHANGE + ("exit 3" if fault == "script" else ""), verify=verify)
    assert result.code == 9, result.text
    assert "status 3" in result.text
    if fault == "verify":
        assert "the check saw the new state" in result.text
    assert app.tree() ^ before == frozenset()


def test_service_stops_while_its_state_is_changed(fresh: Rig) -> None:
    """A service named in `stop` is down while the script runs, and up again after it, also when it failed."""
    run = "while sleep 0.1; do date >/var/lib/beat/last; done"
    result = fresh.apply(
        "20250101-001_beat", "mkdir -p /var/lib/beat", state=["/var/lib/beat"], services={"beat": {"run": run}}
    )
    assert result.code == 0, result.text
    for name, code in (("20250102-001_ok", 0), ("20250103-001_fails", 9)):
        script = f"cp /var/lib/beat/last /var/lib/beat/a; sleep 1; cmp /var/lib/beat/last /var/lib/beat/a; exit {code}"
        result = fresh.apply(name, script, stop=["beat"])
        assert result.code == code, result.text
        fresh.sh("sleep 0.5; test $(s6-svstat -o up /run/service/beat) = true")


def test_state_path_with_odd_bytes(fresh: Rig) -> None:
    """A state path may have any characters, and still comes and goes with its migration."""
    before = fresh.tree()
    path = "/var/lib/ü # b"
    script = f"mkdir -p '{path}'; echo x >'{path}/x'"
    result = fresh.apply("20250101-001_odd", script, verify="exit 1", state=[path])
    assert result.code == 9, result.text
    assert fresh.tree() ^ before == frozenset()
    assert fresh.apply("20250101-001_odd", script, state=[path]).code == 0
    assert fresh.apply("20250102-001_next", ":").code == 0
    fresh.sh(f"test \"$(cat '{path}/x')\" = x; mountpoint -q '{path}'")
    assert fresh.sh("grep -c lib/ /proc/self/mountinfo") == "1\n"


def test_install_finds_state_by_itself(fresh: Rig) -> None:
    """`install` splits off what a package's own account keeps in /var/lib, and leaves nothing behind that is there."""
    result = fresh.run(RUNNER, "install", "redis-server", timeout=200)
    assert result.code == 0, result.text
    fresh.sh("mountpoint -q /var/lib/redis; test $(stat -c %U /var/lib/redis) = redis; redis-server --version")
    again = fresh.run(RUNNER, "install", "redis-server", timeout=200)
    assert again.code == 0, again.text
    assert "everything is there already" in again.text
    assert len(fresh.status().migrations) == 1
    assert fresh.apply("20240101-001_from_the_repo", ":").code == 0, "an install on one machine is not in the order"


def test_owners_follow_their_names(fresh: Rig) -> None:
    """An account comes back with another one's number: its files are its own again, what the script gave it too."""
    state = ["/var/lib/app"]
    service = {"app": {"run": "exec sleep 1111", "user": "app"}}
    add = "useradd -r -u {} app; useradd -r -u {} other; install -d -o app -g app /var/lib/app"
    script = f"{add.format(991, 992)}; cd /var/lib/app; touch a; chown app:app a; ln -s x c"
    result = fresh.apply("20250101-001_app", script, state=state, services=service)
    assert result.code == 0, result.text
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    result = fresh.apply("20250102-001_app", add.format(992, 991), state=state, services=service)
    assert result.code == 0, result.text
    owners = fresh.sh("cd /var/lib/app; stat -c '%n %u %U %G' . a c")
    assert owners == ". 992 app app\na 992 app app\nc 0 root root\n"
    assert "what was u 991 becomes 992" in result.text


def test_revert_after_the_new_service_moved_its_directories(fresh: Rig) -> None:
    """What ran on the new state renamed one directory and removed another: the state before is there again."""
    make = "cd /var/lib; mkdir -p app/v1 'app/my dir '; echo old >app/v1/conf; echo q >'app/my dir /q'"
    assert fresh.apply("20250101-001_app", make, state=["/var/lib/app"]).code == 0
    before = fresh.tree()
    run = "cd /var/lib/app; mv v1 v2; rm -rf 'my dir '; exec sleep 1111"
    result = fresh.apply(
        "20250102-001_new",
        "echo new >/var/lib/app/v1/conf; chmod 700 /var/lib/app/v1; echo r >'/var/lib/app/my dir /q'",
        verify="test -e /var/lib/app/v2; exit 3",
        services={"new": {"run": run}},
    )
    assert result.code == 9, result.text
    assert "status 3" in result.text
    assert [line for line in fresh.tree() ^ before if "v2" not in line] == []


def test_state_as_a_link(fresh: Rig) -> None:
    """`state_links`: a link into /data/state, no mount; later migrations change what it leads to as any state."""
    place = {"state": ["/var/lib/app"], "state_links": ["/var/lib/app"]}
    before = fresh.tree()
    script = "mkdir -p /var/lib/app; echo one >/var/lib/app/a"
    check = "test $(readlink /var/lib/app) = /data/state/var/lib/app; test $(cat /var/lib/app/a) = {}"
    failed = fresh.apply("20250101-001_app", script, verify=f"{check.format('one')}; exit 3", **place)
    assert "status 3" in failed.text
    assert fresh.tree() ^ before == frozenset()
    service = {"app": {"run": "exec sleep 1111"}}
    result = fresh.apply("20250101-001_app", script, verify=check.format("one"), services=service, **place)
    assert result.code == 0, result.text
    fresh.sh("! grep ' /var/lib/app ' /proc/self/mountinfo; test -f /data/state/services/app/initialized")
    kept = fresh.tree()
    changed = "echo two >/var/lib/app/a; echo b >/var/lib/app/b"
    failed = fresh.apply("20250102-001_change", changed, verify=f"{check.format('two')}; exit 3")
    assert failed.code == 9, failed.text
    assert "status 3" in failed.text
    assert fresh.tree() ^ kept == frozenset()
    result = fresh.apply("20250102-001_change", changed, verify=check.format("two"))
    assert result.code == 0, result.text
    assert "/data" not in fresh.sh("cut -d ' ' -f 9- /data/system/migrations/20250102-001_change/changes.list")
    labs.restart(fresh.lab, fresh.name)
    fresh.sh(check.format("two"))
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("test ! -L /var/lib/app; test ! -e /var/lib/app; test -f /data/state/var/lib/app/b")
