"""When a migration fails, is refused or is interrupted, the machine is as it was, and says why."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import pytest

from tests.rig import RUNNER, Rig
from tests.runner_process import pattern

APPLY = pattern("apply")


@pytest.fixture(scope="module")
def busy(rig: Rig) -> Rig:
    """A machine with one migration, state and some drift: something to lose."""
    result = rig.apply(
        "20250101-001_first",
        "mkdir -p /var/lib/thing; echo kept >/var/lib/thing/data; echo one >/etc/one",
        state=["/var/lib/thing"],
    )
    assert result.code == 0, result.text
    rig.sh("echo drift >/etc/drift; mkdir /srv/drift; rm /etc/issue.net")
    return rig


def fails_without_a_trace(
    rig: Rig, name: str, script: str, *, code: int = 9, verify: str | None = None, **manifest: object
) -> str:
    before = rig.tree()
    result = rig.apply(name, script, verify=verify, **manifest)
    assert result.code == code, result.text
    assert rig.tree() ^ before == frozenset()
    assert rig.status().lock is None
    return result.text


def test_script_that_fails_after_dpkg_ran(busy: Rig) -> None:
    """Packages, files and state of a script that fails half-way are gone; the log says how it failed."""
    text = fails_without_a_trace(
        busy,
        "20250102-001_half_way",
        "apt-get update -qq; apt-get install -y -qq jq >/dev/null; echo half-way; rm /var/lib/thing/data;"
        "echo new >/var/lib/thing/new; rm -rf /etc/one; exit 7",
    )
    assert "half-way" in text
    assert "status 7" in text
    evidence = busy.status().evidence
    assert [(one.id, one.why) for one in evidence] == [("20250102-001_half_way", "7")]
    assert "half-way" in busy.sh("cat /data/system/staging/20250102-001_half_way/log")


def test_service_that_is_ready_and_ends_before_the_migration_does(busy: Rig) -> None:
    """It was ready in time, and is not any more when all else is done."""
    run = "test ! -e /run/ended || exit 3; exec sleep 7777"
    text = fails_without_a_trace(
        busy,
        "20250102-010_ends",
        ":",
        verify="touch /run/ended; s6-svc -wd -t /run/service/ends",
        services={"ends": {"run": run, "check": "true", "ready_timeout": 10}},
    )
    assert "service ends died three times" in text
    busy.sh("rm /run/ended")


def test_script_that_sleeps_past_its_limit(busy: Rig) -> None:
    """A script that runs out of time is ended, with all it started."""
    text = fails_without_a_trace(busy, "20250102-002_sleeps", "setsid sleep 3333 & sleep 3333", timeout=1)
    assert "limit of 1 s" in text
    assert "sleep 3333" not in busy.sh("ps ax -o args")


def test_script_that_ignores_the_end_of_its_time(busy: Rig) -> None:
    """A script that does not listen to SIGTERM is killed."""
    fails_without_a_trace(busy, "20250102-003_deaf", "trap '' TERM; while :; do sleep 1; done", timeout=1)


def test_script_that_kills_all_it_can(busy: Rig) -> None:
    """A script sees and ends only its own processes."""
    fails_without_a_trace(busy, "20250102-004_kills", "kill -KILL -1; sleep 1; exit 1")
    assert busy.status().booted


def test_daemon_left_behind_ends_with_the_script(busy: Rig) -> None:
    """What a script left running neither lives on nor fails it."""
    result = busy.apply("20250102-005_daemon", "(setsid sleep 4444 >/dev/null 2>&1 &); echo done >/etc/daemon")
    assert result.code == 0, result.text
    assert "sleep 4444" not in busy.sh("ps ax -o args")


def test_service_that_dies_is_shown_with_its_last_output(busy: Rig) -> None:
    """A service that does not stay up takes its migration back, with what it said in front of the operator."""
    text = fails_without_a_trace(
        busy,
        "20250102-006_dies",
        "echo there >/etc/dies",
        services={"dies": {"run": "echo I cannot live like this\nexec false"}},
        state=["/var/lib/dies"],
    )
    assert "I cannot live like this" in text
    assert "dies" not in [one.name for one in busy.status().services]


def test_service_that_never_gets_ready(busy: Rig) -> None:
    """Its own limit counts, not a general one."""
    started = time.monotonic()
    text = fails_without_a_trace(
        busy,
        "20250102-007_never_ready",
        ":",
        services={"never": {"run": "exec sleep 5555", "check": "false", "ready_timeout": 3}},
    )
    assert "not ready within 3 s" in text
    assert time.monotonic() - started < 30


def test_failed_health_check(busy: Rig) -> None:
    """A verify script that fails switches back; state that the migration brought new is gone."""
    text = fails_without_a_trace(
        busy,
        "20250102-008_unhealthy",
        "echo bad >/etc/unhealthy; echo s >/var/lib/unhealthy/s",
        verify="test -f /etc/unhealthy; test -f /var/lib/unhealthy/s; echo looks ill; exit 5",
        state=["/var/lib/unhealthy"],
    )
    assert "looks ill" in text
    assert "verify.sh of 20250102-008_unhealthy failed with status 5" in text


def test_edited_script_is_refused_with_the_difference(busy: Rig) -> None:
    """A migration that was changed after it was applied is refused, and what was changed is shown."""
    text = fails_without_a_trace(busy, "20250101-001_first", "echo other >/etc/one", code=3, state=["/var/lib/thing"])
    assert "was edited after it was applied" in text
    assert "+echo other >/etc/one" in text


@pytest.mark.parametrize(
    ("name", "manifest", "words"),
    [
        ("20250103-001_lonely", {"depends": ["20250102-999_missing"]}, "20250102-999_missing"),
        ("20250103-001_enemy", {"conflicts": ["20250101-001_first"]}, "conflicts with 20250101-001_first"),
        ("20240101-001_late", {}, "out of order"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(busy: Rig, name: str, manifest: dict[str, Any], words: str) -> None:
    """A missing dependency, a conflict and, where the folder says so, an id out of order are refused before anything
    is touched.
    """
    settings = busy.folder / "migrations.yaml"
    settings.write_text("strict_order: true\n")
    assert words in fails_without_a_trace(busy, name, ":", code=3, **manifest)
    settings.unlink()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_damaged_bundle_is_refused(busy: Rig, cut: int) -> None:
    """A bundle that came in part, or changed on its way, is invalid input; nothing is kept of it."""
    bundle = busy.migration("20250103-003_damaged", "echo x >/etc/damaged")
    before = busy.tree()
    damaged = bundle[:cut] if cut != -1 else bundle[:-20]
    result = busy.run(RUNNER, "apply", "-", stdin=damaged)
    assert result.code == 4, result.text
    assert busy.tree() ^ before == frozenset()
    assert busy.sh("ls -A /data/system/staging | grep incoming || :") == ""


def test_two_operators_at_once(busy: Rig) -> None:
    """One wins; the other is told who holds the lock, since when and for what, and touches nothing."""
    first = busy.migration("20250103-004_slow", "echo begun; sleep 4; echo slow >/etc/slow")
    second = busy.migration("20250103-005_second", ":")
    with subprocess.Popen(
        busy.machine.enter("env", "OVERLAYMIG_WHO=ada@laptop", RUNNER, "apply", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as winner:  # fmt: skip
        assert winner.stdin
        assert winner.stdout
        winner.stdin.write(first)
        winner.stdin.close()
        assert any(b"begun" in line for line in winner.stdout)
        loser = busy.run(RUNNER, "apply", "-", stdin=second)
        assert loser.code == 3
        assert "locked by ada@laptop" in loser.err
        assert "20250103-004_slow" in loser.err
        lock = busy.status().lock
        assert lock
        assert (lock.who, lock.verb, lock.id) == ("ada@laptop", "apply", "20250103-004_slow")
        assert winner.wait(60) == 0
    assert busy.status().lock is None
    assert busy.sh("cat /etc/slow") == "slow\n"


def test_killed_runner_leaves_nothing_running_and_is_undone(busy: Rig) -> None:
    """SIGKILL of the transaction in the middle of the script: the script ends with it, recover undoes it."""
    before = busy.tree()
    bundle = busy.migration("20250104-001_killed", "echo begun; echo x >/etc/killed; sleep 6666")
    with subprocess.Popen(
        busy.machine.enter(RUNNER, "apply", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(b"begun" in line for line in apply.stdout)
        busy.sh(f"pkill -KILL -f '{APPLY}'")
        assert apply.wait(60) != 0
    time.sleep(0.5)
    assert "sleep 6666" not in busy.sh("ps ax -o args")
    result = busy.run(RUNNER, "recover")
    assert result.code == 0
    assert "20250104-001_killed was interrupted before its commit" in result.text
    assert busy.tree() ^ before == frozenset()
    assert busy.run(RUNNER, "recover").err == ""


def test_interrupt_from_the_terminal_undoes(busy: Rig) -> None:
    """Ctrl-C for the one who runs it on the machine: the script ends, the machine is as before, exit 9."""
    before = busy.tree()
    bundle = busy.migration("20250104-002_ctrl_c", "echo begun; echo x >/etc/interrupted; sleep 7777")
    with subprocess.Popen(
        # A test run in the background has SIGINT ignored, and so would all it starts.
        busy.machine.enter("env", "--default-signal=INT", RUNNER, "apply", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(b"begun" in line for line in apply.stdout)
        busy.sh(f"pkill -INT -f '{APPLY}'")
        assert apply.wait(60) == 9
    assert "sleep 7777" not in busy.sh("ps ax -o args")
    assert busy.tree() ^ before == frozenset()


def test_evidence_is_bounded(busy: Rig) -> None:
    """Of failed migrations the newest three are kept."""
    for number in range(4):
        assert busy.apply(f"20250105-00{number + 1}_fails", "exit 1").code == 9
    assert [one.id for one in busy.status().evidence] == [f"20250105-00{number}_fails" for number in (2, 3, 4)]


def test_after_all_that_a_good_migration_applies(busy: Rig) -> None:
    """Nothing of the failures stands in the way of the next one."""
    result = busy.apply("20250106-001_good", "test ! -e /etc/killed; echo good >/etc/good")
    assert result.code == 0, result.text
    assert busy.sh("cat /etc/good /etc/drift /var/lib/thing/data") == "good\ndrift\nkept\n"


def test_replaced_service_returns_when_its_replacement_fails(fresh: Rig) -> None:
    """A migration that redefines a service and fails leaves the earlier definition running."""
    assert fresh.apply("20250101-001_web", ":", services={"web": {"run": "exec sleep 1111"}}).code == 0
    result = fresh.apply("20250102-001_web", ":", verify="exit 1", services={"web": {"run": "exec sleep 2222"}})
    assert result.code == 9, result.text
    assert "sleep 1111" in fresh.sh("sleep 1; ps ax -o args")
    assert {one.name: one.up for one in fresh.status().services} == {"sshd": True, "web": True}


def test_missing_service_shows_in_status(fresh: Rig) -> None:
    """A service that the generation promises and nobody supervises is told as down, not left out."""
    assert fresh.apply("20250101-001_web", ":", services={"web": {"run": "exec sleep 1111"}}).code == 0
    fresh.sh("s6-svunlink /run/service web")
    assert {one.name: one.up for one in fresh.status().services} == {"sshd": True, "web": False}


def test_health_check_is_a_program_of_its_own(fresh: Rig) -> None:
    """verify.sh runs by its first line, with nothing to read, and what it leaves behind holds no lock."""
    result = fresh.apply("20250101-001_check", ":", verify="cat; if read -r x; then exit 1; fi\nsleep 300 &")
    assert result.code == 0, result.text
    assert fresh.apply("20250102-001_next", ":").code == 0


def test_reader_that_goes_away_does_not_undo_a_recovery(fresh: Rig) -> None:
    """A migration past its commit is finished although nobody listens to `recover` any more."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    fresh.sh(
        "rm /data/system/migrations/20250101-001_one/applied; mkdir -p /data/system/staging/20250101-001_one/state"
    )
    fresh.sh(f"(sleep 0.2; {RUNNER} recover) 2>&1 | true; sleep 3")
    assert [one.status for one in fresh.status().migrations] == ["applied"]
    assert fresh.sh("cat /etc/one") == "x\n"


def test_output_that_cannot_be_written_changes_no_outcome(fresh: Rig) -> None:
    """A full disk below the caller's log, a terminal that was hung up: what happened is what the exit code says."""
    fresh.sh("cat >/tmp/bundle", stdin=fresh.migration("20250101-001_one", "echo begun; sleep 0.5; echo more"))
    assert fresh.run("/bin/sh", "-c", f"exec >/dev/full; {RUNNER} apply /tmp/bundle").code == 0
    assert fresh.run("/bin/sh", "-c", f"exec >/dev/full 2>&1; {RUNNER} rollback 0").code == 0
    fresh.sh("cat >/tmp/bundle", stdin=fresh.migration("20250102-001_two", "echo begun; sleep 0.5; echo more"))
    terminal, end = os.openpty()
    argv = fresh.machine.enter("/bin/sh", "-c", f"trap '' HUP; {RUNNER} apply /tmp/bundle; echo $? >/tmp/code")
    with subprocess.Popen(argv, stdin=end, stdout=end, stderr=end, start_new_session=True):
        os.close(end)
        seen = b""
        while b"begun" not in seen:
            seen += os.read(terminal, 4096)
        os.close(terminal)
    assert fresh.sh("cat /tmp/code") == "0\n"
    assert fresh.status().stack == ("20250102-001_two",)
