"""Drift: what was changed by hand is told, kept, in the way only where it has to be, and can be given up."""

from __future__ import annotations

import pytest

from tests.rig import RUNNER, Rig


def test_drift_is_listed_by_path(fresh: Rig) -> None:
    """`drift` tells what was made, changed and deleted, and not what was only opened."""
    fresh.sh("echo x >/etc/mine; rm /etc/issue; chmod 600 /etc/host.conf; exec 3<>/etc/group")
    lines = fresh.sh(f"{RUNNER} drift").splitlines()
    told = {line.split(" ")[8]: line.split(" ")[0] for line in lines}
    assert {path: told.get(path) for path in ("etc/mine", "etc/issue", "etc/host.conf", "etc/group")} == {
        "etc/mine": "A",
        "etc/issue": "D",
        "etc/host.conf": "M",
        "etc/group": None,
    }


@pytest.mark.parametrize(
    ("drift", "script", "path"),
    [
        ("echo mine >/etc/shells", "echo theirs >>/etc/shells", "etc/shells"),
        ("rm -rf /usr/share/doc", "mkdir -p /usr/share/doc/new; echo x >/usr/share/doc/new/x", "usr/share/doc"),
        ("chmod 700 /srv", "chmod 711 /srv", "srv"),
        ("echo x >/opt/thing", "mkdir /opt/thing; echo x >/opt/thing/x", "opt/thing"),
        ("echo x >/etc/default/mine", "rm -rf /etc/default", "etc/default/mine"),
        ("rm -rf /etc/default; mkdir /etc/default", "echo x >/etc/default/useradd", "etc/default"),
        ("echo x >/etc/default/mine", "rm -rf /etc/default; mkdir /etc/default", "etc/default/mine"),
        ("mkdir -p /etc/ssh/mine/deep", "mv /etc/ssh /etc/old; cp -a /etc/old /etc/ssh", "etc/ssh/mine/deep"),
    ],
)
def test_drift_in_the_way_is_refused(fresh: Rig, drift: str, script: str, path: str) -> None:
    """Where drift and a migration meet, one would hide the other: refused by path, and nothing is touched."""
    fresh.sh(drift)
    before = fresh.tree()
    result = fresh.apply("20250101-001_meets", script)
    assert result.code == 3, result.text
    assert f"/{path}\n" in result.text
    assert "drift discard" in result.text
    assert fresh.tree() ^ before == frozenset()


def test_what_was_only_opened_is_no_drift(fresh: Rig) -> None:
    """A file that a program opened for writing and left alone neither refuses a migration nor hides its change."""
    fresh.sh(
        "exec 3<>/etc/group; exec 4<>/etc/shells; exec 5<>/var/lib/dpkg/status; mkdir -p /srv/mine; chmod 755 /etc"
    )
    script = "echo theirs >/etc/group; rm /etc/shells; echo more >>/var/lib/dpkg/status"
    result = fresh.apply("20250101-001_opened", script)
    assert result.code == 0, result.text
    fresh.sh("test $(cat /etc/group) = theirs; test ! -e /etc/shells; tail -n 1 /var/lib/dpkg/status | grep -q more")
    fresh.sh("test -d /srv/mine")


def test_directory_that_carries_drift_takes_over_new_metadata(fresh: Rig) -> None:
    """A migration's chmod of a directory shows although a file was changed by hand inside it."""
    fresh.sh("echo x >/etc/ssh/mine")
    assert fresh.apply("20250101-001_chmod", "chmod 700 /etc/ssh").code == 0
    fresh.sh("test $(stat -c %a /etc/ssh) = 700; test -e /etc/ssh/mine")


def test_given_up_drift_is_gone(fresh: Rig) -> None:
    """`drift discard` brings the generation's own back, and the migration that was refused applies."""
    fresh.sh("cp /etc/shells /root/shells; echo mine >/etc/shells; echo other >/etc/other")
    assert fresh.apply("20250101-001_meets", "echo theirs >/etc/shells").code == 3
    result = fresh.run(RUNNER, "drift", "discard", "/etc/shells")
    assert result.code == 0, result.text
    fresh.sh("cmp /etc/shells /root/shells; test $(cat /etc/other) = other")
    assert fresh.apply("20250101-001_meets", "echo theirs >/etc/shells").code == 0
    assert fresh.run(RUNNER, "drift", "discard", "/etc/nothing").code == 4


def test_no_path_leads_out_of_the_drift(fresh: Rig) -> None:
    """Upwards, through links, or by the name of something that is elsewhere: refused, and all is there still."""
    assert fresh.apply("20250101-001_app", "echo x >/etc/app").code == 0
    fresh.sh(
        "ln -s /data/system/layers /etc/out; ln -s ../data/system /root/up; mkdir /opt/mine; ln -s /opt/mine /srv/in"
    )
    layer = "data/system/layers/20250101-001_app"
    named = (f"../../../{layer}", f"/{layer}", "/etc/out/20250101-001_app", "/etc/out/20250101-001_app/etc/app", "/")
    more = (
        "../../../layers/20250101-001_app",
        "/root/up/layers/20250101-001_app",
        "..",
        ".",
        "",
    )
    before = fresh.tree()
    for path in (*named, *more):
        for verb in ("discard", "adopt"):
            result = fresh.run(RUNNER, "drift", verb, path)
            assert (result.code, "is not drift" in result.err) == (4, True), path
    assert fresh.tree() ^ before == frozenset()
    # The link itself is drift, and what it leads to in the running root can be named through it.
    fresh.sh("echo x >/opt/mine/file")
    assert fresh.run(RUNNER, "drift", "discard", "/etc/out", "/root/up/", "/srv/in/file").code == 0
    fresh.sh("test ! -L /etc/out; test ! -L /root/up; test -d /opt/mine; test ! -e /opt/mine/file; test -e /etc/app")


def test_directory_that_is_made_anew_is_a_change_of_all_below_it(fresh: Rig) -> None:
    """Applying it names the drift there, or gives it up and brings it back; going back and forth loses none of it."""
    script = "rm -rf /etc/default; mkdir /etc/default; echo theirs >/etc/default/theirs"
    fresh.sh("echo mine >/etc/default/mine; chmod 600 /etc/default/useradd; ls /etc/default >/run/before")
    before = fresh.tree()
    assert fresh.apply("20250101-001_anew", script, verify="exit 1", drift="discard").code == 9
    assert {line for line in fresh.tree() ^ before if not line.isdigit()} == set()
    assert fresh.apply("20250101-001_anew", script, drift="discard").code == 0
    assert fresh.sh("ls /etc/default") == "theirs\n"
    fresh.sh("echo mine >/etc/default/mine")
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("ls /etc/default | cmp - /run/before; cat /etc/default/mine /etc/default/useradd")
    assert fresh.apply("20250101-001_anew", script).code == 0
    assert fresh.sh("ls /etc/default") == "mine\ntheirs\n"


def test_adopted_drift_is_a_layer(fresh: Rig) -> None:
    """`drift adopt`: the root looks the same, it is no drift any more, and a rollback takes it away."""
    fresh.sh("mkdir -p '/opt/my own/deep'; echo a >'/opt/my own/deep/file'; rm /etc/issue; chmod 600 /etc/host.conf")
    fresh.sh("echo kept >/etc/kept; cp -a /etc/shells /root/shells; echo mine >/etc/shells")
    before = fresh.tree()
    result = fresh.run(RUNNER, "drift", "adopt", "/opt/my own", "/etc/issue", "/etc/host.conf", "/etc/shells")
    assert result.code == 0, result.text
    status = fresh.status()
    assert len(status.stack) == 1
    assert "_adopt_" in status.stack[0]
    files = {line for line in fresh.tree() ^ before if "/" in line}
    assert files == set()
    told = {line.split(" ")[8] for line in fresh.sh(f"{RUNNER} drift").splitlines()}
    assert not told & {"opt/my\\040own", "opt/my\\040own/deep/file", "etc/issue", "etc/host.conf", "etc/shells"}
    assert "etc/kept" in told
    assert fresh.apply("20250101-001_order", "echo theirs >>/etc/shells").code == 0
    assert fresh.sh("cat /etc/shells") == "mine\ntheirs\n"
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("test ! -e '/opt/my own'; test -e /etc/issue; cmp /etc/shells /root/shells; cat /etc/kept")


def test_migration_that_adopts_sees_what_was_adopted(fresh: Rig) -> None:
    """`drift: adopt`: what was changed by hand becomes a layer below, and the script runs over that."""
    fresh.sh("echo mine >/etc/shells; echo other >/etc/other")
    result = fresh.apply("20250101-001_meets", "echo theirs >>/etc/shells", drift="adopt")
    assert result.code == 0, result.text
    assert fresh.sh("cat /etc/shells") == "mine\ntheirs\n"
    assert [name.split("_", 1)[1] for name in fresh.status().stack] == ["adopt_meets", "meets"]
    assert fresh.run(RUNNER, "rollback", "1").code == 0
    assert fresh.sh("cat /etc/shells /etc/other") == "mine\nother\n"


def test_given_up_directory_keeps_what_is_in_nobodys_way(fresh: Rig) -> None:
    """A directory that both have made: its metadata is the migration's, what else lies in it stays."""
    fresh.sh("mkdir -m 750 /opt/app; mkdir /opt/app/data; echo mine >/opt/app/data/precious")
    script = "mkdir -m 755 /opt/app; echo x >/opt/app/bin"
    assert fresh.apply("20250101-001_app", script).code == 3
    result = fresh.apply("20250101-001_app", script, drift="discard")
    assert result.code == 0, result.text
    fresh.sh("test $(cat /opt/app/data/precious /opt/app/bin | wc -l) = 2; test $(stat -c %a /opt/app) = 755")


def test_adopted_layer_keeps_its_name(fresh: Rig) -> None:
    """After a rollback, what is adopted next has another name; state is left alone, and so is what is beside it."""
    assert (
        fresh.apply("20250101-001_app", "mkdir -p /var/lib/app; echo s >/var/lib/app/s", state=["/var/lib/app"]).code
        == 0
    )
    fresh.sh("chmod 700 /root; echo one >/etc/motd; echo other >/root/other; echo note >/root/note")
    for text in ("one", "two"):
        fresh.sh(f"echo {text} >/etc/motd")
        result = fresh.run(RUNNER, "drift", "adopt", "/etc/motd", "/root/note")
        assert result.code == 0, result.text
        assert fresh.sh("cat /etc/motd /root/note; stat -c %a /root") == f"{text}\nnote\n700\n"
        assert fresh.run(RUNNER, "rollback", "1").code == 0
        fresh.sh("echo note >/root/note; test $(cat /root/other) = other")
    layers = fresh.sh("cat /data/system/layers/*_adopt_motd/etc/motd; ls /data/system/layers/*/root")
    assert layers.startswith("one\ntwo\n")
    assert "other" not in layers
    assert fresh.sh("cat /var/lib/app/s") == "s\n"


def test_migration_that_discards_drift_brings_it_back_when_it_fails(fresh: Rig) -> None:
    """`drift: discard`: what is in the way goes with the commit; a failed health check brings it back."""
    fresh.sh("echo mine >/etc/shells; chmod 700 /srv; echo x >/srv/mine; rm /etc/issue")
    before = fresh.tree()
    script = "echo theirs >/etc/shells; chmod 711 /srv; echo new >/etc/issue"
    result = fresh.apply("20250101-001_meets", script, verify="exit 1", drift="discard")
    assert result.code == 9, result.text
    assert {line for line in fresh.tree() ^ before if not line.isdigit()} == set()
    assert fresh.apply("20250101-001_meets", script, drift="discard").code == 0
    assert fresh.sh("cat /etc/shells /etc/issue /srv/mine; stat -c %a /srv") == "theirs\nnew\nx\n711\n"


def test_what_was_moved_away_is_still_there_when_the_old_name_is_given_back(fresh: Rig) -> None:
    """An overlay takes a file of its upper for the one of the stack that it was copied from, and says ESTALE of one."""
    assert fresh.apply("20250101-001_brings", "echo 1 >/opt/a; echo 2 >/opt/b").code == 0
    fresh.sh("mv /opt/a /opt/a.orig; ln /opt/b /opt/c; echo x >>/opt/c")
    assert fresh.run(RUNNER, "drift", "discard", "/opt/a", "/opt/b").code == 0
    for order in ("a a.orig b c", "c b a.orig a"):
        fresh.sh(f"echo 2 >/proc/sys/vm/drop_caches; cd /opt; ls -l {order}")
    assert fresh.sh("cd /opt; cat a a.orig b c").split() == ["1", "1", "2", "2", "x"]
