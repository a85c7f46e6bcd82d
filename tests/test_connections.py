"""Connections that go: the run that was killed, the machine that cannot be reached again, and the one without power."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.lab.layout import place
from tests.rig import Rig
from tests.test_end_to_end import TOP, deploy_of, ended, pyinfra

PROGRAM = Path(sys.executable).with_name("pyinfra")


def killed_at(line: str, *arguments: str) -> None:
    """Run pyinfra until each of lab-1 and lab-2 has said ``line``, and kill it then."""
    with subprocess.Popen(
        [PROGRAM, "-y", "--limit", "lab-1", "--limit", "lab-2", "inventories/lab.py", *arguments],
        cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stderr
        waited_for = {f"[lab-{number}] ==> {line}" for number in (1, 2)}
        for said in operator.stderr:
            waited_for = {one for one in waited_for if one not in said}
            if not waited_for:
                break
        operator.kill()


def test_the_run_after_one_that_was_killed_confirms(fleet: lab.Lab, tmp_path: Path) -> None:
    """Machines that wait for a new connection get it from the next run, of a migration as of a rollback."""
    name = "20250101-001_left"
    deploy = deploy_of(tmp_path, name, "echo yes >/etc/left")
    limit = ("--limit", "lab-1", "--limit", "lab-2")
    killed_at("waiting up to", deploy)
    foreseen = pyinfra("--dry", *limit, deploy)
    assert foreseen.returncode == 0, foreseen.stderr
    assert "will be refused" not in foreseen.stderr
    again = pyinfra("-y", *limit, deploy)
    assert again.returncode == 0, again.stderr
    for said in (foreseen.stderr, again.stderr):
        assert len(re.findall(rf"\[lab-[12]\] {name}, by \S+ since \S+, awaits a new connection", said)) == 2
    rigs = [Rig(fleet, f"lab-{number}", tmp_path) for number in (1, 2)]
    for rig in rigs:
        assert f"[{rig.name}] ==> confirmed: generation 1 is running" in again.stderr
        assert rig.status().migrations[0].status == "applied"
    assert pyinfra("-y", *limit, deploy).stderr.count("No changes") == 4
    to_base = ("--data", "generation=0", "deploys/rollback.py")
    killed_at("waiting up to", *to_base)
    again = pyinfra("-y", *limit, *to_base)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("confirmed: generation 2 is running") == 2
    assert [rig.status().stack for rig in rigs] == [(), ()]


def test_what_awaits_is_confirmed_by_a_run_of_something_else(fleet: lab.Lab, tmp_path: Path) -> None:
    """A new connection is a new connection; and what is at work yet is waited for, where it is what is wanted."""
    name = "20250102-001_other"
    killed_at("waiting up to", deploy_of(tmp_path, name, "echo yes >/etc/other"))
    slow = deploy_of(tmp_path, "20250103-001_slow", "echo begun; sleep 4; echo x >/etc/slow")
    limit = ("--limit", "lab-1", "--limit", "lab-2")
    with subprocess.Popen(
        [PROGRAM, "-y", *limit, "inventories/lab.py", slow], cwd=TOP, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stderr
        said = ""
        for line in operator.stderr:
            said += line
            if said.count("] begun") == 2:
                break
        operator.kill()
    assert said.count("==> confirmed: generation ") == 2
    again = pyinfra(*limit, "-y", slow)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("20250103-001_slow: is being applied by another run: that is waited for") == 2
    for number in (1, 2):
        assert Rig(fleet, f"lab-{number}", tmp_path).status().stack[-2:] == (name, "20250103-001_slow")


# Down for eight seconds as soon as the migration is live; its check sees to it that nobody is quicker.
AWAY = "s6-svc -d /run/service/sshd; sleep 8; s6-svc -u /run/service/sshd; exec sleep 1111"
VERIFY = "#!/bin/sh\nuntil s6-svstat -o up /run/service/sshd | grep -q false; do sleep 0.1; done\n"


def test_each_machine_loses_its_connection_in_its_own_way(fleet: lab.Lab, tmp_path: Path) -> None:
    """One is back after eight seconds, one never lets us in again, one has lost its power: the run goes on.

    Each that failed says so in a line, within half a minute, and the table of the results comes.
    """
    names = [f"20250201-00{number}_{what}" for number, what in enumerate(("back", "never", "power"), 1)]
    deploy_of(tmp_path, names[0], "echo x >/etc/back", services={"away": {"run": AWAY}})
    (tmp_path / "migrations" / names[0] / "verify.sh").write_text(VERIFY)
    deploy_of(tmp_path, names[1], "rm /root/.ssh/authorized_keys")
    deploy_of(tmp_path, names[2], "echo begun; sleep 3; echo x >/etc/power")
    folder = str(tmp_path / "migrations")
    deploy = tmp_path / "deploy.py"
    deploy.write_text(
        "from pyinfra import host\nfrom pyinfra.operations import server\n"
        "from pyinfra_overlaymig.operations import machine_prepared, migration_applied\n"
        f"names = dict(zip(('lab-1', 'lab-2', 'lab-3'), {names!r}))\n"
        "machine_prepared()\n"
        f"migration_applied(names[host.name], {folder!r}, confirm=15)\n"
        "server.shell(name='After', commands=['touch /run/after'])\n"
    )
    link = place(fleet, "lab-3").interface
    with subprocess.Popen(
        [PROGRAM, "-y", "inventories/lab.py", str(deploy)], cwd=TOP, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stderr
        said, cut, lost = "", 0.0, 0.0
        try:
            for line in operator.stderr:
                said += line
                if line.endswith("[lab-3] begun\n"):
                    subprocess.run(["ip", "link", "set", link, "down"], check=True)
                    cut = time.monotonic()
                elif "[lab-3] connection lost" in line:
                    lost = time.monotonic()
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
        assert operator.wait(60) != 0
    assert cut, said
    assert 0 < lost - cut < 30, said
    assert "Traceback" not in said
    assert "Results" in said
    assert said.count("[lab-1] ==> confirmed: generation ") == 1, said
    assert said.count("[lab-2] no new connection after the switch: the machine takes it back by itself (") == 1
    assert said.count("connection lost") == 1
    rigs = [Rig(fleet, f"lab-{number}", tmp_path) for number in (1, 2, 3)]
    assert [rig.run("test", "-e", "/run/after").code for rig in rigs] == [0, 1, 1]
    for rig in rigs[1:]:
        ended(fleet, rig.name)
    assert [rig.status().stack[-1:] == (name,) for rig, name in zip(rigs, names, strict=True)] == [True, False, False]
    # The machine that is back lets everybody else in, too.
    assert pyinfra("-y", "--limit", "lab-1", str(deploy)).returncode == 0
