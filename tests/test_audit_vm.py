"""On a machine with a kernel of its own the runner watches by itself, and leaves that kernel's audit as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.format.capture import parse
from pyinfra_overlaymig.lab import vm as kind
from tests.rig import RUNNER, Rig
from tests.runner_process import pattern

THEIRS = "-a always,exit -F arch=b64 -S acct -F uid=65533 -F key=theirs"
TERSE = [f"-a always,exclude -F msgtype={kind}" for kind in ("PROCTITLE", "BPRM_FCAPS", "CWD", "EOE")]
UPPERS = f"-a never,filesystem -F fstype={0xEF53} -F key=overlaymig-uppers-{0xEF53}"
FIGURES = "auditctl -s | grep -E '^(enabled|backlog_limit|pid) '"
WAIT = "until [ -e /run/go ]; do sleep 0.2; done"
# A stage has a /run of its own, which its processes lead to.
GO = 'for pid in $(pgrep -f "[m]igration/install.sh"); do : >"/proc/$pid/root/run/go"; done'
MANY = "mkdir -p {0}; awk 'BEGIN {{ for (i = 0; i < {1}; i++) {{ f = \"{0}/\" i; print i >f; close(f) }} }}'"


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A virtual machine, with a rule that somebody else has set."""
    directory = Path(tempfile.mkdtemp(prefix="overlaymig-test-", dir="/var/tmp"))
    made = labs.Lab.at(directory / "lab")
    try:
        labs.up(made, 1, kind="vm")
        rig = Rig(made, "lab-1", tmp_path_factory.mktemp("migrations"))
        rig.prepare()
        rig.sh(f"auditctl {THEIRS}")
        yield rig
    finally:
        labs.down(made)
        shutil.rmtree(directory)


def record(rig: Rig, id: str) -> dict[str, str]:
    lines = rig.sh(f"cat /data/system/migrations/{id}/record").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def rest(rig: Rig) -> None:
    """Waits until what nobody waits for is over: rules that are deleted, and a daemon that ends."""
    left = "[ -d /data/system/audit ] || auditctl -l | grep -q overlaymig"
    rig.sh(f"timeout 60 sh -c 'while {left}; do sleep 0.2; done' || :")


def paths_of_uppers(rig: Rig, id: str) -> int:
    """How many PATHs the trace of a migration has that overlays gave for their uppers."""
    return int(rig.sh(f"zgrep -c 'name=(null) inode=.*nametype=PARENT' /data/system/migrations/{id}/audit.gz || :"))


def killed_in_its_script(rig: Rig, id: str) -> None:
    """Apply a migration, and kill the whole runner while its script runs."""
    rig.sh(
        f"""
        # Not in one word: this shell is not to be killed.
        runner={RUNNER}; exec 3<&0; "$runner" apply - <&3 >/run/said 2>&1 &
        until grep -q begun /run/said 2>/dev/null; do sleep 0.2; done
        pkill -KILL -f '{pattern("apply")}'; sleep 3
        """,
        stdin=rig.migration(id, "echo begun; sleep 6666"),
    )


def test_auditd_runs_for_the_session_alone(vm: Rig) -> None:
    """No daemon runs before or after; the kernel's settings and others' rules are as they were; all is explained."""
    before = vm.sh(FIGURES)
    script = (
        "setsid touch /etc/two; (sleep 0.2; exec touch /etc/daemon) & sleep 1; ln /etc/two /etc/three; rm /etc/issue"
    )
    result = vm.apply("20250101-001_one", f"echo x >/etc/one; {script}", audit="required")
    assert result.code == 0, result.text
    found = record(vm, "20250101-001_one")
    assert (found["audit"], found["lost"], found["unexplained"]) == ("on", "0", "0")
    capture = parse(vm.raw(RUNNER, "diff", "--raw", "20250101-001_one"))
    assert {one.path: next(capture.chain(one.by)).program for one in capture.changes} == {
        "/etc/one": "/usr/bin/dash",
        "/etc/two": "/usr/bin/touch",
        "/etc/daemon": "/usr/bin/touch",
        "/etc/three": "/usr/bin/ln",
        "/etc/issue": "/usr/bin/rm",
    }
    rest(vm)
    assert vm.sh(FIGURES) == before
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]
    assert vm.sh("pidof auditd || :") == ""


def test_killed_runner_leaves_rules_that_the_next_verb_deletes(vm: Rig) -> None:
    """They match nothing, as their session is over; `recover` takes them away, and no other, and ends the daemon."""
    before = vm.sh(FIGURES)
    killed_in_its_script(vm, "20250102-001_killed")
    assert "-F key=overlaymig" in vm.sh("auditctl -l")
    assert vm.run(RUNNER, "recover").code == 0
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]
    assert vm.sh("{ pidof auditd; ls -d /data/system/audit; } || :") == ""
    assert vm.sh(FIGURES) == before


def test_record_that_says_nothing_new_is_left_out_where_nobody_else_has_rules(vm: Rig) -> None:
    """It is a rule of the whole machine, so it is gone afterwards, also when the runner was killed."""
    vm.sh("auditctl -D >/dev/null")
    assert vm.apply("20250102-003_alone", "touch /etc/alone").code == 0
    rest(vm)
    assert vm.sh("auditctl -l") == "No rules\n"
    types = vm.sh("zcat /data/system/migrations/20250102-003_alone/audit.gz | sed 's/ .*//' | sort -u").split()
    assert "type=SYSCALL" in types
    assert "type=PROCTITLE" not in types
    assert "type=CWD" not in types
    assert paths_of_uppers(vm, "20250102-003_alone") == 0
    killed_in_its_script(vm, "20250102-004_alone")
    assert {*TERSE, UPPERS} <= set(vm.sh("auditctl -l").splitlines())
    assert vm.run(RUNNER, "recover").code == 0
    assert vm.sh("auditctl -l") == "No rules\n"
    vm.sh(f"auditctl {THEIRS}")
    assert vm.apply("20250102-005_not_alone", "touch /etc/not_alone").code == 0
    rest(vm)
    assert paths_of_uppers(vm, "20250102-005_not_alone") > 0


def test_what_a_capture_needs_is_left_out_no_more(vm: Rig) -> None:
    """What overlays say of their uppers is left out for a type of file system: not while others watch files of it."""
    vm.sh("auditctl -D >/dev/null")
    listed = vm.sh(
        f"""
        exec 3<&0
        {RUNNER} apply - <&3 >/run/said 2>&1 &
        until grep -q begun /run/said 2>/dev/null; do sleep 0.1; done
        auditctl -l | sed /filesystem/!d | wc -l
        {RUNNER} capture direct -- sh -c 'touch /data/direct; auditctl -l | sed /filesystem/!d | wc -l >/run/listed' >&2
        cat /run/listed
        timeout 20 sh -c 'until auditctl -l | grep -q filesystem; do sleep 0.1; done' || :
        auditctl -l | sed /filesystem/!d | wc -l
        {GO}; wait
        timeout 60 sh -c 'while auditctl -l | grep -q .-F; do sleep 0.1; done' || :
        auditctl -l
        """,
        stdin=vm.migration("20250102-008_over", f"echo begun; {WAIT}; touch /etc/over"),
    )
    assert listed.splitlines() == ["1", "0", "1", "No rules"]
    capture = parse(vm.raw(RUNNER, "diff", "--raw", "direct"))
    assert capture.unexplained == ()
    assert [one.path for one in capture.changes if one.path.startswith("/data/direct")] == ["/data/direct"]
    vm.sh(f"auditctl {THEIRS}")


def test_capture_and_migration_share_a_daemon(vm: Rig) -> None:
    """It runs until both have ended, and what starts a runner meanwhile takes nobody's rules away."""
    before = vm.sh(FIGURES)
    vm.sh(
        f"""
        exec 3<&0
        {RUNNER} capture long -- \\
            sh -c 'touch /srv/a /run/begun; until [ -e /run/end ]; do sleep 0.1; done; touch /srv/b' &
        until [ -e /run/begun ]; do sleep 0.1; done
        {RUNNER} apply - <&3 >/run/said 2>&1 &
        while kill -0 "$!" && ! grep -q begun /run/said; do sleep 0.1; done
        touch /run/end; wait %1; pidof auditd; {GO}; wait %2
        """,
        stdin=vm.migration("20250102-009_beside", f"echo begun; touch /etc/a; {WAIT}; touch /etc/b", audit="required"),
    )
    for id, paths in (("long", ["/srv/a", "/srv/b"]), ("20250102-009_beside", ["/etc/a", "/etc/b"])):
        capture = parse(vm.raw(RUNNER, "diff", "--raw", id))
        assert (capture.audit, capture.lost, capture.unexplained) == ("on", 0, ())
        found = {one.path: next(capture.chain(one.by)).program for one in capture.changes}
        assert [found[path] for path in paths] == ["/usr/bin/touch"] * 2
    rest(vm)
    assert vm.sh("{ pidof auditd; ls -d /data/system/audit; } || :") == ""
    assert vm.sh(FIGURES) == before
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]


def test_daemon_that_runs_is_shared(vm: Rig) -> None:
    """Its log is followed though it rotates; its configuration and the daemon stay. Then it hangs: the loss is told."""
    vm.sh("sed -i 's/^max_log_file = .*/max_log_file = 1/' /etc/audit/auditd.conf; auditd")
    pid = vm.sh("pidof auditd")
    configuration = vm.sh("sha256sum /etc/audit/auditd.conf")
    assert vm.apply("20250103-001_shared", MANY.format("/opt/many", 2000)).code == 0
    found = record(vm, "20250103-001_shared")
    assert (found["audit"], found["lost"], found["unexplained"], found["files"]) == ("on", "0", "0", "2001")
    assert vm.sh("ls /var/log/audit | wc -l") != "1\n", "it did not rotate"
    vm.sh(
        f"""
        auditctl -b 32 --backlog_wait_time 0 >/dev/null; kill -STOP {pid}
        (sleep 20; kill -CONT {pid}) & {RUNNER} apply - >/run/said 2>&1; wait
        auditctl -b 8192 --backlog_wait_time 15000 >/dev/null
        """,
        stdin=vm.migration("20250104-001_lost", MANY.format("/opt/lost", 2000)),
    )
    found = record(vm, "20250104-001_lost")
    assert int(found["lost"]) > 0
    assert int(found["unexplained"]) > 0
    assert f"lost {found['lost']}" in vm.sh("cat /run/said")
    assert (vm.sh("pidof auditd"), vm.sh("sha256sum /etc/audit/auditd.conf")) == (pid, configuration)
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]
    vm.sh("kill $(pidof auditd)")


@pytest.mark.parametrize(
    ("around", "state"),
    [
        ("unshare --pid --fork --mount-proc", "namespace"),
        ("unshare --user --map-root-user", "namespace"),
        ("env PATH=/usr/bin:/bin", "no-auditd"),
        ("env", "on"),
    ],
)
def test_state_is_named(vm: Rig, around: str, state: str) -> None:
    """Why there is no audit, by name."""
    script = """
import glob, sys
sys.path[:0] = glob.glob("/data/system/runner/*/")
from pyinfra_overlaymig.runner.audit import auditd
print(auditd.state())
"""
    assert vm.sh(f"{around} python3 -", stdin=script.encode()) == f"{state}\n"


@pytest.fixture
def own_daemon(vm: Rig) -> Iterator[Callable[..., None]]:
    """Starts an auditd that is not the runner's, with these settings, under this name."""

    def start(name: str, **settings: str) -> None:
        text = "".join(f"{key} = {value}\n" for key, value in ({"plugin_dir": "/run/own/plugins"} | settings).items())
        vm.sh(
            f"""
            mkdir -p /run/own/plugins; cp "$(command -v auditd)" /run/own/{name}
            cat >/run/own/settings
            sed 's/ .*/ /; s/^/^/' /run/own/settings | grep -v -f - /etc/audit/auditd.conf >/run/own/auditd.conf
            cat /run/own/settings >>/run/own/auditd.conf; chmod 600 /run/own/auditd.conf
            setsid /run/own/{name} -n -c /run/own >/dev/null 2>&1 &
            timeout 60 sh -c 'until auditctl -s | grep -qx "pid $1"; do sleep 0.1; done' sh "$!"
            """,
            stdin=text.encode(),
        )

    yield start
    vm.sh("kill $(auditctl -s | sed -n 's/^pid //p'); until auditctl -s | grep -qx 'pid 0'; do sleep 0.1; done")


def test_what_is_no_auditd_is_left_alone(vm: Rig, own_daemon: Callable[..., None]) -> None:
    """The kernel tells only one process: a migration goes on without, one that requires audit does not begin."""
    own_daemon("other")
    assert vm.status().audit == "busy"
    assert vm.apply("20250105-001_busy", "touch /etc/busy").code == 0
    assert record(vm, "20250105-001_busy")["audit"] == "busy"
    result = vm.apply("20250105-002_busy", "touch /etc/busy", audit="required")
    assert (result.code, "busy" in result.err) == (3, True)
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]


def test_daemon_that_writes_no_log(vm: Rig, own_daemon: Callable[..., None]) -> None:
    own_daemon("auditd", write_logs="no")
    assert vm.apply("20250105-003_no_log", "touch /etc/no_log").code == 0
    assert record(vm, "20250105-003_no_log")["audit"] == "no-log"


def test_log_that_is_rotated_away_unread(vm: Rig, own_daemon: Callable[..., None]) -> None:
    """What is missing is not taken for all."""
    own_daemon("auditd", max_log_file="1", num_logs="2", max_log_file_action="ROTATE", flush="NONE")
    hold = "pkill {} -x audit-hold"
    vm.sh(
        f"""
        exec 3<&0; {RUNNER} apply - <&3 >/run/said 2>&1 &
        while kill -0 "$!" && ! grep -q begun /run/said; do sleep 0.1; done
        {hold.format("-STOP")}; {GO.replace("/run/go", "/run/first")}
        while kill -0 "$!" && ! grep -q written /run/said; do sleep 0.1; done
        {hold.format("-CONT")}; sleep 3; {GO}; wait "$!"
        """,
        stdin=vm.migration(
            "20250105-004_rotated",
            f"echo begun; {WAIT.replace('go', 'first')}; {MANY.format('/opt/rotated', 3000)}; echo written; {WAIT}",
        ),
    )
    assert record(vm, "20250105-004_rotated")["audit"] == "incomplete"
    assert "unexplained" in vm.sh("cat /run/said")


def test_session_that_may_not_be_left(vm: Rig) -> None:
    """Where the kernel holds an operator to the session of the login, there is none for a migration."""
    vm.sh("auditctl --loginuid-immutable >/dev/null")
    login = f"printf 0 >/proc/self/loginuid; {RUNNER} apply -"
    vm.sh(login, stdin=vm.migration("20250106-001_fixed", "touch /etc/fixed"))
    assert record(vm, "20250106-001_fixed")["audit"] == "fixed-session"
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]


def test_rules_that_are_locked(vm: Rig) -> None:
    """Until a reboot; after that, no audit in the kernel."""
    vm.sh("auditctl -e 2 >/dev/null")
    assert vm.status().audit == "locked"
    assert vm.apply("20250106-002_locked", "touch /etc/locked").code == 0
    assert record(vm, "20250106-002_locked")["audit"] == "locked"


def test_kernel_without_audit(vm: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was told when it was started."""
    monkeypatch.setattr(kind, "KERNEL", [*kind.KERNEL, "audit=0"])
    labs.restart(vm.lab, vm.name)
    assert vm.status().audit == "kernel-lacks"
    assert vm.apply("20250107-001_lacks", "touch /etc/lacks").code == 0
    assert record(vm, "20250107-001_lacks")["audit"] == "kernel-lacks"
