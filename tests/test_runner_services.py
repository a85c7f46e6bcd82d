"""Services of migrations on a machine: which a switch restarts, in which order they go, what brings them back."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig
from tests.test_runner_broken import power_cycle

READY = {"check": "true"}


def pids(rig: Rig, *names: str) -> dict[str, str]:
    return {name: rig.sh(f"s6-svstat -o pid /run/service/{name}").strip() for name in names}


def test_switch_restarts_what_it_has_to(fresh: Rig) -> None:
    """What runs from a file that changed, and what wants it at each switch; all else goes on, and is named."""
    services: dict[str, Any] = {
        "uses": {"run": "exec /opt/program 1111"},
        "other": {"run": "exec sleep 2222"},
        "always": {"run": "exec sleep 3333", "restart": "always"},
        "never": {"run": "exec /opt/program 4444", "restart": "never"},
        "sources": {"run": "exec /opt/start"},
    }
    start = "#!/bin/sh\\n. /etc/default/start\\nexec sleep 5555\\n"
    script = f"cp /usr/bin/sleep /opt/program; printf '{start}' >/opt/start; chmod 755 /opt/start"
    assert fresh.apply("20250101-001_services", f"{script}; echo A=1 >/etc/default/start", services=services).code == 0
    before = pids(fresh, *services)
    result = fresh.apply("20250102-001_program", "printf more >>/opt/program; echo A=2 >/etc/default/start")
    assert result.code == 0, result.text
    after = pids(fresh, *services)
    assert {name for name in services if before[name] != after[name]} == {"uses", "always", "sources"}
    assert {"never", "other"} <= set(result.text.partition("left running: ")[2].split("\n")[0].split())
    again = fresh.apply("20250103-001_unrelated", "echo x >/etc/unrelated")
    assert {name for name, pid in pids(fresh, *services).items() if pid != after[name]} == {"always"}, again.text


LOCKED = {
    "misspelt": "echo 'PermitRootLgin yes' >>/etc/ssh/sshd_config",
    "keys": "rm /etc/ssh/ssh_host_*",
}


@pytest.mark.parametrize("how", LOCKED)
def test_what_keeps_a_service_of_the_base_from_its_next_start_is_seen_at_once(rig: Rig, how: str) -> None:
    """It goes on with what it has read; the next boot would be the first without it."""
    before = rig.tree()
    done = rig.apply(f"20250101-001_{how}", LOCKED[how])
    assert done.code == 9, done.text
    assert "service sshd died three times while it started" in done.text
    assert "it has no log" in done.text
    assert "the machine is as it was before" in done.text
    assert rig.tree() ^ before == frozenset()
    subprocess.run([*lab.ssh_argv(rig.lab, rig.machine), "true"], check=True)


def test_boots_without_a_service_of_the_base_fall_back(fresh: Rig) -> None:
    """It comes up when its migration is applied, and at no boot after it: the third goes back to what was before."""
    assert fresh.apply("20250101-001_good", "echo good >/etc/good").code == 0
    fresh.sh("cp /etc/ssh/ssh_host_ed25519_key /run/key")
    config = "echo 'HostKey /run/key' >/etc/ssh/sshd_config.d/overlaymig.conf"
    assert fresh.apply("20250102-001_key", f"{config}; rm /etc/ssh/ssh_host_*").code == 0
    for failed in (1, 2, 3):
        power_cycle(fresh)
        said, deadline = f"not ready after this boot: sshd (boot {failed} of 3", time.monotonic() + 30
        while said not in fresh.machine.console.read_text():
            assert time.monotonic() < deadline, fresh.machine.console.read_text()
            time.sleep(0.1)
    fresh.sh("flock -s -w 30 /data/system/lock/flock true")
    fresh.sh("s6-svwait -u -t 5000 /run/service/sshd; sleep 0.5")
    subprocess.run([*lab.ssh_argv(fresh.lab, fresh.machine), "true"], check=True)
    assert fresh.status().stack == ("20250101-001_good",)


def test_service_that_was_stopped_often_is_not_taken_for_one_that_dies(fresh: Rig) -> None:
    """Each migration that stops it meanwhile adds a death to s6's tally."""
    assert fresh.apply("20250101-001_often", ":", services={"often": {"run": "exec sleep 1111"}}).code == 0
    for number in range(2, 6):
        result = fresh.apply(f"20250101-00{number}_stops", ":", stop=["often"])
        assert result.code == 0, result.text
    fresh.sh("test $(s6-svstat -o ready /run/service/often) = true")


def test_dependants_stop_first_when_a_rollback_takes_them(fresh: Rig) -> None:
    """The one that is needed is there as long as anything needs it; both are gone afterwards."""
    ended = "echo {} >>/data/ended"
    services = {
        "app": {"run": "exec sleep 1111", "needs": ["store"], "finish": ended.format("app"), **READY},
        "store": {"run": "exec sleep 2222", "finish": ended.format("store"), **READY},
    }
    assert fresh.apply("20250101-001_both", ":", services=services).code == 0
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    assert fresh.sh("cat /data/ended; ls /run/service").split() == ["app", "store", "sshd"]


def test_nothing_starts_before_all_below_it_is_ready(fresh: Rig) -> None:
    """Through a service that tells no readiness of its own, too: it is not ready while it waits."""
    services = {
        "a": {"run": "exec sleep 1111", "check": "test -e /run/a-is-ready", "ready_timeout": 20},
        "b": {"run": ": >/run/b-began; exec sleep 2222", "needs": ["a"]},
        "c": {"run": ": >/run/c-began; exec sleep 3333", "needs": ["b"]},
    }
    result = fresh.apply("20250101-001_chain", ":", services=services, verify="exit 1")
    assert "service a was not ready" in result.text
    fresh.sh("test ! -e /run/b-began; test ! -e /run/c-began; : >/run/a-is-ready")
    assert fresh.apply("20250101-001_chain", ":", services=services).code == 0
    fresh.sh(
        "s6-svc -r /run/service/a; rm /run/a-is-ready /run/b-began /run/c-began; s6-svc -r /run/service/c; sleep 2"
    )
    fresh.sh("test ! -e /run/c-began || test $(s6-svstat -o ready /run/service/b) = true")


def test_killed_processes_are_back_and_ready(fresh: Rig) -> None:
    """`kill -9` of the service, and of s6-supervise: one instance of it is ready again."""
    assert fresh.apply("20250101-001_back", ":", services={"back": {"run": "exec sleep 1111", **READY}}).code == 0
    for victim in ("$(s6-svstat -o pid /run/service/back)", "$(pgrep -fx 's6-supervise back')"):
        before = pids(fresh, "back")
        fresh.sh(f"kill -9 {victim}")
        fresh.sh(
            f"""
            until pid=$(s6-svstat -o pid /run/service/back 2>&1) && [ "$pid" -gt 0 ] && [ "$pid" != {before["back"]} ]
            do sleep 0.1; done
            s6-svwait -U -t 20000 /run/service/back; test $(pgrep -c -fx 'sleep 1111') = 1
            """
        )
        assert pids(fresh, "back") != before


def test_pre_start_that_fails_is_told_by_status(fresh: Rig) -> None:
    """The service stays down, and why is in the status and in the fact, whatever bytes it was said in."""
    assert fresh.apply("20250101-001_down", ":", services={"down": {"run": "exec sleep 1111"}}).code == 0
    fresh.sh(
        r"""
        printf '#!/bin/sh\nprintf "no r\\366om\\n"; exit 1\n' >/run/service/down/pre-start
        s6-svc -r /run/service/down; s6-svwait -D -t 10000 /run/service/down; sleep 1
        """
    )
    found = fresh.status().service("down")
    assert found is not None
    assert not found.up
    assert found.reason.startswith("no r")
    assert any("down (no r" in one for one in fresh.status().troubles)


def test_what_cannot_be_is_refused(fresh: Rig) -> None:
    """A conflict that only the other one names, and a service to stop that is not there."""
    assert fresh.apply("20250101-001_first", ":", conflicts=["20250102-001_second"]).code == 0
    second = fresh.apply("20250102-001_second", "echo x >/etc/second")
    assert second.code == 3
    assert "20250101-001_first, which is applied here, conflicts with 20250102-001_second" in second.text
    third = fresh.apply("20250103-001_third", "echo x >/etc/third", stop=["posgresql"])
    assert third.code == 3
    assert "stops the service posgresql, which is not here" in third.text
    found = fresh.status()
    assert [one.conflicts for one in found.migrations] == [("20250102-001_second",)]
    assert found.defined == ("sshd",)


def test_log_is_rotated(fresh: Rig) -> None:
    """What a service says goes to a log that keeps five older files of a megabyte."""
    run = "yes 'all work and no play' | head -c 12000000; exec sleep 1111"
    assert fresh.apply("20250101-001_talks", ":", services={"talks": {"run": run}}).code == 0
    fresh.sh("cd /data/state/var/log/talks; until [ $(ls | grep -c '^@') = 5 ]; do sleep 0.1; done")
    sizes = fresh.sh("cd /data/state/var/log/talks; stat -c %s @*").split()
    assert all(900_000 < int(size) < 1_100_000 for size in sizes), sizes


def test_service_that_s6_was_never_told_of_is_supervised_by_the_next_verb(fresh: Rig) -> None:
    """Whoever laid it out was killed in between: it is linked, and nobody supervises it."""
    assert fresh.apply("20250101-001_told", ":", services={"told": {"run": "exec sleep 1111", **READY}}).code == 0
    fresh.sh("s6-svunlink /run/service told; ln -s /run/services/told /run/service/told; ! s6-svok /run/service/told")
    result = fresh.run(RUNNER, "recover")
    assert result.code == 0, result.text
    assert "starting service told again" in result.text
    fresh.sh("test $(s6-svstat -o ready /run/service/told) = true")
