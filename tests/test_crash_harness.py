"""The harness itself: what it counts, that a struck call never happens, and that nothing of a killed tree lives on.

A fault here would not show elsewhere: a harness that strikes nothing finds nothing.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests.crash import seccomp
from tests.crash.crashes import must
from tests.crash.modes import Mode
from tests.crash.supervise import Order, read_tally
from tests.crash.victim import Strike, Victim, machines_under_supervision

SCRIPT = "mkdir a; echo x >a/f; mv a/f a/g; ln -s g a/l; chmod 600 a/g; : >/dev/null; mkdir -p a; rm a/l"
CALLS = ["mkdir a", "openat a/f", "write a/f", "rename a/f a/g", "symlink a/l", "fchmod a/g", "unlink a/l"]


@dataclass(frozen=True)
class Bench:
    """Runs scripts under the supervisor, as if they were the runner, in a directory of their own."""

    top: Path
    where: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", self.top / "data/here")
        self.where.mkdir(parents=True)
        # A disk that gets full has nothing but what is freed, as long as the reserve is whole.
        (self.top / "data/system/reserve").mkdir(parents=True)
        for number in range(129):
            with (self.top / f"data/system/reserve/{number}").open("wb") as file:
                file.truncate(0 if number else 1 << 20)

    def run(self, script: str, mode: Mode = Mode.KILL, at: int = 0, when: tuple[str, ...] = ()) -> tuple[int, str]:
        """The exit code, and what was said."""
        order = Order(
            ["/bin/sh", "-c", f"cd {self.where}; {script}"], str(self.top), str(self.top / "tally"), mode.value, at,
            list(when), machine=os.getpid(), output=str(self.top / "log"), log=str(self.top / "calls"),
        )  # fmt: skip
        done = subprocess.run(order.command(), stdout=subprocess.PIPE, check=True, timeout=60)
        return int(done.stdout), (self.top / "log").read_text()

    @property
    def calls(self) -> list[str]:
        """The calls that were counted, without what differs between ways to say the same."""
        lines = [line.partition(" ")[2] for line in (self.top / "calls").read_text().splitlines()]
        return [re.sub(rf"(at)?2?\(|{self.where}/|[,)]", " ", line).replace("open ", "openat ") for line in lines]

    @property
    def tally(self) -> tuple[int, str]:
        return read_tally(self.top / "tally")

    def tree(self) -> list[str]:
        """What is there: names, kinds, modes, sizes."""
        return sorted(
            f"{path.relative_to(self.where)} {path.lstat().st_mode:o} {path.lstat().st_size * path.is_file()}"
            for path in self.where.rglob("*")
        )

    def clear(self) -> None:
        subprocess.run(["rm", "-rf", "--", *self.where.iterdir()], check=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_counts_what_changes_something_and_counts_the_same_again(bench: Bench) -> None:
    """Neither what goes to /dev/null, nor what is refused because it is there already."""
    found = []
    for _ in range(2):
        assert bench.run(SCRIPT) == (0, "")
        found.append([" ".join(call.split()) for call in bench.calls])
        assert bench.tally == (len(CALLS), "")
        bench.clear()
    assert found[0] == found[1]
    assert [call.split()[0] for call in found[0]] == [call.split()[0] for call in CALLS]
    assert found[0][3].endswith("a/f a/g")


def test_a_kill_at_a_call_prevents_that_call_and_no_other(bench: Bench) -> None:
    """Before call N the directory looks as after the calls before it; each looks different from the next."""
    looks = []
    for number in range(1, len(CALLS) + 1):
        code, _ = bench.run(SCRIPT, at=number)
        assert code == -9
        assert bench.tally[1].startswith(f"{number}: ")
        looks.append(bench.tree())
        bench.clear()
    bench.run(SCRIPT)
    looks.append(bench.tree())
    assert looks[0] == []
    assert all(now != after for now, after in itertools.pairwise(looks))
    assert looks[2] == ["a 40755 0", "a/f 100644 0"]
    assert looks[3] == ["a 40755 0", "a/f 100644 2"]


def test_what_is_killed_is_all_of_it(bench: Bench) -> None:
    """Nothing escapes: not into a session of its own, not by losing its parent, not into other namespaces."""
    script = "(setsid sh -c 'while echo x >>lives; do sleep 0.01; done' &); unshare -pf sleep 9 & sleep 0.3; mkdir a"
    assert bench.run(script, when=(r"^mkdir",))[0] == -9
    before = (bench.where / "lives").stat().st_size
    assert before > 0
    time.sleep(0.3)
    assert (bench.where / "lives").stat().st_size == before
    assert not (bench.where / "a").exists()


@pytest.mark.parametrize(("mode", "says"), [(Mode.FAIL, errno.EIO), (Mode.SPACE, errno.ENOSPC)])
def test_an_error_reaches_the_program(bench: Bench, mode: Mode, says: int) -> None:
    """The program is told, nothing is done, and it goes on."""
    code, said = bench.run("mkdir a || mkdir b; echo said $?", mode, 1)
    assert os.strerror(says) in said
    assert not (bench.where / "a").exists()
    # EIO is answered once; a disk stays full.
    assert (code, (bench.where / "b").exists()) == (0, mode is Mode.FAIL)


def test_a_full_disk_has_room_for_what_is_freed(bench: Bench) -> None:
    """Until something is removed nothing new is made, then as much as was there; other file systems do not mind."""
    script = "echo x >big; mkdir a; mkdir b || rm big; mkdir c; mkdir d; mkdir /dev/shm/olm.$$ && rmdir /dev/shm/olm.$$"
    assert bench.run(script, Mode.SPACE, when=(r"^mkdir\(.*/b",))[0] == 0
    assert bench.tree() == ["a 40755 0", "c 40755 0"]


def test_a_cut_is_named_by_what_leads_to_it(bench: Bench) -> None:
    """The first call of the second kind, once one of the first kind was seen, whatever program makes them."""
    bench.run("mkdir b; mkdir a; mv a c; mkdir d", when=(r"^rename\w*\(.*/a, .*/c\)", r"^mkdir"))
    assert bench.tree() == ["b 40755 0", "c 40755 0"]


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the numbers mean other calls, it says so and does nothing."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(SystemExit, match="x86_64, not of aarch64"):
        seccomp.refuse_elsewhere()


def test_on_a_machine_the_runner_is_told_from_what_it_starts(running_lab: labs.Lab, module_disk: Path) -> None:
    """The install script's, the health check's and services' calls are theirs; the runner's are told by their root."""
    victim = Victim(running_lab, "lab-3", module_disk / "lab-3")
    log = module_disk / "calls"
    bundle = victim.migration(
        "20250101-001_whose",
        "mkdir /opt/scripts; echo x >/opt/scripts/own; mkdir -p /var/lib/whose",
        verify="mkdir /run/verifys; echo x >/run/verifys/own",
        state=["/var/lib/whose"],
        services={"whose": {"run": "mkdir /run/services.own; exec sleep 1111", "check": "mkdir -p /run/checks.own"}},
    )
    with machines_under_supervision():
        victim.folder.mkdir(exist_ok=True)
        victim.blank()
        try:
            done = victim.attempt("apply", "-", stdin=bundle, log=str(log))
            assert done.code == 0, done.text
            text = log.read_text()
            found = re.findall(r".*(?:scripts|verifys|(?:services|checks)\.own).*", text)
            must(not found, f"what it starts is counted as its own: {found}")
            for own in (r"pivot_root\(", r"mount\(.*/staging/", r"rename\w*\(.*/generations/current\)"):
                must(bool(re.search(own, text)), f"{own} is not counted")
            assert "/service/.s6-svscan/control" in text
            done = victim.attempt_boot(log=str(log))
            text = log.read_text()
            found = re.findall(r".*(?:(?:services|checks)\.own|boot/upper|supervise/status).*", text)
            must(not found, f"a boot counts too much: {found}")
            for own in (r"pivot_root\(.*system-migrate", r"mount\(.*system-migrate/base", r"upper/live"):
                must(bool(re.search(own, text)), f"{own} is not counted")
            # The same calls are struck in the tree of a boot, which goes on with what was killed.
            done = victim.attempt_boot(Strike(Mode.KILL, when=(r"^pivot_root",)))
            assert "pivot_root" in done.where
            assert victim.run("test", "-e", "/opt/scripts").code == 0
            assert victim.attempt("recover").code == 0
            assert victim.run("test", "-e", "/opt/scripts").code == 0
        finally:
            victim.blank()
