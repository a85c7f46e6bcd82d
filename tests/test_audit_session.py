"""A session that is watched begins and ends with its migration, loses nothing silently, and leaves audit as it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyinfra_overlaymig
from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.format.capture import parse
from pyinfra_overlaymig.lab import audit, process
from tests.rig import RUNNER, Rig
from tests.runner_process import pattern

TOP = Path(pyinfra_overlaymig.__file__).parent.parent
APPLY = pattern("apply")
OURS = re.compile(r"-F key=(migration_tracking|overlaymig)-")
TERSE = "-a always,exclude -F msgtype="


def rules(rig: Rig) -> list[str]:
    """The rules of this kernel but those of other labs' sessions, and those of the auditd that all labs share."""
    known = {path.stem for folder in ("sessions", "answers") for path in (rig.lab.audit / folder).iterdir()}
    listed = subprocess.run(["auditctl", "-l"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in listed:
        if line.startswith(TERSE):
            continue
        session = re.search(r"-F sessionid=([0-9]+) ", line)
        if not OURS.search(line) or (session and session[1] in known):
            found.append(line)
    return [line for line in found if line != "No rules"]


def of_session(rig: Rig, session: str) -> list[str]:
    """Those of one session."""
    return [rule for rule in rules(rig) if f"-F sessionid={session} " in rule]


def settled(rig: Rig, expected: list[str]) -> list[str]:
    """The same, once they are as expected, or a while later: nobody waits for the kernel to delete them."""
    deadline = time.monotonic() + 20
    while rules(rig) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return rules(rig)


def record(rig: Rig, id: str) -> dict[str, str]:
    lines = rig.sh(f"cat /data/system/migrations/{id}/record").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@pytest.fixture
def theirs() -> Iterator[str]:
    """A rule that somebody else has set before."""
    rule = "-a always,exit -F arch=b64 -S acct -F uid=65533 -F key=theirs"
    subprocess.run(["auditctl", *rule.split()], check=True)
    yield rule
    subprocess.run(["auditctl", *rule.replace("-a ", "-d ", 1).split()], check=True)


@pytest.fixture
def unwatched(running_lab: labs.Lab, rig: Rig) -> Iterator[Rig]:
    """A machine whose lab has no keeper: like any container in a pid namespace of its own."""
    audit.leave(running_lab)
    yield rig
    audit.start(running_lab, print)


def test_rules_are_there_for_the_session_alone(rig: Rig, theirs: str) -> None:
    """Only while the script runs, for its session, by the calls that matter; others' rules stay as they are."""
    bundle = rig.migration("20250701-001_rules", "echo begun; sleep 2; echo x >/etc/one")
    with subprocess.Popen(
        rig.machine.enter(RUNNER, "apply", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(b"begun" in line for line in apply.stdout)
        session = rig.sh("cat /data/system/staging/20250701-001_rules/audit/session").strip()
        ours = [rule for rule in rules(rig) if rule != theirs]
        assert apply.wait(60) == 0
    assert ours
    assert all(f"-F sessionid={session} " in rule and OURS.search(rule) for rule in ours)
    assert all("arch=b64" in rule or "arch=b32" in rule for rule in ours)
    assert not any("-S all" in rule for rule in ours)
    assert any(rule.startswith("-a never,exit") for rule in ours)
    assert all("-F success=1" in rule for rule in ours if rule.startswith("-a always,exit"))
    assert settled(rig, [theirs]) == [theirs]


def test_noise_is_left_out_by_the_kernel(rig: Rig) -> None:
    """What is written to /proc and /run of the stage is in no record."""
    script = "echo noise >/proc/self/comm; echo x >/run/noise; mv /run/noise /run/noises"
    assert rig.apply("20250701-002_noise", f"echo 1 >/etc/before; {script}; echo 1 >/etc/after").code == 0
    trace = rig.sh("zcat /data/system/migrations/20250701-002_noise/audit.gz")
    assert all(f'name="/etc/{name}"' in trace for name in ("before", "after"))
    assert 'name="/run/noise' not in trace
    assert "/proc/self/comm" not in trace


def test_killed_runner_leaves_no_rule(rig: Rig, theirs: str) -> None:
    """SIGKILL in the middle of the script: the rules go by themselves, though others ask; the next capture is whole."""
    bundle = rig.migration("20250702-001_killed", "echo begun; sleep 6666")
    with subprocess.Popen(
        rig.machine.enter(RUNNER, "apply", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(b"begun" in line for line in apply.stdout)
        session = rig.sh("cat /data/system/staging/20250702-001_killed/audit/session").strip()
        assert of_session(rig, session)
        rig.sh(f"pkill -KILL -f '{APPLY}'")
        assert apply.wait(60) != 0
    deadline = time.monotonic() + 20
    while of_session(rig, session) and time.monotonic() < deadline:
        assert rig.run(RUNNER, "capture", "busy", "--", "true").code == 0
    assert of_session(rig, session) == []
    assert settled(rig, [theirs]) == [theirs]
    assert rig.sh("ps ax -o comm | grep -cx audit-hold || :") == "0\n"
    assert rig.apply("20250702-002_next", "echo x >/etc/next").code == 0
    assert record(rig, "20250702-002_next")["unexplained"] == "0"
    assert settled(rig, [theirs]) == [theirs]


def test_failed_migration_leaves_no_rule_and_its_trace(rig: Rig) -> None:
    """The evidence of a failed migration has what audit saw of it."""
    assert rig.apply("20250703-001_fails", "echo x >/etc/fails; exit 1").code == 9
    assert settled(rig, []) == []
    assert "/etc/fails" in rig.sh("zcat /data/system/staging/20250703-001_fails/audit.gz")


def killed_after_its_commit(rig: Rig, id: str, **manifest: object) -> None:
    """A migration whose runner dies while its health check runs; the check passes at the next try."""
    verify = "[ ! -e /run/verified ] || exit 0; : >/run/verified; exec sleep 6666"
    bundle = rig.migration(id, f"echo x >/etc/{id}", verify=verify, **manifest)
    rig.sh("rm -f /run/verified")
    with subprocess.Popen(rig.machine.enter(RUNNER, "apply", "-"), stdin=subprocess.PIPE) as apply:
        assert apply.stdin
        apply.stdin.write(bundle)
        apply.stdin.close()
        rig.sh("until [ -e /run/verified ]; do sleep 0.1; done")
        rig.sh(f"pkill -KILL -f '{APPLY}'; pkill -KILL -f '[s]leep 6666' || :")
        assert apply.wait(60) != 0
    assert rig.sh(f"ls /data/system/migrations/{id} | grep -c applied || :") == "0\n"


def test_who_did_it_is_told_by_whoever_finishes_the_migration(rig: Rig) -> None:
    """It is explained after the commit: when the runner dies there, `recover` does it, from what is in the stage."""
    id = "20250703-002_finished"
    killed_after_its_commit(rig, id)
    assert rig.run(RUNNER, "recover").code == 0
    found = record(rig, id)
    assert (found["audit"], found["lost"], found["unexplained"]) == ("on", "0", "0")
    changes = {one.path: one for one in parse(rig.raw(RUNNER, "diff", "--raw", id)).changes}
    by = changes[f"/etc/{id}"].by
    assert by is not None
    assert f"/etc/{id}" in rig.sh(f"zcat /data/system/migrations/{id}/audit.gz")
    assert id not in rig.sh("ls /data/system/staging").split()


@pytest.mark.parametrize("audit", ["wanted", "required"])
def test_records_that_cannot_be_read(rig: Rig, audit: str) -> None:
    """The state is `unreadable`: what only wants audit is applied, what requires it goes back."""
    id = f"20250703-00{3 if audit == 'wanted' else 4}_unreadable"
    killed_after_its_commit(rig, id, audit=audit)
    rig.sh(f"cd /data/system/staging/{id}/audit; rm -f who; mkdir who")
    assert rig.run(RUNNER, "recover").code == 0
    if audit == "wanted":
        assert record(rig, id)["audit"] == "unreadable"
        assert "audit: unreadable" in rig.sh(f"{RUNNER} diff {id}")
    else:
        assert rig.status().migration(id) is None
        assert rig.sh(f"ls /etc/{id} 2>/dev/null || :") == ""
        assert "requires audit, which is: unreadable" in rig.sh(f"cat /data/system/staging/{id}/log")


def test_postgresql_is_explained(rig: Rig) -> None:
    """Nothing unexplained in an apt install of PostgreSQL; the cluster, found to be state, is told as that."""
    result = rig.run(RUNNER, "install", "postgresql", timeout=300)
    assert result.code == 0, result.text
    id = rig.status().stack[-1]
    found = record(rig, id)
    assert (found["audit"], found["lost"], found["unexplained"]) == ("on", "0", "0")
    capture = parse(rig.raw(RUNNER, "diff", "--raw", id))
    assert len(capture.changes) > 3000
    assert "/var/lib/postgresql" in capture.state
    assert len([one for one in capture.also if one.what == "state"]) > 500
    assert capture.proposed_state() == ("/var/log/postgresql",)


def test_many_files_are_all_told(rig: Rig) -> None:
    """20,000 files in a second or two: none is lost, though the log is rotated, and 8 MB of names are not too much."""
    directory = f"/opt/many/{'x' * 200}/{'y' * 200}"
    write = f'for (i = 0; i < 20000; i++) {{ file = "{directory}/" i; print i >file; close(file) }}'
    script = f"mkdir -p {directory}; awk 'BEGIN {{ {write} }}'"
    before = rig.status().generation
    result = rig.apply("20250704-001_many", script)
    assert result.code == 0, result.text
    found = record(rig, "20250704-001_many")
    assert (found["audit"], found["lost"], found["unexplained"], found["files"]) == ("on", "0", "0", "20003")
    capture = parse(rig.raw(RUNNER, "diff", "--raw", "20250704-001_many"))
    assert {next(capture.chain(one.by)).program for one in capture.changes[3:]} == {"/usr/bin/mawk"}
    result = rig.run(RUNNER, "rollback", str(before))
    assert result.code == 0, result.text


def test_without_audit_a_migration_goes_on(unwatched: Rig) -> None:
    """The upper directory is enough to apply it; status and the record say why nobody was watched."""
    assert unwatched.status().audit == "namespace"
    assert unwatched.apply("20250706-001_unwatched", "echo x >/etc/unwatched").code == 0
    migration = unwatched.status().migration("20250706-001_unwatched")
    assert migration is not None
    assert (migration.audit, migration.lost, migration.unexplained) == ("namespace", None, None)
    text = unwatched.sh(f"{RUNNER} diff 20250706-001_unwatched")
    assert "audit: namespace" in text
    assert "/etc" in text


def test_migration_that_requires_audit_is_refused_without_it(unwatched: Rig) -> None:
    """Refused by name, and nothing is touched."""
    before = unwatched.tree()
    result = unwatched.apply("20250707-001_required", "echo x >/etc/required", audit="required")
    assert result.code == 3
    assert "requires audit, which is not to be had here: namespace" in result.err
    assert unwatched.tree() ^ before == frozenset()


def test_migration_that_requires_audit_runs_with_it(rig: Rig) -> None:
    """And is watched."""
    assert rig.apply("20250708-001_required", "echo x >/etc/required", audit="required").code == 0
    assert record(rig, "20250708-001_required")["audit"] == "on"


def test_keeper_that_was_killed_leaves_no_rule(running_lab: labs.Lab, rig: Rig) -> None:
    """The next `lab up` has another one, and the rules of the first are gone."""
    bundle = rig.migration("20250709-001_orphaned", "echo begun; sleep 3; echo x >/etc/orphaned")
    with subprocess.Popen(
        rig.machine.enter(RUNNER, "apply", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(b"begun" in line for line in apply.stdout)
        keeper = int((running_lab.audit / "keeper").read_text().split()[0])
        os.kill(keeper, signal.SIGKILL)
        # A process that is about to end still holds its lock, and would be taken for one that lives.
        while process.lives(keeper):
            time.sleep(0.01)
        assert len(rules(rig)) > 0
        audit.start(running_lab, print)
        assert rules(rig) == []
        assert apply.wait(60) == 0
    assert rig.sh("cat /etc/orphaned") == "x\n"
    assert rig.status().audit == "on"


def test_command_under_capture(rig: Rig) -> None:
    """Any command, in the running root: what it changed and who; it stays, and no layer is made."""
    before = rig.status().stack
    result = rig.run(
        RUNNER, "capture", "by_hand", "--", "sh", "-c",
        "mkdir /srv/made; echo x >/srv/made/a; mv /srv/made/a /srv/made/b; chmod 700 /srv/made; rm /etc/issue.net; "
        "echo more >>/etc/issue; touch /tmp/short; rm /tmp/short",
    )  # fmt: skip
    assert result.code == 0, result.text
    assert rig.status().stack == before
    assert rig.sh("cat /srv/made/b") == "x\n"
    capture = parse(rig.raw(RUNNER, "diff", "--raw", "by_hand"))
    assert (capture.audit, capture.lost, capture.unexplained) == ("on", 0, ())
    found = {one.path: (one.what, next(capture.chain(one.by)).program) for one in capture.changes}
    assert found == {
        "/srv/made": ("added", "/usr/bin/mkdir"),
        "/srv/made/b": ("added", "/usr/bin/mv"),
        "/etc/issue": ("changed", "/usr/bin/dash"),
        "/etc/issue.net": ("deleted", "/usr/bin/rm"),
    }
    assert {one.path: one.what for one in capture.also} == {"/srv/made/a": "transient", "/tmp/short": "transient"}
    assert settled(rig, []) == []


def test_what_a_stage_leaves_out_is_told_by_its_upper(rig: Rig) -> None:
    """Times alone, and what is made without any rights, as far as it is not renamed; a capture leaves out neither."""
    script = """perl -MFcntl -e '
        utime 1, 1, "/etc/debian_version";
        for (qw(old again)) { open F, ">/srv/$_"; close F; unlink "/srv/$_" }
        for (qw(left again taken)) { sysopen F, "/srv/$_", O_WRONLY|O_CREAT|O_EXCL, 0; chmod 0644, *F; close F }
        rename "/srv/taken", "/srv/renamed"'
        touch -d @1 /etc/host.conf; touch -h -d @1 /etc/os-release"""
    assert rig.apply("20250709-002_left_out", script).code == 0
    capture = parse(rig.raw(RUNNER, "diff", "--raw", "20250709-002_left_out"))
    assert {(one.path, one.reason) for one in capture.unexplained} == {
        ("/etc/debian_version", "times"),
        ("/srv/left", "unknown"),
        ("/srv/again", "unknown"),
    }
    found = {one.path: next(capture.chain(one.by)).program for one in capture.changes if one.by}
    assert found == {
        "/srv/renamed": "/usr/bin/perl",
        "/etc/host.conf": "/usr/bin/touch",
        "/etc/os-release": "/usr/bin/touch",
    }
    again = script.replace("/srv/", "/opt/").replace("1, 1,", "2, 2,")
    assert rig.run(RUNNER, "capture", "nothing_left_out", "--", "sh", "-euc", again).code == 0
    capture = parse(rig.raw(RUNNER, "diff", "--raw", "nothing_left_out"))
    assert capture.unexplained == ()
    found = {one.path: next(capture.chain(one.by)).program for one in capture.changes}
    assert {path: found[path] for path in ("/etc/debian_version", "/opt/left", "/opt/renamed")} == {
        "/etc/debian_version": "/usr/bin/perl", "/opt/left": "/usr/bin/perl", "/opt/renamed": "/usr/bin/perl",
    }  # fmt: skip


def test_paths_that_are_reached_through_an_open_directory(rig: Rig) -> None:
    """On another volume than the root's upper, where no listing names what changed: found by number, not guessed."""
    rig.sh(
        "rm -rf /data/volume; mkdir -p '/data/volume/a dir' /data/volume/b /data/volume/gone/deep; "
        "cd /data/volume; echo 1 >b/moved; echo 2 >gone/deep/file; mkdir 'a dir/deep'; echo 3 >'a dir/deep/file'"
    )
    result = rig.run(
        RUNNER, "capture", "handles", "--", "sh", "-c",
        "cd /etc; cp issue '/data/volume/a dir/'; ln -s /nowhere '/data/volume/a dir/'; cd /data/volume/b; "
        "mv moved '../a dir/'; chmod -R u+x '/data/volume/a dir/deep'; rm -r /data/volume/gone",
    )  # fmt: skip
    assert result.code == 0, result.text
    capture = parse(rig.raw(RUNNER, "diff", "--raw", "handles"))
    assert (capture.audit, capture.lost, capture.unexplained) == ("on", 0, ())
    found = {one.path: (one.what, next(capture.chain(one.by)).program) for one in capture.changes}
    assert found == {
        "/data/volume/a\\040dir/issue": ("added", "/usr/bin/cp"),
        "/data/volume/a\\040dir/nowhere": ("added", "/usr/bin/ln"),
        "/data/volume/a\\040dir/moved": ("added", "/usr/bin/mv"),
        "/data/volume/a\\040dir/deep": ("metadata", "/usr/bin/chmod"),
        "/data/volume/a\\040dir/deep/file": ("metadata", "/usr/bin/chmod"),
        "/data/volume/b/moved": ("deleted", "/usr/bin/mv"),
        "/data/volume/gone": ("deleted", "/usr/bin/rm"),
    }


def test_command_that_fails_under_capture(rig: Rig) -> None:
    """Its status is told, and what it did until then is recorded."""
    result = rig.run(RUNNER, "capture", "fails", "--", "sh", "-c", "echo x >/srv/half; exit 7")
    assert result.code == 1
    assert "status 7" in result.err
    assert [one.path for one in parse(rig.raw(RUNNER, "diff", "--raw", "fails")).changes] == ["/srv/half"]


def test_operation_and_fact(rig: Rig) -> None:
    """audit_capture through pyinfra, and AuditCapture as its JSON."""
    program = [str(Path(sys.executable).with_name("pyinfra")), "-y", "--limit", rig.name, "inventories/lab.py"]
    done = subprocess.run(
        [*program, "pyinfra_overlaymig.operations.audit_capture", "capture=from_afar", "command=echo x >/srv/afar"],
        cwd=TOP, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [*program, "fact", "pyinfra_overlaymig.facts.AuditCapture", "id=from_afar"],
        cwd=TOP, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"path": "/srv/afar"' in done.stdout + done.stderr


def test_overlaymig_diff_and_state(rig: Rig) -> None:
    """From the operator's side: the same text, all of it as JSON, and a proposal that is written into the manifest."""
    id = "20250710-001_keeps"
    script = "mkdir -p /var/lib/keeps; chown daemon /var/lib/keeps; echo x >/var/lib/keeps/db"
    assert rig.apply(id, script).code == 0
    program = str(Path(sys.executable).with_name("overlaymig"))

    def overlaymig(*words: str) -> str:
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert overlaymig("diff", rig.name, id) == rig.sh(f"{RUNNER} diff {id}")
    document = json.loads(overlaymig("diff", rig.name, id, "--json"))
    assert document["proposed_state"] == ["/var/lib/keeps"]
    assert overlaymig("state", rig.name, id) == "state:\n  - /var/lib/keeps\n"
    overlaymig("state", rig.name, id, str(rig.folder / id))
    assert "state:\n  - /var/lib/keeps\n" in (rig.folder / id / "migration.yaml").read_text()


@pytest.mark.parametrize(
    ("around", "state"),
    [
        (["unshare", "--pid", "--fork", "--mount-proc"], "namespace"),
        (["unshare", "--user", "--map-root-user"], "namespace"),
        (["env", "PATH=/usr/bin:/bin"], "no-auditd"),
        (["env"], "on"),
    ],
)
def test_state_is_named(rig: Rig, around: list[str], state: str) -> None:
    """Why there is no audit, by name."""
    assert rig.status().known
    script = (
        "from pyinfra_overlaymig.format import paths; paths.AUDIT_SHARED = '/none'; "
        "from pyinfra_overlaymig.runner.audit import auditd; print(auditd.state())"
    )
    command = [*around, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=TOP)
    assert done.stdout == f"{state}\n"


def test_records_of_a_migration_are_found_by_their_key(rig: Rig) -> None:
    """`ausearch -k migration_tracking`, in the running log and in the kept trace: what was made, and by whom."""
    id = "20250710-001_keyed"
    assert rig.apply(id, "mkdir /opt/keyed; chmod 700 /opt/keyed; ln -s x /opt/keyed/link").code == 0
    log = (rig.lab.audit / "source").resolve() / (rig.lab.audit / "name").read_text("utf-8").strip()
    search = ["ausearch", "-k", "migration_tracking"]
    trace = rig.sh(f"zcat /data/system/migrations/{id}/audit.gz")
    running = subprocess.run([*search, "-if", log], capture_output=True, text=True, check=True).stdout
    kept = subprocess.run(search, input=trace, capture_output=True, text=True, check=True).stdout
    for found in (running, kept):
        assert all(f'name="{path}"' in found for path in ("/opt/keyed", "/opt/keyed/link"))
        assert all(f'exe="/usr/bin/{program}"' in found for program in ("mkdir", "chmod", "ln"))
    other = subprocess.run(["ausearch", "-k", "nobodys"], input=trace, capture_output=True, text=True, check=False)
    assert "/opt/keyed" not in other.stdout
