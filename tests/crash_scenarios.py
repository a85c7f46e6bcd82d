"""What is crashed: each verb that writes, in each situation, as one table; and one crash of one of them, judged.

After it, and after its recovery, which crashes as well, the machine is before or after, nothing between; it has nothing
left over, and the next migration applies.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.lab import namespaces
from pyinfra_overlaymig.lab.fleet import quiet
from tests import crash_picture
from tests.crash import FULL, Mode, Victim, differences, make_shims
from tests.crash_picture import Picture
from tests.rig import Result

READY = {"check": "true"}
ONE = """
echo one >/etc/one
mkdir -p /var/lib/app/dir; cd /var/lib/app; echo kept >kept; echo gone >gone; ln kept twin; echo in >dir/in
"""
ONE_MANIFEST: dict[str, Any] = {
    "state": ["/var/lib/app"],
    "services": {
        "one": {"run": "exec sleep 1111", **READY},
        "shared": {"run": "exec sleep 3333", **READY},
        "paused": {"run": "exec sleep 5555", **READY},
    },
}
UNTOUCHED = "sshd: /usr/sbin/sshd"
"""A process that no migration here gives a reason to restart."""
TWO = r"""
echo two >/etc/two; rm /etc/issue; echo changed >/etc/one; rm -rf /etc/skel; mkdir /etc/skel; echo new >/etc/skel/new
mkdir /opt/two; cd /opt/two; echo x >"a b"; ln "a b" linked; ln -s /nowhere dangling; mkfifo fifo
printf n >"$(printf 'new\nline')"; chown 12:34 linked; chmod 4750 linked; setfattr -n user.note -v noted linked
echo can >can; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 can
cd /var/lib/app; echo new >new; ln new new.twin; setfattr -n user.note -v noted new
echo changed >kept; rm gone; mkdir -p deep/er; echo d >deep/er/d; rm -rf dir; echo file >dir; chmod 700 .
mkdir -p /var/lib/two; echo s >/var/lib/two/s
"""
TWO_MANIFEST: dict[str, Any] = {
    "state": ["/var/lib/app", "/var/lib/two"],
    "stop": ["paused"],
    "snapshot": True,
    "services": {"two": {"run": "exec sleep 2222", **READY}, "shared": {"run": "exec sleep 4444", **READY}},
}


def must(true: bool, otherwise: str) -> None:
    """An assertion without pytest's account of what it compared, which is of the size of a machine."""
    __tracebackhide__ = True
    if not true:
        raise AssertionError(otherwise)


Act = Callable[[Victim, Mode], Result]


def apply(victim: Victim, mode: Mode) -> Result:
    bundle = victim.migration("20250102-001_two", TWO, verify="test -e /etc/two", **TWO_MANIFEST)
    return victim.attempt("apply", "-", mode=mode, stdin=bundle)


def apply_ill(victim: Victim, mode: Mode) -> Result:
    bundle = victim.migration("20250102-002_ill", TWO, verify="exit 1", **TWO_MANIFEST)
    return victim.attempt("apply", "-", mode=mode, stdin=bundle)


def rollback(victim: Victim, mode: Mode) -> Result:
    return victim.attempt("rollback", "1", mode=mode)


def rollback_with_state(victim: Victim, mode: Mode) -> Result:
    return victim.attempt("rollback", "--restore-state", "1", mode=mode)


def recover(victim: Victim, mode: Mode) -> Result:
    """What is done after a crash: the verb, or, when the power went, the next boot."""
    return boot(victim, mode) if mode is Mode.POWER else victim.attempt("recover", mode=mode)


def boot(victim: Victim, mode: Mode) -> Result:
    return victim.attempt_boot(mode)


@dataclass(frozen=True)
class Scenario:
    """``act`` on a machine as it was saved under ``start``; with ``cut``, an earlier act was killed at that command.

    ``commands``: at least so many does it take. A crash before any of them leaves one of ``outcomes``.
    """

    start: str
    act: Act
    commands: int
    outcomes: tuple[str, ...]
    cut: tuple[Act, str] | None = None
    modes: tuple[Mode, ...] = (Mode.KILL, Mode.POWER, Mode.FAIL)


COMMITTED = "sync /data/system/generations"
SEALING = "mkdir -p /data/system/staging/20250102-001_two/record.new"
TAKING_BACK = "mv -T -- /data/system/layers/20250102-002_ill"
ASSEMBLING = "ln -sfn / /run/system-migrate/stack/0"
KILL_OR_FAIL = (Mode.KILL, Mode.FAIL)
SCENARIOS = {
    "apply": Scenario("one", apply, 160, ("one", "two")),
    "apply, unhealthy": Scenario("one", apply_ill, 225, ("one",)),
    "apply of a sealed layer": Scenario("back", apply, 70, ("back", "again")),
    "rollback": Scenario("two", rollback, 55, ("two", "back")),
    "rollback with state": Scenario("two", rollback_with_state, 65, ("two", "restored")),
    "recover before the commit": Scenario("one", recover, 14, ("one",), (apply, SEALING), KILL_OR_FAIL),
    "recover after the commit": Scenario("one", recover, 65, ("one", "two"), (apply, COMMITTED), KILL_OR_FAIL),
    "recover of a revert": Scenario("one", recover, 50, ("one",), (apply_ill, TAKING_BACK), KILL_OR_FAIL),
    "recover of a rollback": Scenario("two", recover, 42, ("two", "back"), (rollback, COMMITTED), KILL_OR_FAIL),
    "boot": Scenario("two", boot, 62, ("two",)),
    "boot before the commit": Scenario("one", boot, 68, ("one",), (apply, SEALING)),
    "boot after the commit": Scenario("one", boot, 125, ("one", "two"), (apply, COMMITTED)),
    "boot in a revert": Scenario("one", boot, 75, ("one",), (apply_ill, TAKING_BACK)),
    "boot after a rollback": Scenario("two", boot, 62, ("two", "back"), (rollback, COMMITTED)),
    "recover of a boot": Scenario("two", recover, 45, ("two",), (boot, ASSEMBLING), KILL_OR_FAIL),
}


Case = tuple[str, Mode, int]
"""A scenario, how it crashes, and at which command."""


def every(name: str, mode: Mode) -> Iterator[Case]:
    """The commands of a scenario, without an end: each one to be killed at, of the others each fifth."""
    # Without power the same commands have been run as when killed. From where it gets full a disk stays full.
    return ((name, mode, number) for number in itertools.count(1, 1 if mode is Mode.KILL else 5))


def one_of(name: str, mode: Mode) -> Case:
    """One command of a scenario, for the tests that always run; another one from case to case."""
    number = 61 * list(SCENARIOS).index(name) + 97 * list(Mode).index(mode)
    return name, mode, 1 + number % SCENARIOS[name].commands


def second(mode: Mode, number: int) -> tuple[int, ...]:
    """Where the recovery from a crash at ``number`` crashes, 0: nowhere. In time it does so at each of its commands."""
    again = 1 + number % 29
    if mode not in {Mode.KILL, Mode.POWER}:
        return (0,)
    if not FULL:
        return (again if number % 2 else 0,)
    # The verb is interrupted in each of its recoveries; the boot recovers undisturbed, and is a scenario of its own.
    return (again,) if mode is Mode.KILL else (0,)


@dataclass
class Crashes:
    """Machines to crash, what they start from and how they look then; and how many crashes there were."""

    victims: list[Victim]
    folder: Path
    pictures: dict[str, Picture] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)

    def keep(self, name: str, victim: Victim) -> None:
        """Remember how ``victim`` looks and what it has; it has to look so after a restart as well."""
        self.pictures[name] = victim.picture()
        victim.power_off()
        victim.save(self.folder / name)
        victim.boot()
        booted = victim.picture_of(self.pictures[name])
        assert booted == self.pictures[name], "".join(differences(booted, {name: self.pictures[name]}))

    def set_up(self, wanted: tuple[str, ...]) -> None:
        """What scenarios start from and come to: machines with one migration, and after it what ``wanted`` names."""
        victim = self.victims[0]
        victim.blank()
        done = victim.attempt(
            "apply", "-", mode=Mode.KILL, stdin=victim.migration("20250101-001_one", ONE, **ONE_MANIFEST)
        )
        assert done.code == 0, done.text
        victim.sh("echo drift >/etc/drift; rm /etc/issue.net; setfattr -n user.drift -v yes /etc/drift")
        self.keep("one", victim)
        for start, act, name in (
            ("one", apply, "two"),
            ("two", rollback_with_state, "restored"),
            ("two", rollback, "back"),
            ("back", apply, "again"),
        ):
            if name not in wanted:
                continue
            victim.load(self.folder / start)
            victim.start(self.pictures[start])
            done = act(victim, Mode.KILL)
            assert done.code == 0, done.text
            self.keep(name, victim)

    def start(self, scenario: Scenario, victim: Victim) -> None:
        """Bring a machine to where the scenario's act begins; one that boots stays off."""
        victim.load(self.folder / scenario.start)
        victim.disarm()
        if scenario.act is not boot or scenario.cut:
            victim.start(self.pictures[scenario.start])
        if scenario.cut:
            act, command = scenario.cut
            victim.arm_for(command, Mode.POWER if scenario.act is boot else Mode.KILL)
            done = act(victim, Mode.POWER if scenario.act is boot else Mode.KILL)
            must(command in victim.disarm(), f"{command} was not reached: {done.text}")

    def strike(self, name: str, mode: Mode, victim: Victim, number: int, again: int) -> str:
        """Crash at the ``number``-th command, and, unless it is 0, at the ``again``-th of the recovery.

        The command, empty when there are less. Fails unless the machine is before or after.
        """
        scenario = SCENARIOS[name]
        self.start(scenario, victim)
        untouched = [] if scenario.act is boot else victim.pids(UNTOUCHED)
        victim.arm(number, mode)
        done = scenario.act(victim, mode)
        where = victim.disarm()
        if not where:
            return ""
        said = f"{name}: {mode.value} before command {where}"
        if mode in {Mode.FAIL, Mode.BLOCKS, Mode.INODES}:
            self.check_code(said, scenario, done, victim, mode)
        victim.free()
        if again:
            victim.arm(again, mode)
            done = recover(victim, mode)
            said += f", and of the recovery before {victim.disarm() or 'none'}"
        done = recover(victim, mode)
        must(done.code == 0, f"{said}: recover: {done.text}")
        outcome = self.outcome(said, scenario.outcomes, victim, done)
        if mode is Mode.KILL and untouched:
            must(victim.pids(UNTOUCHED) == untouched, f"{said}: restarted what it should not")
        left = crash_picture.leftovers(victim.data, victim.init)
        must(not left, f"{said}: left {left}")
        done = victim.apply("20990101-001_probe", "echo probe >/etc/probe")
        must(done.code == 0, f"{said}: the next apply: {done.text}")
        self.struck[f"{name}: {mode.value}: {outcome}"] += 1
        return where

    def outcome(self, said: str, allowed: tuple[str, ...], victim: Victim, done: Result) -> str:
        """Which picture the machine is."""
        expected = {one: self.pictures[one] for one in allowed}
        now = victim.picture_of(*expected.values())
        must(
            now in expected.values(),
            (f"{said}: neither before nor after{''.join(differences(now, expected))}\n{done.text}"),
        )
        return next(one for one, picture in expected.items() if picture == now)

    def check_code(self, said: str, scenario: Scenario, done: Result, victim: Victim, mode: Mode) -> None:
        """The exit code tells which it is, before any recovery: 0 after, 20 neither, any other before."""
        if scenario.act in {boot, recover} or (done.code == 20 and mode is Mode.FAIL):
            return
        # Of chroot(8): the verb never began.
        began = not re.search(r"command 1: chroot", said)
        must(done.code in {0, 3, 4, 9, 111} or not began, f"{said}: exit {done.code}\n{done.text}")
        outcome = self.outcome(said, scenario.outcomes, victim, done)
        expected = scenario.outcomes[-1 if done.code == 0 else 0]
        must(outcome == expected, f"{said}: exit {done.code} and {outcome}\n{done.text}")

    def enumerate(self, name: str, mode: Mode) -> list[str]:
        """Crash at every command of a scenario: what went wrong."""
        reached: list[int] = []
        wrong = self.crash(every(name, mode), reached)
        if max(reached, default=0) < SCENARIOS[name].commands - 5:
            wrong.append(f"{name}: {mode.value}: only {max(reached, default=0)} commands were reached")
        return wrong

    def crash(self, cases: Iterator[Case], reached: list[int]) -> list[str]:
        """Crash at each of ``cases``, on all machines at once, until one has no such command: what went wrong."""
        wrong: list[str] = []
        turn, over = threading.Lock(), threading.Event()

        def work(victim: Victim) -> None:
            while not over.is_set():
                with turn:
                    case = next(cases, None)
                if case is None:
                    return
                name, mode, number = case
                for again in second(mode, number):
                    try:
                        if not self.strike(name, mode, victim, number, again):
                            over.set()
                            break
                        reached.append(number)
                        if FULL:
                            sys.stderr.write(f"\r{name}, {mode.value}: {len(reached)} crashes ")
                            sys.stderr.flush()
                    except AssertionError as error:
                        wrong.append(f"[{number}, {again}] {error}")

        with ThreadPoolExecutor(len(self.victims)) as pool:
            try:
                for one in [pool.submit(work, victim) for victim in self.victims]:
                    one.result()
            finally:
                # An interrupt ends it after the crash that each machine is at.
                over.set()
        return wrong


@contextmanager
def crashes_on(
    lab: labs.Lab, folder: Path, machines: range, wanted: tuple[str, ...] = ("two", "restored", "back", "again")
) -> Iterator[Crashes]:
    """These machines of ``lab``, to crash; at the end the crashes are told, and the machines have no history."""
    make_shims(folder / "shims", namespaces.ground(lab.cache, quiet))
    victims = [Victim(lab, f"lab-{number}", folder / f"lab-{number}", shims=folder / "shims") for number in machines]
    made = Crashes(victims, folder)
    try:
        made.set_up(wanted)
        yield made
    finally:
        for outcome, count in sorted(made.struck.items()):
            print(f"\n{count:5} {outcome}", end="")  # noqa: T201 - the count is the result
        print(f"\n{made.struck.total():5} crashes")  # noqa: T201
        for victim in victims:
            victim.blank()
