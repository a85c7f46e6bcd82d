"""Loss of power: a virtual machine's power is cut while it applies and rolls back; it boots as before or as after.

SIGKILL of QEMU loses what the guest's kernel had not written to its disk: contents that nothing synced, names whose
journal was not committed. Its disk, tests/disk.py, then loses what it was not told to flush, all or in part. In some of
the cuts the disk breaks first: what the machine still tries to write fails (EIO), until the power goes at last.

`make vm` cuts 24 times (or OVERLAYMIG_VM_CUTS), the tests that always run twice. The moments are drawn from a
seed, which is printed and can be given: OVERLAYMIG_VM_SEED.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.lab import process
from pyinfra_overlaymig.lab import vm as kind
from pyinfra_overlaymig.lab.layout import place
from tests.rig import RUNNER, TREE, Rig
from tests.runner_process import SETTLING

FULL = os.environ.get("OVERLAYMIG_VM") == "full"
CUTS = int(os.environ.get("OVERLAYMIG_VM_CUTS", "24" if FULL else "2"))
FIRST_BOOTS = 4 if FULL else 1
SEED = int(os.environ.get("OVERLAYMIG_VM_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
AFTER = 12.0
"""Seconds after a command's end in which power may go as well: ext4 commits names after 5, contents after 30."""

# How a guest's kernel may write what nothing tells it to: as it does by itself, names as early as it can, contents so.
HURRY = {
    "": ":",
    "names first": "mount -o remount,commit=1 /data",
    "contents first": "cd /proc/sys/vm; echo 10 >dirty_expire_centisecs; echo 5 >dirty_writeback_centisecs",
}

ONE, TWO = "20250101-001_one", "20250102-001_two"
FIRST = "echo one >/etc/one; mkdir -p /var/lib/app; cd /var/lib/app; echo kept >kept; echo gone >gone; echo o >other"
SECOND = """
echo two >/etc/two; rm /etc/issue; echo changed >/etc/one; mkdir -p /opt/two; echo x >"/opt/two/a b"
for n in 1 2 3 4 5 6 7 8 9; do echo "$n" >/opt/two/$n; : >/opt/two/empty.$n; done
yes big | head -c 24000000 >/opt/two/big; chmod 4750 /opt/two/big; chown 7:8 /opt/two/1
cd /var/lib/app; echo new >new; echo changed >kept; rm gone; mkdir -p deep/er; yes d | head -c 4000000 >deep/er/d
echo s >/var/lib/two/s
"""

# All that is to be known of a machine after its boot, in one command: waits for what the boot has to finish, says what
# `recover` says, and describes the machine.
LOOK = (
    (
        TREE.replace("@FILE@", "%s")
        + r"""
cd /data/system
settled() {
    for id in $(sed -n 's/^layer //p' "generations/$(readlink generations/current)"); do
        [ -f "migrations/$id/applied" ] || return 1
    done
    # It takes the lock once more when all services are ready.
    ! pgrep -f '@SETTLING@' >/dev/null && flock -s -n lock/flock true
}
tries=0
until settled || [ "$tries" -ge 300 ]; do tries=$((tries + 1)); sleep 0.2; done
section() { printf '\n== %s\n' "$1"; }
section recover; @RUNNER@ recover 2>&1 >/dev/null || echo "exit $?"
section stages; for dir in staging/* staging/.[!.]*; do [ ! -d "$dir" ] || [ -s "$dir/failed" ] || echo "$dir"; done
section status; s6-svwait -u -t 30000 /run/service/* || :; @RUNNER@ status
section metadata; cat migrations/metadata.json
section records
says() { sed -n "s/^$2 //p" "$1/record"; }
sum() { sha256sum <"$1" | cut -d ' ' -f 1; }
for dir in migrations/*/; do
    [ "$(says "$dir" digest)" = "$(sum "$dir/manifest")" ] || echo "$dir: digest"
    [ "$(says "$dir" layer)" = "$(sum "$dir/changes.list")" ] || echo "$dir: changes.list"
    for file in install_script.sh limits log applied; do [ -s "$dir/$file" ] || echo "$dir: $file is empty"; done
    grep -q '^generation [0-9]' "$dir/applied" || echo "$dir: applied"
done
section picture
(names /) | sed 's|^|root |'
own | (contents /) | sed 's|^|root |'
# Without the files of s6-log, whose names and modes tell that an output ended with the power.
(names /data/state) | grep -v ' \./var/log/[^/]*/' | sed 's|^|state |'
(cd /data/state; find . -type f ! -path './var/log/*/*' -print0) | (contents /data/state) | sed 's|^|state |'
ls layers | sed 's|^|layer |'
sed -n 's/^layer/stack/p' "generations/$(readlink generations/current)"
awk '$5 !~ "^/run/system-migrate/" { print "mount", $5, $4 }' /proc/self/mountinfo
"""
    )
    .replace("@RUNNER@", RUNNER)
    .replace("@SETTLING@", SETTLING)
)


@dataclass(frozen=True)
class View:
    """A machine that has settled after a boot."""

    recover: str
    stages: str
    status: Status
    records: str
    metadata: list[str]
    picture: frozenset[str]


def look(rig: Rig) -> View:
    """Wait until the machine has finished what its boot has to finish, and look at it."""
    sections = dict(part.split("\n", 1) for part in rig.sh(LOOK, timeout=300).split("\n== ")[1:])
    return View(
        sections["recover"].strip(),
        sections["stages"].strip(),
        parse(sections["status"]),
        sections["records"].strip(),
        [one["id"] for one in json.loads(sections["metadata"])["migrations"]],
        frozenset(sections["picture"].splitlines()),
    )


@dataclass(frozen=True)
class Vm:
    """A virtual machine whose power can be cut."""

    rig: Rig
    disk: subprocess.Popen[str]

    def power_off(self) -> str:
        """As when the plug is pulled; says what its disk had not been told to keep."""
        process.end(self.rig.machine.directory)
        assert self.disk.stdout is not None
        return self.disk.stdout.readline().strip()

    def power_on(self) -> None:
        lab.restart(self.rig.lab, self.rig.name)


class Machine:
    """One that goes between three pictures: with one migration, with two, and back with two's state."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.rig = rig = vm.rig
        self.pictures: dict[str, frozenset[str]] = {}
        self.seconds: dict[str, float] = {}
        self.bundle = rig.migration(
            TWO,
            SECOND,
            verify="test -e /etc/two",
            state=["/var/lib/app", "/var/lib/two"],
            services={"two": {"run": "exec sleep 2222"}},
        )
        rig.prepare()
        services = {"one": {"run": "exec sleep 1111"}}
        assert rig.apply(ONE, FIRST, state=["/var/lib/app"], services=services).code == 0
        self.saved = rig.machine.data.with_name("saved.img")
        rig.sh("echo drift >/etc/drift; rm /etc/issue.net; sync; fsfreeze -f /data")
        subprocess.run(["cp", "--sparse=always", "--", rig.machine.data, self.saved], check=True)
        rig.sh("fsfreeze -u /data")
        self.pictures["one"] = look(rig).picture

    def reset(self) -> None:
        """Back to the disk with one migration."""
        self.vm.power_off()
        subprocess.run(["cp", "--sparse=always", "--", self.saved, self.rig.machine.data], check=True)
        self.vm.power_on()

    def start(self, step: str, hurry: str = "") -> subprocess.Popen[bytes]:
        """Begin a step, and return when the machine is about to; ``hurry`` is one of HURRY."""
        verb = f"rollback {ONE}" if step == "rollback" else "apply -"
        argv = self.rig.machine.enter("/bin/sh", "-c", f"{HURRY[hurry]}; echo now; exec {RUNNER} {verb}")
        running = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(self.bundle)
        running.stdin.close()
        assert running.stdout.readline() == b"now\n"
        return running

    def measure(self, step: str, outcome: str) -> None:
        """Take a step undisturbed: how long it takes, and how the machine looks after it."""
        with self.start(step) as running:
            begun = time.monotonic()
            assert running.stdout is not None
            said = running.stdout.read()
        assert running.returncode == 0, said
        self.seconds[step] = time.monotonic() - begun
        if outcome not in self.pictures:
            self.pictures[outcome] = look(self.rig).picture

    def cut(self, step: str, hurry: str, moment: float, *, broken: bool) -> tuple[str, int | None]:
        """Take a step, and cut the power ``moment`` seconds after its begin; says what the disk lost.

        With a disk that is ``broken`` then, the power goes once the step has ended: with its exit code, if it had one.
        """
        with self.start(step, hurry) as running:
            time.sleep(moment)
            if broken:
                self.vm.disk.send_signal(signal.SIGUSR1)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(AFTER)
            code = running.poll()
            lost = self.vm.power_off()
            running.kill()
        self.vm.power_on()
        return lost, code


STEPS = {"one": ("apply", "two"), "two": ("rollback", "back"), "back": ("forward", "two")}
SERVICES = {"one": {"sshd", "one"}, "two": {"sshd", "one", "two"}, "back": {"sshd", "one"}}


@pytest.fixture(scope="module")
def vm() -> Iterator[Vm]:
    """A machine that has just booted for the first time."""
    directory = Path(tempfile.mkdtemp(prefix="overlaymig-vm-", dir="/var/tmp"))
    made = lab.Lab.at(directory / "lab")
    rig = Rig(made, "lab-1", directory / "migrations")
    socket = directory / "disk.sock"
    image = kind.data(place(made, "lab-1"))
    argv = [sys.executable, "-m", "tests.disk", str(socket), str(image), str(SEED)]
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as disk:
        # Another disk for QEMU; all else is a virtual machine of a lab as any.
        patch.setattr(kind, "disk", lambda _: f"nbd+unix:///?socket={socket}")
        try:
            assert disk.stdout is not None
            assert disk.stdout.readline() == "ready\n"
            lab.up(made, 1, kind="vm")
            yield Vm(rig, disk)
        finally:
            lab.down(made)
            disk.kill()
            shutil.rmtree(directory)


def test_commands_of_the_lab_work_on_a_virtual_machine(vm: Vm) -> None:
    """It has a kernel and disks of its own, and `ls`, `exec`, `ssh` and `status` do not tell it from others."""

    def overlaymig(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from pyinfra_overlaymig.cli.main import main; main()", "lab", *words],
            env={**os.environ, "OVERLAYMIG_LAB_DIR": str(vm.rig.lab.directory)},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    (row,) = json.loads(overlaymig("ls", "--json").stdout)
    assert (row["kind"], row["running"], row["pid"]) == ("vm", True, vm.rig.machine.pid)
    for verb in ("exec", "ssh"):
        done = overlaymig(verb, "lab-1", "--", "sh", "-c", 'echo "$1"; exit 7', "sh", "a  b")
        assert (done.returncode, done.stdout) == (7, "a  b\n"), done.stderr
    (asked,) = json.loads(overlaymig("status", "--json").stdout)
    assert asked["state"] == "no runner yet"
    # Its kernel has audit, its root is an overlay as on Fly, its /data is a disk.
    vm.rig.sh("test -e /proc/self/sessionid; test -e /proc/self/loginuid")
    assert vm.rig.sh("cat /proc/sys/kernel/random/boot_id") != Path("/proc/sys/kernel/random/boot_id").read_text()
    assert vm.rig.sh("stat -f -c %T / /data").split() == ["overlayfs", "ext2/ext3"]


def test_power_cut_soon_after_the_first_boot_leaves_a_machine_that_can_be_prepared(vm: Vm) -> None:
    """Power goes while what the first boot laid out is not yet written: the next boot is as good as the first.

    What the runner renames into place has its contents by then, however early the kernel writes the name.
    """
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be unguessable
    for number in range(1, FIRST_BOOTS + 1):
        if number > 1:
            vm.power_off()
            vm.rig.machine.data.unlink()
            vm.power_on()
        vm.rig.sh(f"{HURRY['names first']}; rm /data/system/format")
        vm.rig.prepare()
        moment = chance.uniform(3, AFTER)
        time.sleep(moment)
        lost = vm.power_off()
        vm.power_on()
        print(f"\ncut {number} of seed {SEED}, {moment:.2f} s after the first boot; {lost}", end="")  # noqa: T201
        vm.rig.sh("test -s /data/system/format")
        assert "base runs alone" not in vm.rig.machine.console.read_text()
        vm.rig.prepare()
        assert vm.rig.run(RUNNER, "recover").code == 0


def test_power_cut_at_any_moment_leaves_before_or_after(vm: Vm) -> None:
    """Power goes while a migration is applied, rolled back or put on again: the next boot makes it before or after."""
    machine = Machine(vm)
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be unguessable
    print(f"\nseed {SEED}, {CUTS} cuts")  # noqa: T201 - to be repeated with
    now, number, outcomes = "one", 0, {"before": 0, "after": 0}
    while number < CUTS:
        if now == "back" and chance.random() < 0.5:
            machine.reset()
            now = "one"
        step, goal = STEPS[now]
        if step not in machine.seconds:
            machine.measure(step, goal)
            if step == "apply":
                machine.reset()
            else:
                now = goal
            continue
        number += 1
        length = machine.seconds[step]
        moment = length + chance.uniform(0, AFTER) if chance.random() < 0.2 else chance.uniform(0, 1.1 * length)
        hurry = chance.choice(list(HURRY))
        broken = number % 4 == 2
        lost, code = machine.cut(step, hurry, moment, broken=broken)
        said = f"cut {number} of seed {SEED}, {moment:.2f} s into {step} of {length:.1f} s{hurry and f', {hurry}'}"
        said += f", after a broken disk and exit {code}" if broken else ""
        view = look(machine.rig)
        found = {name for name in (now, goal) if machine.pictures[name] == view.picture}
        assert found, (
            f"{said}: {differences(view.picture, machine.pictures[now], machine.pictures[goal])}{told(machine)}"
        )
        outcome = "before" if now in found else "after"
        assert code != 0 or outcome == "after", said
        outcomes[outcome] += 1
        now = found.pop()
        print(f"{said}: {outcome}; {lost}")  # noqa: T201 - the outcomes are the result
        check(view, now, said)
    print(f"{CUTS} cuts: {outcomes}")  # noqa: T201 - as above


def check(view: View, now: str, said: str) -> None:
    """Nothing is left to do, nothing is half-written."""
    assert view.recover == "", said
    assert view.stages == "", said
    assert view.records == "", said
    assert view.status.lock is None, said
    assert view.status.running == view.status.generation, said
    active = [one.id for one in view.status.migrations if one.active]
    assert active == ([ONE, TWO] if now == "two" else [ONE]), said
    assert {one.status for one in view.status.migrations if one.active} == {"applied"}, said
    assert view.metadata == [one.id for one in view.status.migrations], said
    assert {one.name for one in view.status.services if one.up} == SERVICES[now], said


def told(machine: Machine) -> str:
    """What the machine itself says of its boots."""
    return f"\nits console:\n{machine.rig.machine.console.read_text()[-6000:]}\n{machine.rig.sh(RUNNER + ' status')}"


def differences(found: frozenset[str], before: frozenset[str], after: frozenset[str]) -> str:
    return f"\nnot as before: {sorted(found ^ before)[:20]}\nnor as after: {sorted(found ^ after)[:20]}"
