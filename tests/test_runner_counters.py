"""Programs of many kinds work on files while the machine is switched again and again: nothing is lost."""

from __future__ import annotations

import json
import subprocess
import time

from pyinfra_overlaymig.runner import standstill
from tests.rig import RUNNER, Rig

COUNTER = """
echo 0 >/srv/cnt; done=0
while [ ! -e /run/enough ]; do
    n=$(cat /srv/cnt); echo $((n+1)) >/srv/cnt.new && mv /srv/cnt.new /srv/cnt || exit 1
    done=$((done+1))
done
[ $(cat /srv/cnt) = $done ] && echo $done
"""

# One process for each function; each says how often it went well, and that what it left says the same.
PROGRAMS = r"""
import json, os, sqlite3, sys, time
TOP = sys.argv[1]
def enough(): time.sleep(0.004); return os.path.exists("/run/enough")
def write(path, text, flags=os.O_CREAT | os.O_EXCL):
    fd = os.open(path, os.O_WRONLY | flags); os.write(fd, text.encode()); os.fsync(fd); os.close(fd)
def read(path):
    with open(path) as file: return file.read()

def replaced(top):
    "a file is written beside, synced, renamed into place, and its directory synced"
    n = 0; write(f"{top}/value", "0")
    while not enough():
        assert int(read(f"{top}/value")) == n
        n += 1; write(f"{top}/value.new", str(n)); os.rename(f"{top}/value.new", f"{top}/value")
        fd = os.open(top, os.O_RDONLY); os.fsync(fd); os.close(fd)
    return n, int(read(f"{top}/value"))

def database(top):
    n = 0
    with sqlite3.connect(f"{top}/db") as db: db.execute("create table t (n)")
    while not enough():
        db = sqlite3.connect(f"{top}/db", timeout=0)
        with db: db.execute("insert into t values (?)", (n,))
        db.close(); n += 1
    db = sqlite3.connect(f"{top}/db")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    return n, db.execute("select count(distinct n) from t").fetchone()[0]

def log(top):
    "a log that is opened for each line, and rotated"
    n = 0
    while not enough():
        with open(f"{top}/log", "a") as file: file.write(f"{n}\n")
        n += 1
        if n % 50 == 0: os.rename(f"{top}/log", f"{top}/log.{n:09}")
    lines = "".join(read(f"{top}/{name}") for name in sorted(os.listdir(top), key=lambda one: one.ljust(99, "~")))
    return n, len(set(map(int, lines.split())))

def held(top):
    "a log that stays open"
    n = 0
    with open(f"{top}/log", "a") as file:
        while not enough(): file.write(f"{n}\n"); file.flush(); n += 1
    return n, len(read(f"{top}/log").split())

def produce(top):
    "a queue of directories: made aside, and brought into view by a rename"
    n = 0
    for name in ("new", "ready", "done"): os.makedirs(f"{top}/../queue/{name}", exist_ok=True)
    os.chdir("/"); queue = os.path.realpath(f"{top}/../queue")
    while not enough():
        os.mkdir(f"{queue}/new/{n}"); write(f"{queue}/new/{n}/job", str(n))
        os.rename(f"{queue}/new/{n}", f"{queue}/ready/{n}")
        n += 1
    write(f"{queue}/last", str(n))
    return n, n

def consume(top):
    "whoever renames it has the job, and nobody has it twice"
    n = 0; queue = os.path.realpath(f"{top}/../queue")
    while not os.path.isdir(f"{queue}/done"): time.sleep(0.01)
    last = None
    while last is None or n < last:
        for name in os.listdir(f"{queue}/ready"):
            os.rename(f"{queue}/ready/{name}", f"{queue}/done/{name}")
            assert read(f"{queue}/done/{name}/job") == name
            os.unlink(f"{queue}/done/{name}/job"); os.rmdir(f"{queue}/done/{name}"); n += 1
        if last is None and os.path.exists(f"{queue}/last"): last = int(read(f"{queue}/last"))
    return n, last - len(os.listdir(f"{queue}/done"))

def forks(top):
    "children that make a file and end, as fast as it goes"
    n = 0
    while not enough():
        child = os.fork()
        if not child:
            write(f"{top}/{n}", str(n)); os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        os.link(f"{top}/{n}", f"{top}/link"); os.unlink(f"{top}/{n}"); assert read(f"{top}/link") == str(n)
        os.unlink(f"{top}/link"); n += 1
    return n, n - len(os.listdir(top))

def excluded(top):
    "two of them, and a lock file between them"
    n = 0; top = f"{top}/../excluded"; os.makedirs(top, exist_ok=True)
    try: write(f"{top}/value", "0")
    except FileExistsError: time.sleep(0.1)
    while not enough():
        try: write(f"{top}/lock", "")
        except FileExistsError: continue
        value = int(read(f"{top}/value")); write(f"{top}/value", str(value + 1), os.O_TRUNC); os.unlink(f"{top}/lock")
        n += 1
    write(f"{top}/mine.{os.getpid()}", str(n))
    return n, -1

children = {}
for number, what in enumerate((replaced, database, log, held, produce, consume, forks, excluded, excluded)):
    place = f"{TOP}/{what.__name__}.{number}"; os.makedirs(place)
    tell, tells = os.pipe(); child = os.fork()
    if not child:
        try: os.write(tells, json.dumps([what.__name__, *what(place)]).encode())
        except BaseException as error: os.write(tells, json.dumps([what.__name__, repr(error)]).encode())
        os._exit(0)
    os.close(tells); children[child] = tell
found = [json.loads(os.read(tell, 99999)) for tell in children.values()]
total = sum(one[1] for one in found if one[0] == "excluded")
both = ["excluded", total, int(read(f"{TOP}/excluded/value"))]
print(json.dumps([one if one[0] != "excluded" else both for one in found]))
"""


def test_nothing_is_lost_over_many_switches(fresh: Rig) -> None:
    """Counters, databases, logs, queues, forks and locks: each says itself what it did, and finds just that."""
    assert fresh.apply("20250101-001_one", "echo 1 >/etc/one").code == 0
    fresh.sh("cat >/root/programs", stdin=PROGRAMS.encode())
    programs = [("/bin/sh", "-c", COUNTER), ("python3", "/root/programs", "/srv/jobs")]
    running = [
        subprocess.Popen(fresh.machine.enter(*argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for argv in programs
    ]
    try:
        fresh.sh("until [ -s /srv/cnt ] && [ -e /srv/jobs/excluded/value ]; do sleep 0.1; done")
        said_of_them = ""
        for goal in ("0", "20250101-001_one") * 15:
            done = fresh.run(RUNNER, "rollback", goal)
            assert done.code == 0, done.text
            said_of_them += done.text
    finally:
        fresh.sh(": >/run/enough")
        said = [one.communicate(timeout=60)[0].decode() for one in running]
    assert "not carried over" not in said_of_them
    # On a slow disk a rename may take longer than anybody must wait for it.
    assert said_of_them.count("did not stand still") < 15
    assert int(said[0]) > 40, said[0]
    for name, *counts in json.loads(said[1]):
        assert len(counts) == 2, (name, counts)
        assert counts[0] == counts[1] > 20, (name, counts)


TRACER = """
import ctypes, os, subprocess, time
traced = subprocess.Popen(["sleep", "7002"])
libc = ctypes.CDLL(None)
libc.ptrace(16, traced.pid, None, None); os.waitpid(traced.pid, 0); libc.ptrace(7, traced.pid, None, None)
open("/run/traced", "w").write(str(traced.pid))
time.sleep(1000)
"""


def test_stopped_and_traced_processes(fresh: Rig) -> None:
    """One that is stopped stays so, and can go on; one that is somebody else's to hold is named, and runs on."""
    fresh.sh("sleep 7001 >/dev/null 2>&1 & sleep 0.5; kill -STOP $!; echo $! >/run/stopped")
    fresh.sh("cat >/root/tracer; setsid python3 /root/tracer >/dev/null 2>&1 &", stdin=TRACER.encode())
    traced = fresh.sh("until [ -s /run/traced ]; do sleep 0.1; done; cat /run/traced")
    result = fresh.apply("20250101-001_one", "echo 1 >/etc/one")
    assert result.code == 0, result.text
    assert f"process {traced} did not stand still: somebody else traces it" in result.text
    state = "sed 's/.*) //; s/ .*//' /proc/$(cat /run/stopped)/stat"
    assert fresh.sh(state).strip() == "T"
    fresh.sh(f"kill -CONT $(cat /run/stopped); sleep 0.2; test $({state}) = S; kill $(cat /run/stopped /run/traced)")


def test_what_only_waits_for_the_disk_is_still() -> None:
    """It stops at the end of its call: nobody waits for it, and it is not told."""
    for argv, still in ((("cat",), True), (("sleep", "100"), False)):
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as program:
            deadline = time.monotonic() + 5
            while standstill._changes_no_name(program.pid) is not still and time.monotonic() < deadline:
                time.sleep(0.01)
            assert standstill._changes_no_name(program.pid) is still
            program.kill()
    assert not standstill._changes_no_name(program.pid)
