"""What a layer, or a clone of the drift, cannot keep is refused or named before the commit; what can be kept is."""

from __future__ import annotations

from tests.rig import RUNNER, Rig

LISTEN = """
import os, socket
one = socket.socket(socket.AF_UNIX); one.bind("/opt/app/run/s.sock"); one.listen()
open("/run/listening", "w").close()
while True: one.accept()
"""
# A tree that is deeper than a path may be long, and one whose names in the upper are.
DEEP = """
import os
for top, name, depth in (("/srv/deep", "d" * 200, 30), ("/srv/long", "l" * 250, 16), ("/srv/many", "m", 1010)):
    os.mkdir(top); here = os.open(top, 0)
    for _ in range(depth): os.mkdir(name, dir_fd=here); here = os.open(name, 0, dir_fd=here)
    with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here), "w") as file: file.write(top)
"""
LOOK = """
import os
for top, name, depth in (("/srv/deep", "d" * 200, 30), ("/srv/long", "l" * 250, 16), ("/srv/many", "m", 1010)):
    here = os.open(top, 0)
    for _ in range(depth): here = os.open(name, 0, dir_fd=here)
    print(open(os.open("file", 0, dir_fd=here)).read())
"""


def test_what_nobody_may_change_is_refused(fresh: Rig) -> None:
    """`chattr +i` and `+a`, on files, directories, in state that is new or known: by path, and nothing is touched."""
    assert fresh.apply("20250101-001_app", "mkdir -p /srv/app; echo x >/srv/app/x", state=["/srv/app"]).code == 0
    before = fresh.tree()
    script = """
    echo x >/etc/fixed; chattr +i /etc/fixed; chattr +a /etc/group; mkdir '/opt/a dir'; chattr +i '/opt/a dir'
    echo y >/srv/app/y; chattr +a /srv/app/y; mkdir -p /srv/new/d; touch /srv/new/d/log; chattr +a /srv/new/d/log
    chattr +i /srv/app
    """
    result = fresh.apply("20250102-001_fixed", script, state=["/srv/new"])
    assert result.code == 9, result.text
    for path in ("/etc/fixed", "/etc/group", "/opt/a\\040dir", "/srv/app/y", "/srv/new/d/log", "/srv/app"):
        assert f" {path}" in result.text.partition("cannot keep that:")[2], path
    assert fresh.tree() ^ before == frozenset()
    undone = "chattr -i /srv/app; chattr -i -a /etc/fixed /etc/group '/opt/a dir' /srv/app/y /srv/new/d/log"
    result = fresh.apply("20250102-001_fixed", f"{script}\n{undone}", state=["/srv/new"])
    assert result.code == 0, result.text
    # Drift keeps it, and is told of it; a layer of it would not.
    fresh.sh("echo mine >/etc/mine; mkdir /opt/held; touch /opt/held/log")
    fresh.sh("chattr +i /etc/mine; chattr +a /opt/held /etc/shells")
    assert fresh.apply("20250103-001_other", "echo other >/etc/other").code == 0
    fresh.sh("! rm -f /etc/mine; ! rm -f /opt/held/log; ! (: >/etc/shells)")
    fresh.sh("test $(lsattr -d /etc/mine /opt/held | grep -c -e -i- -e -a-) = 2")
    drifted = fresh.sh(f"{RUNNER} drift --raw")
    assert "M f 644 0 0 " in next(line for line in drifted.splitlines() if " etc/shells" in line)
    result = fresh.run(RUNNER, "drift", "adopt", "/etc/mine")
    assert (result.code, "/etc/mine was made immutable" in result.text) == (4, True), result.text
    result = fresh.apply("20250104-001_shells", "echo theirs >>/etc/shells", drift="adopt")
    assert (result.code, "/etc/shells was made immutable" in result.text) == (3, True), result.text
    assert fresh.run(RUNNER, "drift", "discard", "/etc/mine", "/opt/held", "/etc/shells").code == 0
    fresh.sh("test ! -e /etc/mine; test ! -e /opt/held; echo >>/etc/shells")


def test_flags_that_nothing_else_goes_with_are_told(fresh: Rig) -> None:
    """A new file keeps what `chattr` set; of one that is as it was, a layer has nothing to keep it with."""
    script = "mkdir /opt/new; chattr +S /opt/new; touch /opt/new/A; chattr +A /opt/new/A; exec 3<>/etc/group"
    result = fresh.apply("20250101-001_new", script)
    assert (result.code, "chattr" in result.text) == (0, False), result.text
    assert fresh.sh("lsattr -d /opt/new/A | cut -d' ' -f1 | tr -d e-").strip() == "SA"
    result = fresh.apply("20250102-001_old", "chattr +A /etc/shells; chattr +d /etc/default")
    assert result.code == 0, result.text
    assert "chattr alone is no change that a layer keeps: /etc/shells /etc/default" in result.text


def test_sockets_are_not_adopted(fresh: Rig) -> None:
    """What is adopted beside one goes into the layer; the program is reached as before, in directories of any kind."""
    fresh.sh("mkdir -p /opt/app/run /opt/app/etc; echo x >/opt/app/etc/x; mkfifo /opt/app/etc/fifo")
    fresh.sh("cat >/run/listen.py; python3 /run/listen.py >/dev/null 2>&1 &", stdin=LISTEN.encode())
    fresh.sh("until [ -e /run/listening ]; do sleep 0.1; done")
    result = fresh.run(RUNNER, "drift", "adopt", "/opt/app/run/s.sock")
    assert (result.code, "socket" in result.text) == (4, True), result.text
    inode = fresh.sh("stat -c %i /opt/app/run/s.sock")
    result = fresh.run(RUNNER, "drift", "adopt", "/opt/app")
    assert result.code == 0, result.text
    assert "/opt/app/run/s.sock is a socket, which is its program's: it stays as it is" in result.text
    layer = "/data/system/layers/*_adopt_app"
    fresh.sh(f"test -p {layer}/opt/app/etc/fifo; cat {layer}/opt/app/etc/x; test ! -e {layer}/opt/app/run/s.sock")
    assert fresh.sh("stat -c %i /opt/app/run/s.sock; cat /opt/app/etc/x") == f"{inode}x\n"
    told = {line.split(" ")[8] for line in fresh.sh(f"{RUNNER} drift --raw").splitlines() if "opt/app" in line}
    assert told == {"opt/app/run/s.sock"}


def test_drift_that_is_too_deep_for_a_name_is_in_nobodys_way(fresh: Rig) -> None:
    """Whatever a program makes, migrations and the way back go on, and keep it."""
    fresh.sh("cat >/run/deep.py; python3 /run/deep.py", stdin=DEEP.encode())
    fresh.sh("cat >/run/look.py", stdin=LOOK.encode())
    assert fresh.apply("20250101-001_one", "echo x >/etc/one; mkdir -m 711 /srv/other; chmod 751 /srv").code == 0
    assert fresh.sh("python3 /run/look.py; stat -c %a /srv") == "/srv/deep\n/srv/long\n/srv/many\n751\n"
    assert fresh.apply("20250102-001_two", ":", verify="exit 1").code == 9
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    assert fresh.sh("python3 /run/look.py") == "/srv/deep\n/srv/long\n/srv/many\n"
    before = fresh.sh("readlink /data/system/generations/current")
    result = fresh.apply("20250103-001_removes", "rm -rf /srv")
    assert (result.code, "/srv" in result.text) == (9, True), result.text
    assert fresh.sh("readlink /data/system/generations/current") == before
    assert fresh.run(RUNNER, "drift", "discard", "/srv/deep", "/srv/long", "/srv/many").code == 0
    fresh.sh("test ! -e /srv/deep; test ! -e /srv/many")
    made = fresh.apply("20250104-001_deep", f"python3 -c '{DEEP}'")
    assert (made.code, "too long" in made.text, len(made.text) < 4096) == (9, True, True), made.text
