"""Connections that go: the run that was killed, the machine that cannot be reached again, and the one without power."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.lab.layout import place
from pyinfra_overlaymig.operations import _connection
from pyinfra_overlaymig.operations._connection import in_a_line
from tests.rig import Rig
from tests.test_end_to_end import TOP, deploy_of, ended, pyinfra

PROGRAM = Path(sys.executable).with_name("pyinfra")


LISTEN = "import socket; one = socket.create_server(('127.0.0.1', 9)); one.accept()"
LIMIT = ("--limit", "lab-1", "--limit", "lab-2")


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "-y", "inventories/lab.py", *arguments], cwd=TOP,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def read_until(operator: subprocess.Popen[str], *lines: str) -> str:
    """What it says until it has said each of ``lines``."""
    assert operator.stderr
    said = ""
    for line in operator.stderr:
        said += line
        if all(one in said for one in lines):
            break
    return said


def killed_at(line: str, *arguments: str) -> None:
    """Run pyinfra until lab-1 and lab-2 have said ``line``, and kill it then."""
    with started(*LIMIT, *arguments) as operator:
        read_until(operator, f"[lab-1] {line}", f"[lab-2] {line}")
        operator.kill()


def waiting(fleet: lab.Lab, folder: Path) -> list[str]:
    """Who of lab-1 and lab-2 awaits a confirmation: the first to wait may have got it yet, as the kill came."""
    time.sleep(3)
    rigs = [Rig(fleet, name, folder) for name in ("lab-1", "lab-2")]
    found = [rig.name for rig in rigs if (lock := rig.status().lock) and lock.awaits]
    assert found
    return found


def test_the_run_after_one_that_was_killed_confirms(fleet: lab.Lab, tmp_path: Path) -> None:
    """Machines that wait for a new connection get it from the next run, of a migration as of a rollback."""
    name = "20250101-001_left"
    deploy = deploy_of(tmp_path, name, "echo yes >/etc/left")
    killed_at("==> waiting up to", deploy)
    left = waiting(fleet, tmp_path)
    foreseen = pyinfra("--dry", *LIMIT, deploy)
    assert foreseen.returncode == 0, foreseen.stderr
    assert "will be refused" not in foreseen.stderr
    again = pyinfra("-y", *LIMIT, deploy)
    assert again.returncode == 0, again.stderr
    for said in (foreseen.stderr, again.stderr):
        awaited = re.findall(rf"\[(lab-.)\] {name}, by \S+ since \S+, awaits a new connection", said)
        assert sorted(awaited) == left
    assert sorted(re.findall(r"\[(lab-.)\] ==> confirmed: generation 1 is running", again.stderr)) == left
    rigs = [Rig(fleet, f"lab-{number}", tmp_path) for number in (1, 2)]
    assert [rig.status().migrations[0].status for rig in rigs] == ["applied", "applied"]
    to_base = ("--data", "generation=0", "deploys/rollback.py")
    killed_at("==> waiting up to", *to_base)
    left = waiting(fleet, tmp_path)
    again = pyinfra("-y", *LIMIT, *to_base)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("confirmed: generation 2 is running") == len(left)
    assert [rig.status().stack for rig in rigs] == [(), ()]


def test_what_awaits_is_confirmed_by_a_run_of_something_else(fleet: lab.Lab, tmp_path: Path) -> None:
    """A new connection is a new connection; and what is at work yet is waited for, where it is what is wanted."""
    names = ("20250102-001_other", "20250103-001_slow")
    rigs = [Rig(fleet, f"lab-{number}", tmp_path) for number in (1, 2)]
    killed_at("==> waiting up to", deploy_of(tmp_path, names[0], "echo yes >/etc/other"))
    left = waiting(fleet, tmp_path)
    # Of what is not its own, a script sees the network alone.
    script = "echo begun; until bash -c ': </dev/tcp/127.0.0.1/9' 2>/dev/null; do sleep 0.1; done; echo x >/etc/slow"
    slow = deploy_of(tmp_path, names[1], script, timeout=60)
    with started(*LIMIT, slow) as operator:
        said = read_until(operator, "[lab-1] begun", "[lab-2] begun")
        operator.kill()
    assert said.count("==> confirmed: generation ") == len(left)
    with started(*LIMIT, slow) as operator:
        told = f"{names[1]}: is being applied by another run: that is waited for"
        said = read_until(operator, f"[lab-1] {told}", f"[lab-2] {told}")
        for rig in rigs:
            rig.sh(f"timeout 20 python3 -c {shlex.quote(LISTEN)} >/dev/null 2>&1 &")
        said += read_until(operator, "there is no such line")
    assert operator.returncode == 0, said
    assert [rig.status().stack[-2:] for rig in rigs] == [names, names]


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
    with started(str(deploy)) as operator:
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


class Transport:
    """A connection through a jump host: there is no socket of its own. ``answers``: whether its machine is there."""

    sock = None

    def __init__(self, *, answers: bool) -> None:
        self.answers, self.closed = answers, threading.Event()

    def get_transport(self) -> Transport:
        return self

    def is_active(self) -> bool:
        return not self.closed.is_set()

    def global_request(self, *_: object, wait: bool) -> None:
        assert wait
        if not self.answers:
            self.closed.wait()

    def close(self) -> None:
        self.closed.set()


def test_a_machine_behind_another_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel knows its connection to the jump host only: one that is silent beyond it is closed, others are not."""
    monkeypatch.setattr(_connection, "IDLE", 0.01)
    monkeypatch.setattr(_connection, "SILENT", 5)
    monkeypatch.setattr(_connection, "_EVERY", 0.05)
    there, gone = Transport(answers=True), Transport(answers=False)
    for transport in (there, gone):
        _connection.keep_watch(SimpleNamespace(client=transport))
    assert gone.closed.wait(10)
    assert not there.closed.is_set()
    there.close()
    _connection.keep_watch(SimpleNamespace())
    _connection.keep_watch(None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(113, "No route to host"), "No route to host"),
        (OSError("Could not connect ([Errno None] Unable to connect)"), "Could not connect (Unable to connect)"),
        (OSError("Error reading banner[Errno 104] Connection reset"), "Error reading banner Connection reset"),
        (EOFError(), "it was closed"),
        (TimeoutError(), "TimeoutError"),
    ],
)  # fmt: skip
def test_an_error_is_said_in_words(error: Exception, said: str) -> None:
    assert in_a_line(error) == said
