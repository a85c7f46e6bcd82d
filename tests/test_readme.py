"""The README as a newcomer follows it: each of its commands is run, in its order, with the files that it shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyinfra_overlaymig import lab
from tests import stack
from tests.rig import Rig
from tests.volume import volume

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LONGEST = 300.0
"""Seconds of one command."""

CONTAINERS = "tests/test_containers.py, with podman"
ELSEWHERE = {
    "make demo": "tests/test_readme.py: what it types is what the tour types",
    "make test": ".ci/run",
    "docker build -t migration-test .": CONTAINERS,
    'docker run --rm --privileged migration-test /bin/bash -c "system-migrate install postgresql && psql --version"': (
        CONTAINERS
    ),
    "docker run -d --privileged --name dev -v dev-data:/data migration-test": CONTAINERS,
    "docker exec dev system-migrate check": CONTAINERS,
    "pyinfra @docker/dev deploys/postgres.py": CONTAINERS,
    "docker exec dev ls /data/system/migrations/": CONTAINERS,
    "colima start": "README.md: was never tried for real",
    "colima ssh -- grep overlay /proc/filesystems": "README.md: was never tried for real",
}
"""What is not run here, and where it is: a file of this checkout, and more about it."""

LATER = ["pyinfra inventories/static.py deploys/postgres.py", "overlaymig lab down"]
"""What is run at the end, as it needs machines or takes them away."""

SAYS = {
    "pyinfra inventories/lab.py deploys/postgres.py --dry": "apt-get install",
    "pyinfra inventories/lab.py deploys/postgres.py": "confirmed: generation 1 is running",
    "pyinfra -y inventories/lab.py deploys/stack.py --limit lab-1": "confirmed: generation 6 is running",
    "overlaymig lab status": "postgresql ready",
    "overlaymig lab ssh lab-1": "up (pid",
    "overlaymig diff lab-1 20240206-001_add_postgresql": "apt-get < install.sh",
    "overlaymig state lab-1 20240206-001_add_postgresql": "/var/log/postgresql",
    "overlaymig diff lab-1 by_hand": "/home/dev",
    "overlaymig lab exec lab-1 -- system-migrate drift": "/home/dev",
    "overlaymig lab exec lab-1 -- system-migrate status": '_install_htop"',
    "overlaymig lab exec lab-1 -- system-migrate rollback 0": "is running",
    "pyinfra inventories/lab.py deploys/rollback.py --data generation=1": "Success",
    "pyinfra inventory.py redis.py --dry": "redis-server",
    "pyinfra inventory.py redis.py": "starting service redis",
    "overlaymig graph migrations": "1. redis",
    "pyinfra -y inventory.py services.py": "Success",
    "pyinfra -y dev-1.example.net exec -- system-migrate drift adopt --packages": "adopting",
    "pyinfra inventories/static.py deploys/postgres.py": "[203.0.113.7] No changes",
}
"""What the output of some holds."""


class Block(NamedTuple):
    """What stands between two fences: commands, a file, or a drawing."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        if self.language != "sh" or self.file:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [bare for line in lines if (bare := re.sub(r"(^|\s+)# .*", "", line).strip())]

    @property
    def file(self) -> str:
        """Its path, which the first comment is."""
        named = re.match(r"(?:#!.*\n)?# (\S+\.(?:py|yaml|sh))\n", self.text)
        return named[1] if named else ""


BLOCKS = [Block(*found) for found in _FENCE.findall(README)]
FILES = {block.file: block.text for block in BLOCKS if block.file}
TYPED = [command for block in BLOCKS for command in block.commands]
# Also what is typed twice: each folder has an environment of its own to activate.
COMMANDS = [command for command in TYPED if command not in ELSEWHERE and command not in LATER] + LATER


def words(text: str) -> str:
    """Without what only aligns."""
    return " ".join(text.split())


class Newcomer:
    """A shell in which the commands are typed one after the other, beside a checkout that is called overlaymig."""

    def __init__(self, directory: Path) -> None:
        self.work = directory / "work"
        self.home = directory / "home"
        self.lab = lab.Lab.at(directory / "lab")
        self.work.mkdir()
        (self.work / "overlaymig").symlink_to(TOP)
        (self.home / ".ssh").mkdir(parents=True)
        for name in (".cache", ".config", ".pip"):
            # What pip has there is this host's.
            (self.home / name).symlink_to(Path.home() / name)
        mine = {"HOME": str(self.home), "OVERLAYMIG_LAB_DIR": str(self.lab.directory), "PIP_NO_COMPILE": "1"}
        self.shell = subprocess.Popen(
            ["bash"], cwd=self.work / "overlaymig", env={**os.environ, **mine}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def types(self, command: str, answers: str = "\n") -> tuple[int, str]:
        """The status of ``command`` and what it says; ``answers`` is what it reads."""
        assert self.shell.stdin
        assert self.shell.stdout
        said, heard = self.work / ".said", self.work / ".answers"
        heard.write_text(answers)
        impatient = threading.Timer(_LONGEST, self.shell.kill)
        impatient.start()
        self.shell.stdin.write(f"{{ {command}\n}} <{heard} >{said} 2>&1; echo $?\n")
        self.shell.stdin.flush()
        code = self.shell.stdout.readline()
        impatient.cancel()
        return int(code or -1), said.read_text(errors="replace")

    def rig(self, name: str) -> Rig:
        return Rig(self.lab, name, self.work)

    def knows_hosts(self) -> None:
        """The README's machines are the lab's: by names, through a jump host; one has no login as root."""
        address = {name: lab.machine(self.lab, name).address for name in ("lab-1", "lab-2", "lab-3")}
        names = {"dev-1.example.net": 1, "dev-2.example.net": 2, "db-1.example.net": 1, "db-2.example.net": 2}
        hosts = [f"Host {name}\nHostName {address[f'lab-{n}']}\nProxyJump gate\n" for name, n in names.items()]
        keys = f"Host *\nUser root\nIdentityFile {self.lab.key}\n"
        others = f"Host gate\nHostName {address['lab-3']}\nHost 203.0.113.7\nHostName {address['lab-2']}\n"
        (self.home / ".ssh/config").write_text("".join(hosts) + others + keys)
        known = [line.split(" ", 1) for line in self.lab.known_hosts.read_text().splitlines()]
        of = {places.split(",")[0]: key for places, key in known}
        lines = [f"{name} {of[address[f'lab-{n}']]}" for name, n in names.items()]
        lines += [f"[203.0.113.7]:2222,[{address['lab-2']}]:2222 {of[address['lab-2']]}"]
        text = "\n".join([*lines, self.lab.known_hosts.read_text()])
        (self.home / ".ssh/known_hosts").write_text(text)
        done = self.rig("lab-2").apply(
            "20250101-001_admin",
            "apt-get update -qq; apt-get install -y -qq --no-install-recommends sudo\n"
            "useradd --create-home --shell /bin/sh --password '*' admin\n"
            "install -d -o admin -g admin -m 0700 /home/admin/.ssh\n"
            "install -o admin -g admin -m 0600 /root/.ssh/authorized_keys /home/admin/.ssh/\n"
            "echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin\n",
        )
        assert done.code == 0, done.text


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    with volume() as directory:
        made = Newcomer(directory)
        try:
            yield made
        finally:
            made.shell.kill()
            made.shell.communicate()
            lab.down(made.lab)


def goes_to_work(newcomer: Newcomer) -> None:
    """Beside the checkout, as the README says."""
    newcomer.knows_hosts()
    assert newcomer.types(f"cd {newcomer.work}")[0] == 0


def writes_files(newcomer: Newcomer) -> None:
    # What follows is installed into it, and not into the checkout's.
    assert newcomer.types("command -v pip")[1] == f"{newcomer.work}/fleet/.venv/bin/pip\n"
    for name, text in FILES.items():
        path = newcomer.work / "fleet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def knows_process_1(newcomer: Newcomer) -> None:
    newcomer.types(f"pid={lab.machine(newcomer.lab, 'lab-1').must_run()}")


def goes_to_checkout(newcomer: Newcomer) -> None:
    """And lets the user who is not root in at the port that the inventory has."""
    assert newcomer.types(f"cd {newcomer.work}/overlaymig")[0] == 0
    newcomer.rig("lab-2").sh("$(command -v sshd) -p 2222")


BEFORE: dict[str, Callable[[Newcomer], None]] = {
    "mkdir fleet": goes_to_work,
    "pip install ../overlaymig": writes_files,
    "nsenter": knows_process_1,
    "pyinfra inventories/static.py": goes_to_checkout,
}
"""What has happened meanwhile in a newcomer's world."""


def checks_postgresql(newcomer: Newcomer) -> None:
    for name in ("lab-1", "lab-2", "lab-3"):
        stack.postgresql_answers(stack.seen_from_outside(newcomer.lab, name))


def checks_the_stack(newcomer: Newcomer) -> None:
    machine = stack.seen_from_outside(newcomer.lab, "lab-1")
    stack.all_of_it_works(machine)
    stack.what_needs_a_stopped_service_stops(machine, newcomer.rig("lab-1"))


def checks_the_order(newcomer: Newcomer) -> None:
    stack.came_up_in_the_order_of_needs(stack.seen_from_outside(newcomer.lab, "lab-1"))


def checks_a_script(newcomer: Newcomer) -> None:
    """What the README says that a script may count on, asked by one."""
    rig = newcomer.rig("lab-3")
    given = rig.folder / COUNTS / "files/etc/given"
    given.parent.mkdir(parents=True)
    given.write_text("given\n")
    rig.sh("echo mine >/tmp/mine; echo kept >/var/lib/postgresql/kept")
    done = rig.apply(COUNTS, SCRIPT, state=["/var/lib/counts"])
    assert done.code == 0, done.text
    rig.sh("[ -e /tmp/mine ]; [ ! -e /tmp/new ]; [ ! -e /var/tmp/new ]; [ -z \"$(pgrep -f '^sleep 1234$')\" ]")


def checks_exits(newcomer: Newcomer) -> None:
    """As the README's table has them: one host fails, one cannot be reached, a dry run, a wrong folder."""
    folder = newcomer.work / "fleet/migrations/20250701-001_fails"
    folder.mkdir()
    (folder / "migration.yaml").write_text("description: for a test\n")
    (folder / "install.sh").write_text('#!/bin/sh\nset -eu\n[ "$(hostname)" = lab-2 ]\n')
    away = FILES["inventory.py"].replace("dev-1", "nowhere")
    (newcomer.work / "fleet/away.py").write_text(away)
    apply = f"pyinfra_overlaymig.operations.migration_applied {folder}"
    for inventory, done in (("inventory.py", "2 1 1 -"), ("away.py", "1 - - 1")):
        code, said = newcomer.types(f"pyinfra -y {inventory} {apply}")
        assert (code, f"Grand total {done}" in words(said)) == (1, True), said
    assert newcomer.types(f"pyinfra -y --dry inventory.py {apply}")[0] == 0
    code, said = newcomer.types(f"pyinfra -y nowhere.example.net {apply}")
    assert (code, "nowhere.example.net is neither" in said) == (0, True), said
    (folder / "migration.yaml").write_text("tiemout: 3\n")
    assert newcomer.types(f"pyinfra --dry inventory.py {apply}")[0] == 1
    shutil.rmtree(folder)


COUNTS = "20250630-001_counts"
SCRIPT = r"""
[ "$PWD $(umask) $(id -u)" = "/ 0022 0" ]
[ ! -t 1 ]
if read -r line || mkdir /data/x; then exit 1; fi
[ "$HOME $LANG $TERM $MIGRATION_ID" = "/root C.UTF-8 dumb 20250630-001_counts" ]
[ "$PATH" = /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin ]
names=$(env | cut -d = -f 1 | sort | tr '\n' ' ')
[ "$names" = "DEBIAN_FRONTEND DPKG_FORCE HOME LANG MIGRATION_ID PATH PWD TERM " ]
[ "$(cat /etc/given /var/lib/postgresql/kept | tr '\n' ' ')" = "given kept " ]
[ -d /var/lib/counts ]; [ -s /etc/resolv.conf ]; [ -d /sys/class/net/eth0 ]
[ ! -e /tmp/mine ]; [ -z "$(ls /data)" ]
code=0; policy-rc.d || code=$?; [ "$code" = 101 ]
echo new >/tmp/new; echo new >/var/tmp/new; sleep 1234 &
"""
AFTER: dict[str, Callable[[Newcomer], None]] = {
    "pyinfra inventories/lab.py deploys/postgres.py": checks_postgresql,
    "pyinfra -y inventories/lab.py deploys/stack.py --limit lab-1": checks_the_stack,
    "overlaymig lab restart lab-1": checks_the_order,
    "overlaymig lab exec lab-1 -- system-migrate gc": checks_a_script,
    "pyinfra -y inventory.py services.py": checks_exits,
}
"""What is as the README says, once it was typed."""
ANSWERS = {"overlaymig lab ssh lab-1": "mount\ns6-svstat /run/service/postgresql\n"}
ON_THE_MACHINE = "set -- rollback"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_works_as_typed(newcomer: Newcomer, command: str) -> None:
    """In the README's order, in one shell, with answers where it asks."""
    for start, prepare in BEFORE.items():
        if command.startswith(start):
            prepare(newcomer)
    typed = command
    if command.startswith(ON_THE_MACHINE):
        typed = shlex.join(lab.machine(newcomer.lab, "lab-1").enter("/bin/sh", "-c", command))
    code, said = newcomer.types(typed, ANSWERS.get(command, "\n"))
    assert code == 0, said
    assert words(SAYS.get(command, "")) in words(said), said
    if command in AFTER:
        AFTER[command](newcomer)


def test_what_is_run_elsewhere_is_there() -> None:
    """Each exception is a command of the README, and names a file that is there."""
    assert {*ELSEWHERE, *LATER, *SAYS, *AFTER, *ANSWERS} <= set(TYPED)
    for where in ELSEWHERE.values():
        assert (TOP / re.split("[:,]", where)[0]).is_file(), where
    for start in (*BEFORE, ON_THE_MACHINE):
        assert any(command.startswith(start) for command in TYPED), start


def test_the_demo_types_what_the_tour_does() -> None:
    """Which is run, so that the demo need not be."""
    planned = subprocess.run(["make", "-n", "demo"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    steps = re.findall(r"^\.venv/bin/(.*)", planned, re.MULTILINE)
    assert steps
    assert {step.replace("pyinfra -y ", "pyinfra ") for step in steps} <= set(COMMANDS)


def test_no_command_hides_in_a_drawing() -> None:
    """Commands and files are marked as what they are: nothing of the README escapes this test."""
    for block in BLOCKS:
        assert block.language in ("sh", "") or block.file, block.text
        if not block.language:
            first = {line.split()[0] for line in block.text.splitlines() if line.strip()}
            assert not {word for word in first if shutil.which(word)}, block.text
    assert not re.search(r"\n\n(?: {4,}|\t)\S", _FENCE.sub("", README)), "an indented block: fence it"
