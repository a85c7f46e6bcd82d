"""Boot: whatever is wrong with the layers, the machine comes up, and says what it runs."""

from __future__ import annotations

from pyinfra_overlaymig import lab
from tests.rig import RUNNER, Rig


def test_layer_with_broken_tools_does_not_stop_the_boot(fresh: Rig) -> None:
    """A layer whose cp, ln, mv and the like fail boots all the same: the base's are used."""
    broken = "printf '#!/bin/sh\\nexit 1\\n' >$tool; chmod 755 $tool"
    script = f"cd /usr/local/bin; for tool in cp ln mv rm readlink sed; do {broken}; done"
    assert fresh.apply("20250101-001_broken", script).code == 0
    lab.restart(fresh.lab, fresh.name)
    assert fresh.status().running == 1
    assert [one.name for one in fresh.status().services] == ["sshd"]
    fresh.sh("/usr/bin/rm -rf /data/system /data/state")


def test_current_generation_that_is_gone_boots_the_base(fresh: Rig) -> None:
    """A layer that is missing does not keep ssh away: the base runs alone, and verbs that write say what is wrong."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    fresh.sh("mv /data/system/layers/20250101-001_one /data/system/layers/.hidden")
    lab.restart(fresh.lab, fresh.name)
    status = fresh.status()
    assert (status.generation, status.running) == (1, 0)
    result = fresh.run(RUNNER, "recover")
    assert result.code == 20
    assert "lacks its layer 20250101-001_one" in result.err
    fresh.sh("mv /data/system/layers/.hidden /data/system/layers/20250101-001_one")
    result = fresh.run(RUNNER, "recover")
    assert result.code == 0, result.text
    assert fresh.sh("cat /etc/one") == "x\n"


def test_boot_of_a_running_machine_is_refused(fresh: Rig) -> None:
    """The entrypoint called by hand would take services from under their supervisors."""
    result = fresh.run(RUNNER, "boot", "--", "true")
    assert result.code == 3
    assert "has been booted" in result.err


def test_changed_base_is_reported(fresh: Rig) -> None:
    """A generation that was made over another base says so at boot."""
    assert fresh.apply("20250101-001_one", "echo x >/etc/one").code == 0
    fresh.sh("sed -i 's/^base .*/base 0123456789abcdef/' /data/system/generations/1")
    lab.restart(fresh.lab, fresh.name)
    assert "the base has changed since generation 1" in fresh.machine.console.read_text()


def test_migration_cut_off_after_its_commit_is_finished_by_the_boot(fresh: Rig) -> None:
    """Power goes right after the commit: the next boot runs the new generation and its service, and marks it."""
    bundle = fresh.migration(
        "20250101-001_cut",
        "echo x >/etc/cut; mkdir -p /var/lib/cut; echo s >/var/lib/cut/s",
        state=["/var/lib/cut"],
        services={"cut": {"run": "exec sleep 9999"}},
    )
    # The first program after the commit is `sync` of the generations: one in the base that never ends is the cut.
    fresh.sh(
        r"""
        mount -o remount,bind,rw /run/system-migrate/base
        sync=/run/system-migrate/base/usr/sbin/sync
        printf '#!/bin/sh\ncase $1 in */generations) sleep 60;; esac\nexec /bin/sync "$@"\n' >$sync
        chmod 755 $sync
        """
    )
    fresh.run(
        "/bin/sh", "-c", f"cat >/root/bundle; {RUNNER} apply /root/bundle >/dev/null 2>&1 & sleep 4", stdin=bundle
    )
    assert fresh.sh("readlink /data/system/generations/current; test ! -e /etc/cut") == "1\n"
    lab.restart(fresh.lab, fresh.name)
    fresh.sh(
        "for i in $(seq 100); do [ ! -e /data/system/migrations/20250101-001_cut/applied ] || break; sleep 0.1; done"
    )
    fresh.sh("cat /etc/cut /var/lib/cut/s; test $(s6-svstat -o up /run/service/cut) = true")
    assert [one.status for one in fresh.status().migrations] == ["applied"]
