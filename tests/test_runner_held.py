"""What programs hold of a root that a switch takes away: it goes on, is restarted, or is named; and nobody waits for
ever.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig

# Listens at a path, and says what it is called to whoever connects.
LISTENER = """
import os, socket, sys
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1])
one = socket.socket(socket.AF_UNIX); one.bind(sys.argv[1]); one.listen()
while True: one.accept()[0].sendall(b"here")
"""
CONNECT = "python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))'"
CONNECTS = """python3 -c '
import socket
for path, kind in (("/tmp/agent", 1), (chr(0) + "abstract", 1), ("/var/tmp/datagram", 2)):
    socket.socket(socket.AF_UNIX, kind).connect(path)'"""

# Holds one of everything; what is in /tmp, has no name in the file system, or none any more, is nothing to tell of.
HOLDER = """
import ctypes, fcntl, os, signal, socket
here = os.getpid(); os.makedirs("/srv/here", exist_ok=True); os.chdir("/srv/here")
keep = []
def listen(path):
    one = socket.socket(socket.AF_UNIX); one.bind(path); one.listen(); keep.append(one)
def watch(path):
    libc = ctypes.CDLL(None); libc.inotify_add_watch(libc.inotify_init(), path, 0x100)
listen("/srv/stream.sock"); listen("/tmp/agent"); listen(chr(0) + "abstract"); listen("/srv/unlinked")
os.unlink("/srv/unlinked")
datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); datagram.bind("/var/tmp/datagram"); keep.append(datagram)
sequence = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); sequence.bind("/srv/packets"); sequence.listen()
posix = open("/srv/posix.lock", "w"); fcntl.lockf(posix, fcntl.LOCK_EX)
temporary = open("/var/tmp/flock", "w"); fcntl.flock(temporary, fcntl.LOCK_EX)
deleted = open("/srv/deleted", "w"); fcntl.flock(deleted, fcntl.LOCK_EX); os.unlink("/srv/deleted")
os.mkfifo("/srv/fifo"); fifo = os.open("/srv/fifo", os.O_RDWR)
os.mkfifo("/tmp/fifo"); other = os.open("/tmp/fifo", os.O_RDWR)
watch(b"/srv")
plain = open("/srv/plain", "w")
open("/run/holds", "w").write(str(here))
signal.pause()
"""

JAILED = """
import os, signal
os.makedirs("/srv/jail", exist_ok=True); open("/run/jailed", "w")
os.chroot("/srv/jail"); os.chdir("/")
signal.pause()
"""


@contextmanager
def running(rig: Rig, *argv: str, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs on the machine meanwhile, as soon as ``until`` holds."""
    pid = f"/run/test.{abs(hash(argv))}"
    begin = rig.machine.enter("/bin/sh", "-c", f'echo $$ >{pid}; exec "$@"', "sh", *argv)
    with subprocess.Popen(begin, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as program:
        try:
            rig.sh(f"n=0; until {until}; do n=$((n + 1)); [ $n -lt 100 ]; sleep 0.1; done")
            yield program
        finally:
            rig.sh(f"kill -KILL $(cat {pid}) || :")


def test_what_is_bound_to_the_root_before(fresh: Rig) -> None:
    """A service that holds some of it is restarted, all else named, here and in `status`; what is in /tmp lives on."""
    fresh.sh("cat >/srv/listener.py", stdin=LISTENER.encode())
    run = "exec python3 /srv/listener.py /var/spool/app/s.sock"
    # Its listener has left the session, and writes to its log.
    child = "setsid python3 /srv/listener.py /var/spool/child/s.sock & exec sleep 1111"
    services = {"spool": {"run": run}, "child": {"run": child}, "plain": {"run": "exec sleep 2222"}}
    assert fresh.apply("20250101-001_services", ":", services=services).code == 0
    before = fresh.sh("s6-svstat -o pid /run/service/plain")
    locked = "exec 9>/srv/shell.lock; flock 9; exec sleep 3333"
    with (
        running(fresh, "python3", "-c", HOLDER, until="[ -s /run/holds ]"),
        running(fresh, "/bin/sh", "-c", locked, until="pgrep -fx 'sleep 3333'"),
        running(fresh, "python3", "-c", JAILED, until="[ -e /run/jailed ]"),
    ):
        result = fresh.apply("20250102-001_unrelated", "echo x >/etc/unrelated")
        assert result.code == 0, result.text
        for place in ("/var/spool/app/s.sock", "/var/spool/child/s.sock"):
            assert "here" in fresh.sh(f"until {CONNECT} {place}; do sleep 0.1; done", timeout=20)
        fresh.sh(CONNECTS)
        assert fresh.sh("s6-svstat -o pid /run/service/plain") == before
        holder = fresh.sh("cat /run/holds")
        told = {(one.what, one.path) for one in fresh.status().stale if str(one.pid) == holder}
        expected = {
            ("socket", "/srv/stream.sock"), ("socket", "/srv/packets"), ("lock", "/srv/posix.lock"),
            ("FIFO", "/srv/fifo"), ("watch", ""), ("directory", "/srv/here"),
        }  # fmt: skip
        assert told == expected
        others = {(one.name, one.what, one.path) for one in fresh.status().stale if str(one.pid) != holder}
        assert others >= {("sleep", "lock", "/srv/shell.lock"), ("python3", "root directory", "/srv/jail")}
        said = next(
            line for line in result.text.splitlines() if f"(process {holder}) holds what is of the root" in line
        )
        assert all(f"{what} {path}".strip() in said for what, path in expected - {("socket", "/srv/packets")})
        assert "service spool holds what is of the root before (socket /var/spool/app/s.sock): restarted" in result.text
        # Other names of it would keep postfix and cron, as all that takes care, from taking a file.
        assert fresh.sh("stat -c %h /srv/plain /srv/posix.lock").split() == ["1", "1"]
        record = fresh.sh("cat /data/system/migrations/20250102-001_unrelated/stale")
        assert "/srv/posix.lock" in record
        assert any("/srv/fifo" in one for one in fresh.status().troubles)
    assert fresh.status().stale == ()


def test_what_has_mounts_of_its_own(fresh: Rig) -> None:
    """The kernel moves it to no other root: a service is restarted, others are named; what they made until then is
    there, also what is made while the root changes.
    """
    counts = "n=0; while :; do n=$((n+1)); echo $n >/srv/$0.new; mv /srv/$0.new /srv/$0; done"
    services = {"apart": {"run": f"exec unshare -m sh -c '{counts}' service"}}
    assert fresh.apply("20250101-001_apart", ":", services=services).code == 0
    with running(fresh, "unshare", "-m", "sh", "-c", counts, "other", until="[ -s /srv/other ]"):
        result = fresh.apply("20250102-001_unrelated", "echo x >/etc/unrelated")
        assert result.code == 0, result.text
        assert "service apart holds what is of the root before (root directory /): restarted" in result.text
        assert {(one.what, one.path) for one in fresh.status().stale if one.name == "sh"} == {("root directory", "/")}
        fresh.sh("n=$(cat /srv/service); until [ $(cat /srv/service) != $n ]; do sleep 0.1; done", timeout=20)
    assert fresh.run(RUNNER, "rollback", "0").code == 0


def test_tmp_is_a_mount_of_its_own(fresh: Rig) -> None:
    """It is no part of the root: no drift, no layer; /tmp is empty after a restart, /var/tmp is not."""
    fresh.sh("echo x >/tmp/mine; echo x >/var/tmp/mine; stat -c '%a %U' /tmp /var/tmp | grep -c '1777 root' | grep 2")
    inodes = fresh.sh("stat -c %d:%i /tmp /tmp/mine /var/tmp /var/tmp/mine")
    assert fresh.apply("20250101-001_one", "echo x >/tmp/x; echo x >/var/tmp/x; echo x >/etc/x").code == 0
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    assert fresh.sh("stat -c %d:%i /tmp /tmp/mine /var/tmp /var/tmp/mine") == inodes
    assert "tmp" not in fresh.sh(f"{RUNNER} drift --raw")
    # As the runner before this one left it.
    fresh.sh("cd /data/system/upper/live/upper && mkdir -p tmp var/tmp && echo old >tmp/old && echo old >var/tmp/old")
    fresh.sh("mkdir /tmp/deep; touch /tmp/deep/fixed; chattr +i /tmp/deep/fixed")
    try:
        lab.restart(fresh.lab, fresh.name)
        assert fresh.sh("cat /var/tmp/mine /var/tmp/old; ls /tmp") == "x\nold\nold\n"
        assert "tmp" not in fresh.sh(f"{RUNNER} drift --raw")
        # What refuses to go is in nobody's way.
        fresh.sh("until [ $(ls /data/system/temporary | wc -l) = 2 ]; do sleep 0.1; done", 20)
    finally:
        fresh.sh("find /data/system/temporary -name fixed -exec chattr -i {} +")


def test_migration_waits_for_a_package_manager(fresh: Rig) -> None:
    """Whose lock would be granted twice after the switch: it is said by whom. Also for one that comes while the script
    runs.
    """
    held = "exec 9>/var/lib/dpkg/lock-frontend; flock 9; echo >/run/held; sleep 3"
    with running(fresh, "/bin/sh", "-c", held, until="[ -e /run/held ]") as program:
        result = fresh.apply("20250101-001_waits", ":")
        assert result.code == 0, result.text
        assert re.search(r"waiting for .* \(process \d+\), which holds /var/lib/dpkg/lock-frontend", result.text)
        assert program.wait(5) == 0
    held = "import fcntl, time; f = open('/var/lib/dpkg/lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(3)"
    bundle = fresh.migration("20250101-002_waits", "echo begun; sleep 1")
    apply = fresh.machine.enter(RUNNER, "apply", "-")
    with subprocess.Popen(apply, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as applying:
        assert applying.stdin
        assert applying.stdout
        applying.stdin.write(bundle)
        applying.stdin.close()
        assert any(b"begun" in line for line in applying.stdout)
        with running(fresh, "python3", "-c", held, until="true") as program:
            said = applying.stdout.read().decode()
            assert "which holds /var/lib/dpkg/lock\n" in said
            assert program.poll() == 0
        assert applying.wait(30) == 0
