"""On a machine with a kernel of its own the runner watches by itself, and leaves that kernel's audit as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.capture import parse
from tests.rig import RUNNER, Rig

THEIRS = "-a always,exit -F arch=b64 -S acct -F uid=65533 -F key=theirs"
FIGURES = "auditctl -s | grep -E '^(enabled|backlog_limit|pid) '"
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
    assert vm.sh(FIGURES) == before
    assert vm.sh("auditctl -l").splitlines() == [THEIRS]
    assert vm.sh("pidof auditd || :") == ""


def test_killed_runner_leaves_rules_that_the_next_verb_deletes(vm: Rig) -> None:
    """They match nothing, as their session is over; `recover` takes them away, and no other."""
    vm.sh(
        f"""
        exec 3<&0; {RUNNER} apply - <&3 >/run/said 2>&1 &
        until grep -q begun /run/said 2>/dev/null; do sleep 0.2; done
        pkill -KILL -f '^/bin/sh [^ ]*/system-migrate apply'; sleep 3
        """,
        stdin=vm.migration("20250102-001_killed", "echo begun; sleep 6666"),
    )
    assert "-F key=overlaymig" in vm.sh("auditctl -l")
    assert vm.sh("pidof auditd || :") == ""
    assert vm.run(RUNNER, "recover").code == 0
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
    parts = f'for part in "$(dirname "$(readlink -f {RUNNER})")"/lib/*.sh; do . "$part"; done'
    assert vm.sh(f"{around} sh -c '{parts}; audit_state'") == f"{state}\n"
