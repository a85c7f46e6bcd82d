"""Where state lies: below links, in other state, on file systems of its own; and whose it is when numbers change."""

from __future__ import annotations

from typing import Any

import pytest

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.errors import InvalidMigration
from tests.rig import RUNNER, Rig


def applied(rig: Rig, name: str, script: str, code: int = 0, **manifest: Any) -> str:
    """What was said to a migration that ended with ``code``."""
    done = rig.apply(name, script, **manifest)
    assert done.code == code, done.text
    return done.text


def go(rig: Rig, *to: str) -> str:
    done = rig.run(RUNNER, "rollback", *to)
    assert done.code == 0, done.text
    return done.text


def mounted(rig: Rig) -> dict[str, str]:
    """Of what is bound from /data/state: by its place, its state path; each once."""
    lines = rig.sh("cut -d ' ' -f 4,5 /proc/self/mountinfo").splitlines()
    pairs = [line.split(" ") for line in lines if "/data/state/" in line and "/run/system-migrate/" not in line]
    assert len({place for _, place in pairs}) == len(pairs), pairs
    return {place: root.partition("/data/state")[2] for root, place in pairs}


LINKED = {"/opt/app-1.2/data": "/opt/app/data", "/srv/out/deep": "/srv/in/deep", "/var/mail": "/var/spool/mail"}


def test_state_below_links_lies_where_they_lead(fresh: Rig) -> None:
    """Relative and absolute ones, of the base, of an earlier migration and of the same one; in each generation anew."""
    made = "mkdir -p /opt/app-1.2/data; echo x >/opt/app-1.2/data/x; ln -s app-1.2 /opt/app; chmod 700 /opt/app-1.2"
    applied(fresh, "20250101-001_same", made, state=["/opt/app/data"])
    text = applied(fresh, "20250102-001_base", "echo m >/var/spool/mail/m", state=["/var/spool/mail"])
    assert "state path /var/spool/mail is /var/mail, where links lead" in text
    applied(fresh, "20250103-001_first", "mkdir -p /srv/out; ln -s /srv/out /srv/in")
    applied(fresh, "20250103-002_then", "echo d >/srv/in/deep/d", state=["/srv/in/deep"])
    assert mounted(fresh) == LINKED
    applied(fresh, "20250103-003_more", "echo y >/opt/app/data/y; test -f /srv/out/deep/d; test -f /var/mail/m")
    labs.restart(fresh.lab, fresh.name)
    assert mounted(fresh) == LINKED
    assert fresh.sh("cat /opt/app-1.2/data/* /var/mail/* /srv/out/deep/*") == "x\ny\nm\nd\n"
    fresh.sh('test -z "$(find /data/system/layers -name x -o -name m -o -name d | grep -v etc/)"')
    # Nobody gets in by /data/state whom the place itself keeps out.
    assert fresh.sh("stat -c %a /data/state/opt/app") == "700\n"
    text = applied(fresh, "20250104-001_next", "mkdir -p /opt/app-1.3/data; ln -sfn app-1.3 /opt/app")
    assert "state path /opt/app/data is /opt/app-1.3/data from now on" in text
    assert fresh.sh("cat /opt/app-1.3/data/x; ls /opt/app-1.2/data") == "x\n"
    go(fresh, "20250103-003_more")
    assert mounted(fresh) == LINKED
    text = applied(fresh, "20250105-001_hides", "mkdir -p /opt/b/data; echo >/opt/b/data/x; ln -sfn b /opt/app", 9)
    assert "/opt/b/data, where there are files already" in text
    go(fresh, "0")
    assert mounted(fresh) == {}


REFUSED = {
    "a file": (3, ":", "/etc/passwd", "/etc/passwd is no directory"),
    "a file made by hand": (3, "mkdir /srv/hand", "/srv/hand", "/srv/hand is no directory"),
    "below a file": (3, ":", "/etc/passwd/x", "/etc/passwd is no directory"),
    "a link out of the layers": (3, ":", "/srv/run/x", "is /run/x, where links lead"),
    "a link to a link's place": (3, ":", "/var/mail", "it meets /var/mail"),
    "within a link's place": (3, ":", "/var/mail/me", "it meets /var/mail/me"),
    "a circle of the script's": (9, "mkdir -p /opt; ln -s loop /opt/loop", "/opt/loop/data", "a circle of links"),
    "out of the layers by the script": (9, "mkdir -p /opt; ln -s /run /opt/run", "/opt/run/x", "is /run/x, where"),
    "what a process is in": (9, "mkdir -p /opt; ln -s /proc/self/cwd /opt/p", "/opt/p/x", "is /proc/self/cwd/x, where"),
    "over programs by the script": (9, "mkdir -p /opt; ln -s /usr /opt/usr", "/opt/usr/bin", "belongs to the system"),
    "a file of the script's": (9, "mkdir -p /opt; echo >/opt/plain", "/opt/plain/x", "/opt/plain is no directory"),
    "a link in it": (9, "mkdir -p /mnt/data; ln -s /mnt/data /srv/x", "/srv/x", "a link to /mnt/data was made in it"),
    "a directory nobody makes": (9, "echo >/opt/a/b/x", "/opt/a/b", "mkdir -p /opt/a/b"),
    "what is in the way in state": (3, ":", "/srv/way", "/data/state/srv/way is no directory"),
}


def test_what_can_be_no_state_is_refused_by_name(fresh: Rig) -> None:
    """And is never said to be the script's fault; nothing changes. By what was made by hand, too."""
    applied(fresh, "20250101-001_mail", "ln -s /run /srv/run", state=["/var/spool/mail"])
    fresh.sh("mkdir -p /data/state/srv; ln -s /etc /data/state/srv/way; echo x >/srv/hand")
    before = fresh.tree()
    for number, (what, (code, script, path, words)) in enumerate(REFUSED.items(), start=1):
        text = applied(fresh, f"20250102-{number:03}_x", script, code, state=[path])
        assert words in text, what
        assert ("the install script failed" in text) == (what == "a directory nobody makes"), text
    assert fresh.tree() ^ before == frozenset()


def test_a_file_of_the_migration_is_no_state_path(fresh: Rig) -> None:
    """Known on the operator's side."""
    folder = fresh.folder / "20250101-001_file"
    (folder / "files/srv").mkdir(parents=True)
    (folder / "files/srv/app").write_text("x")
    for path in ("/srv/app", "/srv/app/data"):
        with pytest.raises(InvalidMigration, match="files/srv/app is no directory"):
            fresh.migration(folder.name, ":", state=[path])


NESTED = """
mkdir -p /srv/pg/15 /srv/pg/sub; echo f >/srv/pg/15/f; echo conf >/srv/pg/conf; echo s >/srv/pg/sub/s
ln /srv/pg/conf /srv/pg/sub/conf; chown -R 7:7 /srv/pg; chmod 750 /srv/pg; chmod 2770 /srv/pg/sub
"""


def test_state_in_state(fresh: Rig) -> None:
    """What only held a state path is no state: a path of it that is declared begins with what the layers have there."""
    look = "cd /srv; find . -printf '%y %m %U %n %p\\n' | sort -k 5; cat pg/conf pg/15/f pg/sub/s"
    service = {"keeps": {"run": "exec sleep 1111"}}
    applied(fresh, "20250101-001_inner", NESTED, state=["/srv/pg/15"], services=service)
    before = fresh.sh(look)
    assert mounted(fresh) == {"/srv/pg/15": "/srv/pg/15"}
    script = "echo new >/srv/pg/new; mv /srv/pg/15 /srv/pg/16"
    failed = applied(fresh, "20250102-001_outer", script, 9, state=["/srv/pg"], verify="test -e /srv/pg/16/f; exit 1")
    assert "failed with status 1" in failed
    assert "the machine is as it was before" in failed
    assert fresh.sh(look) == before
    assert mounted(fresh) == {"/srv/pg/15": "/srv/pg/15"}
    fresh.sh("test ! -e /data/state/srv/pg/conf")
    applied(fresh, "20250102-001_outer", "echo more >>/srv/pg/15/f", state=["/srv/pg"])
    assert fresh.sh(look) == before.replace("\nf\n", "\nf\nmore\n")
    applied(fresh, "20250103-001_all", "rm /srv/pg/conf", state=["/srv"])
    assert mounted(fresh) == {"/srv": "/srv"}
    labs.restart(fresh.lab, fresh.name)
    fresh.sh("s6-svwait -u -t 5000 /run/service/keeps")
    assert mounted(fresh) == {"/srv": "/srv"}
    fresh.sh("test ! -e /srv/pg/conf; test -e /srv/pg/sub/conf")
    go(fresh, "20250102-001_outer")
    assert mounted(fresh) == {"/srv/pg": "/srv/pg"}
    go(fresh, "20250101-001_inner")
    assert fresh.sh("cat /srv/pg/conf /srv/pg/15/f") == "conf\nf\nmore\n"
    go(fresh, "0")
    # The other order: what was state once goes on.
    applied(fresh, "20250104-001_outer", "test ! -e /srv/pg/conf; test -e /srv/pg/sub/conf", state=["/srv"])
    applied(fresh, "20250104-002_inner", "echo y >/srv/pg/16/y", state=["/srv/pg/16"], snapshot=True)
    assert fresh.sh("cat /srv/pg/16/y /srv/pg/15/f") == "y\nf\nmore\n"
    go(fresh, "--restore-state", "20250104-001_outer")
    fresh.sh("test ! -e /srv/pg/16; test -e /srv/pg/15/f")


def test_logs_of_services_are_no_declared_state(fresh: Rig) -> None:
    """`/data/state/var/log` is there as soon as a service has said something."""
    applied(fresh, "20250101-001_says", ":", services={"says": {"run": "echo said; exec sleep 1111"}})
    before = fresh.sh("stat -c '%a %U %G %n' /var/log /var/log/*")
    applied(fresh, "20250102-001_log", "mkdir /var/log/says-too", state=["/var/log"])
    assert set(before.splitlines()) < set(fresh.sh("stat -c '%a %U %G %n' /var/log /var/log/*").splitlines())
    fresh.sh("grep -q said /var/log/says/current")


def test_a_volume_of_a_state_path_is_seen(fresh: Rig) -> None:
    """Mounted at /data/state after the boot, or below a state path; read-only and full ones are in nobody's way."""
    fresh.sh("""
        cd /data/state; mkdir -p srv/own srv/holds/vol; mount -t tmpfs -o mode=750,size=1m own srv/own
        mount -t tmpfs below srv/holds/vol; echo before >srv/own/before; echo v >srv/holds/vol/v; chown 7 srv/own
        head -c 1000000 /dev/zero >srv/own/full""")
    script = "test $(cat /srv/own/before /srv/holds/vol/v | wc -l) = 2; ! touch /srv/holds/vol/x; echo h >/srv/holds/h"
    applied(fresh, "20250101-001_own", script, state=["/srv/own", "/srv/holds"])
    assert (
        fresh.sh("stat -c '%a %u' /srv/own; cat /srv/own/before /srv/holds/vol/v /srv/holds/h")
        == "750 7\nbefore\nv\nh\n"
    )
    applied(fresh, "20250102-001_else", "echo x >/etc/x")
    applied(fresh, "20250102-002_mode", "chmod 700 /srv/own")
    before = fresh.tree()
    text = applied(fresh, "20250102-003_file", "head -c 1000000 /dev/zero >/srv/own/x; echo y >/etc/y", 9)
    assert "No space left on device" in text
    change = "rm /srv/own/full; echo after >/srv/own/before; ln /srv/own/before /srv/own/d"
    applied(fresh, "20250102-003_file", change, 9, verify="grep -q after /srv/own/d; exit 1")
    assert fresh.tree() ^ before == frozenset()
    applied(fresh, "20250102-003_file", change)
    assert fresh.sh("cd /srv/own; ls -A; cat before; test before -ef d") == "before\nd\nafter\n"
    before = fresh.tree()
    fresh.sh("mount -o remount,ro /data/state/srv/own")
    assert "read-only" in applied(fresh, "20250102-004_mode", "chmod 777 /srv/own", 9)
    assert fresh.tree() ^ before == frozenset()
    snapshot: dict[str, Any] = {"state": ["/srv/own", "/srv/holds", "/srv/plain"], "snapshot": True}
    text = applied(fresh, "20250103-001_snapshot", "echo x >/etc/z", **snapshot)
    assert "no snapshot is taken of /srv/own: /data/state/srv/own is a file system of its own" in text
    assert "no snapshot is taken of /srv/holds: /data/state/srv/holds/vol is a file system of its own" in text
    fresh.sh("mount -t tmpfs later /data/state/srv/plain")
    done = fresh.run(RUNNER, "rollback", "--restore-state", "2")
    assert (done.code, "/srv/plain is, or holds, a file system of its own" in done.text) == (3, True), done.text
    fresh.sh("umount /data/state/srv/plain")
    go(fresh, "2")
    assert fresh.sh("cat /srv/own/before /srv/holds/vol/v; stat -c %a /srv/own") == "after\nv\n700\n"
    assert fresh.sh("grep -c ' /srv/' /proc/self/mountinfo") == "3\n"
    go(fresh, "0")
    assert fresh.sh("grep -c ' /srv/' /proc/self/mountinfo || :") == "0\n"
    fresh.sh("umount /data/state/srv/own /data/state/srv/holds/vol")
    text = applied(fresh, "20250104-001_without", "test ! -e /srv/own/before", state=["/srv/own"])
    assert "state path /srv/own was a file system of its own" in text


ACCOUNTS = "useradd -r -u {} -U alpha; useradd -r -u {} -U beta\n"
ACL = r"""acl() { python3 - "$@" <<'END'
import os, pwd, struct, sys
path, *name = sys.argv[1:]
words = [(1, 7, -1), (2, 6, pwd.getpwnam(name[0]).pw_uid if name else -1), (4, 5, -1), (16, 7, -1), (32, 0, -1)]
for kind in ("access", "default"):
    if name:
        value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *word) for word in words)
        os.setxattr(path, f"system.posix_acl_{kind}", value)
    found = os.getxattr(path, f"system.posix_acl_{kind}")
    print(kind, [pwd.getpwuid(struct.unpack_from("<i", found, 16)[0]).pw_name])
END
}
"""
"""acl PATH [NAME]: whom the ACL of a directory names, and sets it."""
OWNED = (
    ACL
    + """
install -d -m 750 -o alpha -g beta /srv/keys; cd /srv/keys; echo k >key; chmod 600 key; chown alpha:alpha key
cp /bin/true su; chown beta:alpha su; chmod 6755 su; cp /bin/true capable; chown alpha capable
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 capable
mkdir shared; acl shared beta; echo unknown >unknown; chown 5555:5556 unknown
mkfifo fifo; chown alpha fifo; ln -s key link; chown -h beta link; ln key hard; truncate -s 1T sparse
"""
)
"""State without a service, of two accounts."""
LOOK = (
    ACL
    + """
cd /srv/keys; stat -c '%A %U %G %h %n' . *; stat -c '%u %g' unknown; acl shared
getfattr --only-values -n security.capability capable | od -An -c
"""
)


def test_state_without_a_service_keeps_its_names(fresh: Rig) -> None:
    """Two accounts swap numbers: at an apply, a rollback, a boot and when a snapshot returns; setuid bits, capabilities
    and ACLs are as they were.
    """
    applied(fresh, "20250101-001_keys", ACCOUNTS.format(811, 812) + OWNED, state=["/srv/keys"])
    before = fresh.sh(LOOK)
    assert "-rwsr-sr-x beta alpha 1 su" in before
    assert "default ['beta']" in before
    go(fresh, "0")
    applied(fresh, "20250102-001_swapped", ACCOUNTS.format(812, 811), state=["/srv/other"])
    applied(fresh, "20250102-002_again", "mkdir /srv/keys/shared/in", state=["/srv/keys"], snapshot=True)
    assert fresh.sh(LOOK).replace("3 shared", "2 shared") == before
    assert (
        fresh.sh(f"{ACL}\nacl /srv/keys/shared/in; stat -c %u /srv/keys/key")
        == "access ['beta']\ndefault ['beta']\n812\n"
    )
    go(fresh, "1")
    assert fresh.sh(LOOK).replace("3 shared", "2 shared") == before
    labs.restart(fresh.lab, fresh.name)
    assert fresh.sh(LOOK).replace("3 shared", "2 shared") == before
    go(fresh, "20250102-002_again")
    # By hand, and then back: the snapshot has the numbers of then, the stack others.
    fresh.sh("usermod -u 900 alpha; usermod -u 812 beta; usermod -u 811 alpha; chown 811 /srv/keys/key")
    go(fresh, "--restore-state", "20250102-001_swapped")
    go(fresh, "1")
    assert fresh.sh(LOOK).replace("3 shared", "2 shared") == before


def test_directories_of_state_come_back_exactly(fresh: Rig) -> None:
    """An ACL on one that exists says what it says; modes, attributes and times are as before when it is undone."""
    script = (
        "mkdir -p /srv/app/d /srv/app/plain; chmod 2750 /srv/app /srv/app/d; setfattr -n user.a,b=c -v 1 /srv/app/d"
    )
    applied(fresh, "20250101-001_app", f"{script}; touch -d @1000000000 /srv/app/* /srv/app", state=["/srv/app"])
    look = "cd /srv/app; stat -c '%a %u %g %Y %n' . *; getfattr -m - -d -e hex . * 2>&1"
    before = fresh.sh(look)
    applied(fresh, "20250102-001_else", "echo x >/etc/x")
    assert fresh.sh(look) == before
    script = (
        f"{ACL}\nacl /srv/app/d daemon; chmod 1777 /srv/app/plain; setfattr -x user.a,b=c /srv/app/d; touch /srv/app"
    )
    applied(fresh, "20250103-001_acl", script, 9, verify="exit 1")
    assert fresh.sh(look) == before
    applied(fresh, "20250103-001_acl", script)
    assert fresh.sh(f"{ACL}\ncd /srv/app; acl d; stat -c '%a %n' *") == (
        "access ['daemon']\ndefault ['daemon']\n2770 d\n1777 plain\n"
    )
    # The rights of the group itself are behind the mask: as the script set them.
    assert fresh.sh("getfattr -d -e hex -m posix_acl_access /srv/app/d | grep -c 04000500") == "1\n"


def test_service_whose_account_has_another_number_starts_anew(fresh: Rig) -> None:
    """Its files have followed the name: with the old number it would be locked out, or have another one's."""
    run = "exec sleep 1111"
    services = {
        "app": {"run": run, "user": "app", "check": "true"},
        "other": {"run": run, "user": "daemon", "check": ":"},
    }
    script = "useradd -r -u 811 -U app; install -d -o app -g app /srv/app"
    applied(fresh, "20250101-001_app", script, state=["/srv/app"], services=services)
    look = (
        "ps -o uid= -p $(s6-svstat -o pid /run/service/app); stat -c %u /srv/app; s6-svstat -o pid /run/service/other"
    )
    app, state, other = fresh.sh(look).split()
    assert (app, state) == ("811", "811")
    text = applied(fresh, "20250102-001_number", "usermod -u 900 app")
    assert fresh.sh(look).split() == ["900", "900", other]
    assert "left running: other" in text
    go(fresh, "1")
    assert fresh.sh(look).split() == ["811", "811", other]
