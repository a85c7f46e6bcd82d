"""The runner under a real s6-svscan on this host: states, starts, stops, what is left behind, who waits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import (
    as_before,
    bindings,
    in_use,
    linux,
    mountinfo,
    needs,
    package_manager,
    processes,
    readiness,
    s6,
    services,
    services_follow,
    store,
    strays,
    supervision,
)
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import Leave

s6_is_here = pytest.mark.skipif(
    not shutil.which("s6-svscan") or os.geteuid() != 0, reason="needs root and the package s6 on this host"
)


class Machine:
    """A scan directory with its s6-svscan, and a root that defines services."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.scandir = top / "scan"
        self.defined = top / "root" / paths.SERVICES
        self.journal = top / "journal"
        for directory in (self.scandir, self.defined, self.journal):
            directory.mkdir(parents=True)
        with (top / "said").open("w") as said:
            self.svscan = subprocess.Popen(
                ["s6-svscan", self.scandir], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        assert within(5, services.supported)

    def define(self, name: str, main: str, log: bool = True, **others: str) -> Path:
        """A service directory of the root."""
        place = self.defined / name
        shutil.rmtree(place, ignore_errors=True)
        files = {
            "run": f"#!/bin/sh\nexec 2>&1\n{main}\n",
            **{key.replace("__", "/").replace("_", "-"): text for key, text in others.items()},
        }
        if log:
            folder = self.top / "state/var/log" / name
            folder.mkdir(parents=True, exist_ok=True)
            files["log/run"] = f"#!/bin/sh\nexec s6-log n2 {folder}\n"
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
            (place / path).chmod(0o755)
        return place

    def install(self, name: str, main: str, log: bool = True, **others: str) -> str:
        """The same, supervised."""
        assert supervision.install(str(self.define(name, main, log, **others)), name)
        return services.linked(name)

    def end(self) -> None:
        """Nothing of it is left."""
        for name in services.supervised():
            s6.control(services.linked(name), "k")
            supervision.drop(name, force=True)
        self.svscan.terminate()
        self.svscan.wait(20)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One of its own for each test."""
    for name, value in {
        "SCANDIR": tmp_path / "scan",
        "SERVICEDIRS": tmp_path / "live",
        "LIVE": tmp_path / "root",
        "STATE": tmp_path / "state",
        "LOGS": tmp_path / "state/var/log",
        "INITIALIZED": tmp_path / "state/services",
        "SYSTEM": tmp_path / "system",
        "BASE_SERVICES": tmp_path / "system/base-services",
        "RUN": tmp_path / "run",
        "LAYERS": tmp_path / "layers",
        "MIGRATIONS": tmp_path / "migrations",
        "STAGING": tmp_path / "staging",
    }.items():
        monkeypatch.setattr(paths, name, str(value))
    monkeypatch.setattr(store, "stack", lambda _n=None: ())
    monkeypatch.setattr(bindings, "stale", list)
    for name in ("system", "run"):
        (tmp_path / name).mkdir()
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.end()


def within(seconds: float, test: Callable[[], object]) -> bool:
    """Whether ``test`` is true by then."""
    until = time.monotonic() + seconds
    while not test():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def status(place: str) -> s6.Status:
    found = s6.read(place)
    assert found
    return found


def as_s6_says(place: str) -> bool:
    """What is read is what s6-svstat prints."""
    fields = "up,wantedup,ready,paused,pid,updownfor,readyfor"
    said = subprocess.run(["s6-svstat", "-o", fields, place], capture_output=True, text=True, check=True).stdout.split()
    found = status(place)
    now = time.time()
    flags = [str(one).lower() for one in (found.up, found.wanted_up, found.ready, found.paused)]
    assert said[:5] == [*flags, str(found.pid or -1)]
    assert abs(int(said[5]) - (now - found.since)) < 1.5
    if found.told_ready:
        assert abs(int(said[6]) - (now - found.ready_since)) < 1.5
    return True


def running(words: str) -> bool:
    return any(" ".join(processes.arguments(one.pid)) == words for one in processes.every())


@s6_is_here
def test_state_is_what_s6_says(machine: Machine) -> None:
    """Starting, ready, paused, meant to be down, in `finish`, down, up once, dead; of none, nothing."""
    place = machine.install(
        "a", "until [ -e go ]; do sleep 0.01; done; echo >&3; exec 3>&-; trap 'exit 3' TERM; while :; do sleep 0; done",
        notification_fd="3\n", finish="#!/bin/sh\nuntil [ -e finish-now ]; do sleep 0.01; done\n", timeout_finish="0\n",
    )  # fmt: skip
    assert within(5, lambda: status(place).up)
    assert not status(place).ready
    assert as_s6_says(place)
    Path(place, "go").touch()
    assert within(5, lambda: status(place).ready)
    assert as_s6_says(place)
    s6.control(place, "p")
    assert within(5, lambda: status(place).paused)
    assert as_s6_says(place)
    s6.control(place, "cd")
    assert within(5, lambda: status(place).finishing)
    assert as_s6_says(place)
    assert not status(place).stopped
    Path(place, "finish-now").touch()
    assert within(5, lambda: status(place).stopped)
    assert as_s6_says(place)
    assert [(one.exit_code, one.signal) for one in s6.deaths(place)] == [(3, 0)]
    assert abs(s6.deaths(place)[0].at - time.time()) < 5
    s6.control(place, "o")
    assert within(5, lambda: status(place).up)
    assert as_s6_says(place)
    os.kill(status(place).pid, signal.SIGKILL)
    assert within(5, lambda: len(s6.deaths(place)) == 2)
    assert s6.deaths(place)[1].signal == signal.SIGKILL
    assert s6.read(f"{machine.top}/nothing") is None
    assert s6.read(str(machine.defined / "a")) is None


def test_state_of_s6_2_13() -> None:
    """It has eight bytes more, of the process group."""
    old = bytes.fromhex("400000006b0a0c4d28b623c0" * 2) + (4711).to_bytes(8, "big") + bytes(2) + b"\x0c"
    new = old[:32] + (4711).to_bytes(8, "big") + old[32:]
    assert s6.unpack(old) == s6.unpack(new)
    assert (s6.unpack(new).pid, s6.unpack(new).ready, s6.unpack(new).wanted_up) == (4711, True, True)


@s6_is_here
def test_link_and_drop_leave_nothing(machine: Machine) -> None:
    """Supervised with its logger at the end of one call, and both gone at the end of the other, promptly."""
    place = machine.install("a", "exec sleep 11001")
    assert status(place).up or within(1, lambda: status(place).up)
    assert s6.read(f"{place}/log")
    began = time.monotonic()
    assert supervision.drop("a")
    assert time.monotonic() - began < 1
    assert not list(Path(paths.SERVICEDIRS).iterdir())
    assert not Path(place).is_symlink()
    assert not running("sleep 11001")
    assert supervision.drop("a")


@s6_is_here
@pytest.mark.parametrize(
    "stray",
    [
        *("setsid sleep 11002 &", "sleep 11002 &", "(trap '' TERM HUP; exec setsid sleep 11002) &"),
        "export SYSTEM_MIGRATE_SERVICE=a; (setsid sh -c 'exec sleep 11002 </dev/null >/dev/null 2>&1' &);",
    ],
)
def test_drop_ends_what_is_left_behind(machine: Machine, stray: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In a session of its own or the service's, deaf, forked twice: named and ended, and the logger with it."""
    machine.install("a", f"{stray} exec sleep 11003", timeout_kill="500\n")
    assert within(5, lambda: running("sleep 11002"))
    assert supervision.drop("a")
    assert not running("sleep 11002")
    assert "service a left process" in capfd.readouterr().err
    assert machine.install("a", "exec sleep 11003")


def test_what_stands_still_hears_its_signal_at_once() -> None:
    """A stopped process would hear TERM when somebody continues it, and be killed at the limit."""
    with subprocess.Popen(["/usr/bin/sleep", "11009"]) as child:
        child.send_signal(signal.SIGSTOP)
        found = processes.read(child.pid)
        assert found
        assert processes.end([found], signal.SIGTERM, 20.0) == []
        assert child.wait() == -signal.SIGTERM


@s6_is_here
@pytest.mark.parametrize("step", ["drop", "pause"])
def test_hung_check_ends_with_its_service(machine: Machine, step: str) -> None:
    """It is neither waited for nor left: it may hold the log, or state."""
    poll = "s6-notifyoncheck -d -3 3 -n 0 -s 100 -w 500 -t 100000"
    machine.install("a", f"exec {poll} sleep 11017", notification_fd="3\n", data__check="#!/bin/sh\nsleep 11018\n")
    assert within(5, lambda: running("sleep 11018"))
    began = time.monotonic()
    assert supervision.drop("a") if step == "drop" else supervision.pause(str(machine.journal), ["a"])
    assert time.monotonic() - began < 2
    assert not running("sleep 11018")


@s6_is_here
def test_services_that_nothing_touches_cost_no_process(machine: Machine) -> None:
    """To look after ten of them takes no child, and a moment."""
    for number in range(10):
        machine.define(f"s{number}", "echo >&3; exec sleep 11019", notification_fd="3\n")
    assert services_follow.follow(str(machine.journal), [])
    forks = Path("/proc/self/task") / str(os.getpid()) / "children"
    before = forks.read_text()
    began = time.monotonic()
    assert services_follow.follow(str(machine.journal), [])
    assert time.monotonic() - began < 0.1
    assert forks.read_text() == before


@s6_is_here
def test_drop_goes_on_where_it_was_killed(machine: Machine) -> None:
    """Without its link, and s6-svscan not told: the next call does what is missing."""
    place = machine.install("a", "exec sleep 11004")
    Path(place).unlink()
    assert supervision.drop("a")
    assert not running("sleep 11004")


@s6_is_here
def test_deaf_service_is_named_and_on_the_way_back_killed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Forward, what wanted it stopped fails; backward, nothing depends on its will."""
    monkeypatch.setattr(supervision, "STOP_WITHIN", 0.3)
    monkeypatch.setattr(supervision, "_ONCE_MORE", 0.3)
    place = machine.install("deaf", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    log = machine.top / "state/var/log/deaf/current"
    assert within(5, lambda: log.exists() and log.read_text())
    assert not supervision.pause(str(machine.journal), ["deaf"])
    assert "service deaf did not stop within" in capfd.readouterr().err
    assert (machine.journal / "paused").read_text() == "deaf\n"
    assert status(place).up
    assert supervision.pause(str(machine.journal), ["deaf"], force=True)
    assert (machine.journal / "paused").read_text() == "deaf\n"
    assert status(place).stopped
    supervision.resume(str(machine.journal))
    assert within(5, lambda: status(place).up)
    time.sleep(0.2)
    assert not supervision.drop("deaf")
    assert supervision.drop("deaf", force=True)
    assert not Path(place).is_symlink()


@s6_is_here
def test_going_to_another_generation_depends_on_no_will(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Deaf ones are killed; what somebody made by hand and cannot be up does not decide, and is up when it can be."""
    monkeypatch.setattr(supervision, "STOP_WITHIN", 0.3)
    monkeypatch.setattr(supervision, "_ONCE_MORE", 0.3)
    monkeypatch.setattr(readiness, "limit", lambda _name: 1)
    monkeypatch.setattr(services, "ROOT", str(machine.top / "image"))
    deaf = machine.define(
        "deaf", "trap '' TERM; echo deaf; echo >&3; exec 3>&-; while :; do sleep 0.1; done", notification_fd="3\n"
    )
    monkeypatch.setattr(services, "layer", lambda name: "20250101-001_x" if name == "deaf" else services.BASE)
    machine.define("needs", "echo >&3; exec sleep 11020", notification_fd="3\n", data__needs="deaf\n")
    machine.define("above", "echo >&3; exec sleep 11021", notification_fd="3\n", data__needs="needs\n")
    uses = machine.define(
        "uses", f"[ -e {deaf} ] || exit 1; echo >&3; exec sleep 11022", notification_fd="3\n", data__needs=""
    )
    assert services_follow.follow(str(machine.journal), [])
    shutil.move(deaf, machine.top / "deaf")
    (uses / "run").write_text("#!/bin/sh\nexit 1\n")
    journal = machine.top / "rollback"
    journal.mkdir()
    assert services_follow.follow(str(journal), [], force=True, more=["uses"])
    said = capfd.readouterr().err
    assert "service deaf does not stop: it is killed" in said
    assert "service needs is left down: it needs deaf, which generation 0 does not have" in said
    assert "service above is left down: it needs needs" in said
    assert "not up: uses. Made by hand" in said
    assert services_follow.follow(str(journal), [], force=True)
    shutil.move(machine.top / "deaf", deaf)
    assert services_follow.follow(str(journal), [], force=True)
    assert within(2, lambda: status(services.linked("above")).ready and status(services.linked("needs")).ready)


@s6_is_here
def test_pause_and_resume(machine: Machine) -> None:
    """What is meant to be up is stopped, noted, started again, and nothing else; also where a supervisor was killed."""
    up, down = machine.install("up", "exec sleep 11005"), machine.install("down", "exec sleep 11006")
    s6.control(down, "d")
    assert within(5, lambda: status(down).stopped)
    os.kill(s6.supervisor(up), signal.SIGKILL)
    assert supervision.pause(str(machine.journal), ["down", "up", "nothing"])
    assert (machine.journal / "paused").read_text() == "up\n"
    supervision.resume(str(machine.journal))
    assert within(5, lambda: status(up).up)
    assert status(down).stopped


@s6_is_here
def test_ready_is_waited_for(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """One that tells, one that does not, one that dies, one that gives up, one that is late: all at once."""
    machine.install("tells", "sleep 0.3; echo >&3; exec sleep 11007", notification_fd="3\n")
    machine.install("silent", "exec sleep 11008")
    machine.install("dies", "echo no config; exit 1")
    machine.install("gives-up", "exit 1", finish="#!/bin/sh\nexit 125\n")
    machine.install("late", "exec sleep 11009", notification_fd="3\n")
    machine.install("above", "exec sleep 11010", notification_fd="3\n", data__needs="late\n")
    began = time.monotonic()
    waits = [readiness.Waiting(name, 5) for name in ("tells", "silent", "dies", "gives-up", "late", "above")]
    waits.append(readiness.Waiting("nothing", 5))
    assert sorted(readiness.wait(waits)) == ["above", "dies", "gives-up", "late", "nothing"]
    assert 4.9 < time.monotonic() - began < 8
    said = capfd.readouterr().err
    assert "service dies died three times while it started" in said
    assert "    no config" in said
    assert "service gives-up has given up" in said
    assert "service late was not ready within 5 s" in said
    assert "it wrote nothing" in said
    assert "service above needs late" in said
    assert "service nothing is not supervised" in said


@s6_is_here
def test_settled_service_is_not_waited_for(machine: Machine) -> None:
    """One that lives long enough is ready at once by a clock that nobody sets; deaths of before do not count."""
    place = machine.install("a", "sleep 0.1; exit 1")
    assert within(10, lambda: len(s6.deaths(place)) >= 4)
    Path(place, "run").write_text("#!/bin/sh\nexec sleep 11011\n")
    assert readiness.ready("a")
    began = time.monotonic()
    assert readiness.ready("a")
    assert time.monotonic() - began < 0.2


@s6_is_here
def test_follow_brings_removes_and_leaves(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """New ones start in order, what is gone goes, dependants stop first, and what nothing touches goes on."""
    machine.define("app", "echo >&3; exec sleep 11012", notification_fd="3\n", data__needs="store\n")
    machine.define("store", "echo >&3; exec sleep 11013", notification_fd="3\n")
    assert services_follow.follow(str(machine.journal), [])
    said = capfd.readouterr().out
    assert said.index("starting service store") < said.index("starting service app")
    before = status(services.linked("app")).pid
    assert services_follow.follow(str(machine.journal), [])
    assert "left running: store app" in capfd.readouterr().out
    assert status(services.linked("app")).pid == before
    shutil.rmtree(machine.defined)
    assert services_follow.follow(str(machine.journal), [])
    said = capfd.readouterr().out
    places = [said.index(f"{what} service {name}") for what in ("stopping", "removing") for name in ("app", "store")]
    assert places == sorted(places)
    assert not list(Path(paths.SERVICEDIRS).iterdir())


@s6_is_here
def test_late_after_a_boot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base's service counts once it was ready here, one that never was, or is down by its wish, does not."""
    monkeypatch.setattr(services, "ROOT", paths.LIVE)
    monkeypatch.setattr(readiness, "limit", lambda _name: 0.5)
    for name in ("good", "never", "wish"):
        machine.define(name, "echo >&3; exec sleep 11016", notification_fd="3\n")
    (machine.defined / "wish/down").touch()
    (machine.defined / "never/run").write_text("#!/bin/sh\nexec sleep 11016\n")
    assert supervision.boot(paths.LIVE)
    s6.scan(paths.SCANDIR, "a")
    assert readiness.late() == []
    monkeypatch.setattr(store, "stack", lambda _n=None: ("20250101-001_x",))
    assert within(5, lambda: (found := s6.read(services.linked("good"))) and found.ready)
    readiness.remember()
    assert (machine.top / "system/base-services").read_text() == "good\n"
    s6.control(services.linked("good"), "d")
    assert within(5, lambda: status(services.linked("good")).stopped)
    assert readiness.late() == ["good"]


@s6_is_here
def test_on_the_way_back_all_that_was_up_is_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One cannot be laid out, one never gets ready: the others are up all the same, and those are named."""
    monkeypatch.setattr(readiness, "limit", lambda _name: 2)
    for name in ("good", "bad", "ugly"):
        machine.define(name, "echo >&3; exec sleep 11014", notification_fd="3\n")
    assert services_follow.follow(str(machine.journal), [])
    assert supervision.pause(str(machine.journal), ["good", "bad", "ugly"])
    (Path(services.linked("bad")) / "run").write_text("#!/bin/sh\nexec sleep 11015\n")
    real = supervision.start
    monkeypatch.setattr(
        supervision,
        "start",
        lambda name: real(name) if name != "ugly" else (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    assert not services_follow.follow(str(machine.journal), [], back=True)
    assert status(services.linked("good")).ready
    assert "not up as before: ugly bad" in capfd.readouterr().err


@s6_is_here
def test_as_before_is_said_of_what_was_looked_at(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Services that were up, mounts, the generation: what is another is named; what comes up soon is waited for."""
    monkeypatch.setattr(readiness, "limit", lambda _name: 2)
    # Other tests make and remove labs meanwhile.
    here = mountinfo.read(1)
    monkeypatch.setattr(mountinfo, "read", lambda _pid: here)
    places = (
        machine.install("ready", "sleep 0.5; echo >&3; exec sleep 11023", notification_fd="3\n"),
        machine.install("silent", "exec sleep 11024"),
    )
    machine.install("down", "exec sleep 11025")
    s6.control(services.linked("down"), "d")
    assert within(5, lambda: status(places[0]).ready and status(places[1]).up)
    assert within(5, lambda: status(services.linked("down")).stopped)
    seen = as_before.look()
    assert seen.services == {"ready": True, "silent": False}
    for place in places:
        s6.control(place, "r")
    assert as_before.words(seen) == "the machine is as it was before"
    # What a health check has stopped is started again: it was up.
    s6.control(places[0], "d")
    assert within(5, lambda: status(places[0]).stopped)
    assert as_before.words(seen) == "the machine is as it was before"
    monkeypatch.setattr(mountinfo, "read", lambda _pid: [mountinfo.Mount(1, 0, "0:1", "/", "/new", "", "tmpfs", "")])
    assert supervision.drop("ready")
    assert supervision.drop("silent")
    assert "what is not as it was before is named above" in as_before.words(seen._replace(generation=4))
    said = capfd.readouterr().err
    for one in (
        "0 runs and 0 is current, not 4",
        "ready is not up",
        "silent is not up",
        "/new is mounted, which",
        "/proc is not",
    ):
        assert f"{one}" in said, said


@s6_is_here
@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ("M f /lib/libused.so", True), ("D d /lib", True), ("A f /etc/unrelated", False), ("C f /app/module.py", True),
        ("A f /app/new.py", False), ("C f /app/data.txt", False), ("C f /etc/app/app.conf", True),
        ("A f /etc/passwd", False), ("A f /etc/default/app", True), ("C l /srv/current", True),
        ("C f /opt/app.ini", True), ("A f /etc/app.d/more", True), ("C f /etc/localtime", False),
    ],
)  # fmt: skip
def test_what_a_service_uses(machine: Machine, monkeypatch: pytest.MonkeyPatch, change: str, touched: bool) -> None:
    """What is mapped, what an interpreter has read, what its run script, its arguments or its program's text name."""
    top = machine.top / "files"
    (top / "app").mkdir(parents=True)
    (top / "app/main.py").write_text("import time\nread = '/opt/app.ini', '/etc/app.d'\nwhile True: time.sleep(1)\n")
    (top / "lib").mkdir()
    (top / "lib/libused.so").write_text("x")
    program = f"{sys.executable} -I {top}/app/main.py --config=/etc/app/app.conf"
    reads = "[ ! -f /etc/default/app ] || . /etc/default/app; TZ=:/etc/localtime; export TZ"
    place = machine.install("a", f"cd {top}/app; {reads}; exec {program} / /srv/current/x 5<{top}/lib/libused.so")
    assert within(5, lambda: "main.py" in " ".join(processes.arguments(status(place).pid)))
    operation, kind, path = change.split(" ")
    path = path if path.startswith(("/etc/", "/srv/", "/opt/")) else f"{top}{path}"
    monkeypatch.setattr(store, "stack", lambda _n=None: ("20250101-001_x",))
    (machine.top / "migrations/20250101-001_x").mkdir(parents=True)
    listed = f"{operation} {kind} 644 0 0 0 - - {path[1:]}\n"
    (machine.top / "migrations/20250101-001_x/changes.list").write_text(listed)
    assert in_use.uses(["a"], ["20250101-001_x"]) == ({"a"} if touched else set())


HOLDER = """
import fcntl, os, socket, sys, time, ctypes
os.chdir(sys.argv[1])
os.mkdir("in"); os.chdir("in")
one = socket.socket(socket.AF_UNIX); one.bind("../s.sock"); one.listen()
two = open("../lock", "w"); fcntl.flock(two, fcntl.LOCK_EX)
os.mkfifo("../fifo"); three = os.open("../fifo", os.O_RDWR)
four = ctypes.CDLL(None).inotify_init(); ctypes.CDLL(None).inotify_add_watch(four, b"..", 0x100)
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_bound_to_a_root_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Socket, lock, FIFO, watch and directory are seen, as soon as what they are on is mounted nowhere; then named."""
    monkeypatch.setattr(paths, "LIVE", "")
    monkeypatch.setattr(paths, "RUN", str(tmp_path / "run"))
    monkeypatch.setattr(paths, "SERVICEDIRS", str(tmp_path / "none"))
    real = mountinfo.read
    monkeypatch.setattr(mountinfo, "read", lambda _pid="self": real())
    monkeypatch.setattr(bindings, "_namespace", lambda _pid: "")
    (tmp_path / "run").mkdir()
    old = tmp_path / "old"
    old.mkdir()
    linux.mount("tmpfs", str(old), "tmpfs")
    words = [sys.executable, "-c", HOLDER, str(old)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "ready\n"
            assert bindings.stale([holder.pid]) == []
            linux.umount(str(old), linux.MNT_DETACH)
            held = bindings.stale([holder.pid])
            assert {one.what for one in held} == {"socket", "lock", "FIFO", "watch", "directory"}
            names, others = bindings.services_of(held)
            assert (names, others) == ({}, held)
            bindings.tell(others)
            said = capfd.readouterr().err
            assert f"(process {holder.pid}) holds what is of the root before (" in said
            assert "socket ../s.sock" in said
            assert {one.what for one in bindings.told()} == {one.what for one in held}
        finally:
            holder.kill()
    assert bindings.told() == []


def test_holder_of_a_package_managers_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is known, and waited for, within bounds."""
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr(package_manager, "_LOCKS", {str(lock)})
    real = processes.link
    monkeypatch.setattr(processes, "link", lambda pid, what: "" if what == "ns/mnt" else real(pid, what))
    assert package_manager.holder() is None
    program = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); print(flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        found = package_manager.holder()
        assert found
        assert found.process.pid == holder.pid
        with pytest.raises(Leave, match=f"process {holder.pid}. holds {lock}") as refused:
            package_manager.await_done(0.1)
        assert refused.value.code == 3
        package_manager.await_done(10)


names = st.sampled_from("abcdefgh")


@given(st.dictionaries(names, st.sets(names)))
def test_order_has_each_once_after_its_needs(graph: dict[str, set[str]]) -> None:
    """Whatever the graph; where it has circles, none is left out, and the rest is in order."""
    order = needs.order(graph)
    assert sorted(order) == sorted(graph)

    def below(name: str) -> set[str]:
        found: set[str] = set()
        new = {name}
        while new:
            new = {one for other in new for one in graph.get(other, ()) if one in graph} - found
            found |= new
        return found

    for name, direct in graph.items():
        for needed in direct & graph.keys():
            if name not in below(needed):
                assert order.index(needed) < order.index(name)


@given(st.dictionaries(names, st.sets(names)), st.sets(names))
def test_needing_has_all_above(graph: dict[str, set[str]], wanted: set[str]) -> None:
    """Those that were asked for and whoever needs one of them, nobody else; who needs stops before who is needed."""
    found = needs.needing(wanted, graph)
    expected = set(wanted)
    while more := {name for name in graph if graph[name] & expected} - expected:
        expected |= more
    assert sorted(found) == sorted(expected)
    for name in found:
        for needed in graph.get(name, set()) & expected:
            # Unless what is needed needs it as well.
            assert needed in needs.needing([name], graph) or found.index(name) < found.index(needed)


def test_order_is_by_name_where_nothing_else_decides() -> None:
    """So that two runs say the same."""
    assert needs.order({"c": [], "b": ["z"], "a": ["c"]}) == ["c", "a", "b"]
    assert needs.needing([], {"a": ["b"]}) == []
    assert needs.needing(["b"], {"a": ["b"], "c": ["a"], "d": []}) == ["c", "a", "b"]


def test_marks_of_a_service_that_is_not_there() -> None:
    """It has no processes."""
    none = strays.Marks("none", 0, "", "", spared=False)
    assert strays.of_session(none) == []
    assert strays.of_pipe(none) == []
    assert strays.end(none, [])
    assert Deadline(0).over()


@pytest.mark.parametrize(
    ("service", "supervisor", "own"),
    [
        (["0::/"], ["0::/"], ""),
        (["0::/"], ["0::/machine"], ""),
        (["0::/machine"], ["0::/machine"], ""),
        (["0::/machine2"], ["0::/machine"], ""),
        (["0::/machine/app"], ["0::/machine"], "0::/machine/app"),
        (["0::/app:1"], ["0::/"], "0::/app:1"),
        (["2:memory:/", "1:cpu:/x/app"], ["2:memory:/x", "1:cpu:/x"], "1:cpu:/x/app"),
        ([], ["0::/"], ""),
        (["0::/app"], [], ""),
    ],
)
def test_only_a_cgroup_below_its_supervisors_is_a_services_own(
    service: list[str], supervisor: list[str], own: str
) -> None:
    """A zombie is in `/` by what the kernel says, with half of the host."""
    assert strays.own_cgroup(service, supervisor) == own


def test_a_path_is_named_as_a_whole() -> None:
    """The file /etc/n is none that sshd reads because it knows /etc/nologin."""
    for text, word, said in (
        (b"/etc/nologin\0/etc/n", b"/etc/n", True),
        (b"/etc/nologin\0/etc/n.d", b"/etc/n", False),
        (b"'/etc/n'", b"/etc/n", True),
        (b"/etc/ssh/sshd_config", b"/etc/ssh/", True),
        (b"/etc/sshd", b"/etc/ssh/", False),
    ):
        assert in_use.says(text, word) == said, text
