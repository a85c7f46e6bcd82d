"""Drift: what was changed by hand is told, kept, in the way only where it has to be, and can be given up."""

from __future__ import annotations

import json

import pytest

from pyinfra_overlaymig.format.changes import Change
from pyinfra_overlaymig.runner import drift_told
from tests.rig import RUNNER, Rig


def test_drift_is_listed_by_path(fresh: Rig) -> None:
    """`drift` tells what was made, changed and deleted, and not what was only opened."""
    fresh.sh("echo x >/etc/mine; rm /etc/issue; chmod 600 /etc/host.conf; exec 3<>/etc/group")
    lines = fresh.sh(f"{RUNNER} drift --raw").splitlines()
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


def test_directory_that_something_was_in_is_no_drift(fresh: Rig) -> None:
    """A file was made and removed by hand deep in it: a migration that removes it, or makes it anew, does so."""
    assert fresh.apply("20250101-001_base", "mkdir -p /opt/a/b/c; echo x >/opt/a/b/x").code == 0
    for script, left in {
        "rm -rf /opt/a; echo file >/opt/a": "/opt/a",
        "rm -rf /opt/a; mkdir /opt/a": "/opt/a",
        "rm -rf /opt/a": "",
        "rm -rf /opt/a/b/c; ln -s x /opt/a/b/c": "/opt/a /opt/a/b /opt/a/b/c /opt/a/b/x",
    }.items():
        fresh.sh("touch /opt/a/b/c/t; rm /opt/a/b/c/t")
        result = fresh.apply("20250102-001_next", script)
        assert result.code == 0, result.text
        assert fresh.sh("find /opt -mindepth 1 | sort").split() == left.split(), script
        assert "opt" not in fresh.sh(f"{RUNNER} drift --raw")
        assert fresh.run(RUNNER, "rollback", "20250101-001_base").code == 0
        assert fresh.sh("cat /opt/a/b/x; test -d /opt/a/b/c") == "x\n"


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
    told = {line.split(" ")[8] for line in fresh.sh(f"{RUNNER} drift --raw").splitlines()}
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


NOISE = """
mkdir -p /var/lib/apt/lists /var/cache/mine /var/cache/debconf /usr/lib/mine/__pycache__ /var/log/mine
touch /var/lib/apt/lists/x /var/cache/apt/pkgcache.bin /var/cache/mine/x /usr/lib/mine/__pycache__/a.pyc
touch /var/log/wtmp /var/log/btmp /var/log/mine/log /var/lib/dpkg/lock-frontend
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("/srv/dead")'
echo x >/usr/lib/mine/a.py; echo x >>/var/cache/debconf/config.dat; mkdir /srv/mine
echo mine >/etc/motd; rm /etc/issue; chmod 600 /etc/host.conf; ln -s /x '/opt/a link'
"""


def test_drift_without_noise(fresh: Rig) -> None:
    """Caches, logs, logins, dead sockets and what a rollback left are nobody's; the rest is a table, or JSON."""
    made = "mkdir -p /var/log/app /var/lib/app/deep /opt/app/run; echo x >/opt/app/x"
    assert fresh.apply("20250101-001_app", made).code == 0
    fresh.sh("touch /var/log/app/log /var/lib/app/deep/x /opt/app/run/x; rm /var/lib/app/deep/x /opt/app/run/x")
    fresh.sh("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/opt/app/run/s\")'")
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("test ! -e /var/lib/app; test -S /opt/app/run/s")
    fresh.sh(NOISE)
    told = {one["path"]: (one["what"], one["kind"]) for one in json.loads(fresh.sh(f"{RUNNER} drift --json"))}
    assert told == {
        "/usr/lib/mine": ("added", "d"), "/usr/lib/mine/a.py": ("added", "f"), "/srv/mine": ("added", "d"),
        "/var/cache/debconf/config.dat": ("changed", "f"), "/etc/motd": ("changed", "f"),
        "/etc/issue": ("deleted", "-"),
        "/etc/host.conf": ("metadata", "f"), "/opt/a\\040link": ("added", "l"),
    }  # fmt: skip
    table = fresh.sh(f"{RUNNER} drift").splitlines()
    assert table[0].split() == ["what", "kind", "mode", "size", "path"]
    assert len({line.rindex(" /") for line in table[1:-1] if "->" not in line}) == 1
    assert {line.split()[-1] for line in table[1:-1]} > {"/etc/motd", "/etc/issue", "/srv/mine"}
    assert "nobody's" in table[-1]
    raw = fresh.sh(f"{RUNNER} drift --raw")
    assert all(path in raw for path in ("var/log/wtmp", "srv/dead", "opt/app/run/s"))


def test_all_drift_is_adopted_or_given_up(fresh: Rig) -> None:
    """With --all: what is shown, and nobody's things stay where they are."""
    assert "there is no drift" in fresh.run(RUNNER, "drift", "adopt", "--all").text
    fresh.sh(NOISE)
    assert fresh.run(RUNNER, "drift", "adopt", "--all", "/etc/motd").code == 100
    done = fresh.run(RUNNER, "drift", "adopt", "--all")
    assert done.code == 0, done.text
    assert json.loads(fresh.sh(f"{RUNNER} drift --json")) == []
    fresh.sh("test -e /var/log/wtmp; test -e /var/cache/mine/x; test ! -e /etc/issue; cat /usr/lib/mine/a.py")
    (layer,) = fresh.status().stack
    fresh.sh(f"cd /data/system/layers/{layer}; test ! -e var/log; test ! -e usr/lib/mine/__pycache__; test -d srv/mine")
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("test -e /etc/issue; test ! -e /srv/mine; echo mine >/etc/motd; rm -r /etc/default; chmod 700 /srv")
    assert fresh.run(RUNNER, "drift", "discard", "--all").code == 0
    assert json.loads(fresh.sh(f"{RUNNER} drift --json")) == []
    fresh.sh("test -e /etc/default; test $(stat -c %a /srv) = 755; test -e /var/log/wtmp")


@pytest.mark.parametrize(("count", "lines"), [(3, 5), (60, 2)])
def test_large_directory_is_one_line(count: int, lines: int) -> None:
    """Of a thousand files that were unpacked by hand, their directory says enough; of a few, each is named."""
    found = [Change("A", "f", "644", "0", "0", "1000", "x", "-", f"opt/a/{number}") for number in range(count)]
    text = drift_told.table([Change("A", "d", "755", "0", "0", "0", "-", "-", "opt/a"), *found], 0)
    assert len(text.splitlines()) == lines
    assert f"/opt/a/ and {count} in it" in text or lines > 2


def test_names_that_somebody_chose_are_told_harmlessly() -> None:
    """A terminal obeys what is in them."""
    change = Change("A", "l", "777", "0", "0", "0", "-", "-", "opt/\x1b[31mé\r", "-> \x1b]0;t\x07\x9b")
    assert drift_told.table([change], 0).splitlines()[1].endswith(r"/opt/\033[31mé\015 -> \033]0;t\007\302\233")
