"""Machines that are crashed, and the judgement: after it, and after its recovery, which may crash as well, a machine is
before or after, nothing between; it has nothing left over, and the next migration applies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyinfra_overlaymig import lab as labs
from tests.crash import picture
from tests.crash.modes import GO_ON, Mode
from tests.crash.picture import Picture
from tests.crash.scenarios import (
    ONE,
    ONE_MANIFEST,
    SCENARIOS,
    UNTOUCHED,
    Scenario,
    apply,
    apply_edited,
    boot,
    recover,
    rollback,
    rollback_with_state,
)
from tests.crash.victim import NONE, Done, Strike, Victim, machines_under_supervision

PROBES = 5
"""Of how many crashes one is followed by another migration: it takes as long as all the rest."""
STARTS = (
    ("one", apply, "two"),
    ("two", rollback_with_state, "restored"),
    ("two", rollback, "back"),
    ("back", apply, "again"),
    ("back", apply_edited, "edited"),
)
ALL = tuple(name for _, _, name in STARTS)


def must(true: bool, otherwise: str) -> None:
    """An assertion without pytest's account of what it compared, which is of the size of a machine."""
    __tracebackhide__ = True
    if not true:
        raise AssertionError(otherwise)


@dataclass
class Crashes:
    """What scenarios start from and how it looks then; and which calls were struck."""

    victims: list[Victim]
    folder: Path
    pictures: dict[str, Picture] = field(default_factory=dict)
    struck: Counter[tuple[str, Mode]] = field(default_factory=Counter)
    again: Counter[tuple[str, Mode]] = field(default_factory=Counter)

    def tell(self) -> None:
        """Say at how many calls there was a crash."""
        for (name, mode), number in sorted(self.struck.items(), key=str):
            again = self.again[name, mode]
            print(f"\n{number:6} calls of {name}: {mode.value}, {again} of them again in the recovery", end="")  # noqa: T201
        print(f"\n{self.struck.total():6} crashes, {self.again.total()} in recoveries")  # noqa: T201

    def keep(self, name: str, victim: Victim) -> None:
        """Remember how ``victim`` looks and what it has; it has to look so after a restart as well."""
        self.pictures[name] = victim.picture()
        victim.power_off()
        victim.save(self.folder / name)
        victim.boot()
        booted = victim.picture_of(self.pictures[name])
        must(booted == self.pictures[name], "".join(differences(booted, {name: self.pictures[name]})))

    def set_up(self, wanted: tuple[str, ...]) -> None:
        """What scenarios start from and come to: machines with one migration, and after it what ``wanted`` names."""
        victim = self.victims[0]
        victim.blank()
        done = victim.attempt("apply", "-", stdin=victim.migration("20250101-001_one", ONE, **ONE_MANIFEST))
        must(done.code == 0, done.text)
        victim.sh("echo drift >/etc/drift; rm /etc/issue.net; setfattr -n user.drift -v yes /etc/drift")
        self.keep("one", victim)
        for start, act, name in STARTS:
            if name not in wanted:
                continue
            victim.load(self.folder / start)
            victim.start(self.pictures[start])
            done = act(victim, NONE)
            must(done.code == 0, done.text)
            self.keep(name, victim)

    def start(self, scenario: Scenario, victim: Victim) -> None:
        """Bring a machine to where the scenario's act begins; one that boots stays off."""
        victim.load(self.folder / scenario.start)
        if scenario.cut:
            act, when = scenario.cut
            if act is not boot:
                victim.start(self.pictures[scenario.start])
            done = act(victim, Strike(Mode.POWER if scenario.act is boot else Mode.KILL, when=when))
            must(bool(done.where), f"{when} was not reached by {act.__name__}: {done.text}")
        elif scenario.act is not boot:
            victim.start(self.pictures[scenario.start])

    def count(self, name: str, victim: Victim) -> int:
        """How many calls a scenario makes when nothing strikes."""
        self.start(SCENARIOS[name], victim)
        done = SCENARIOS[name].act(victim, NONE)
        must(done.count >= SCENARIOS[name].calls, f"{name}: only {done.count} calls: {done.text}")
        return done.count

    def strike(self, name: str, mode: Mode, victim: Victim, number: int, again: int) -> bool:
        """Strike before the ``number``-th call, and, unless it is 0, before the ``again``-th of the recovery.

        Whether there is such a call. Fails unless the machine is before or after.
        """
        scenario = SCENARIOS[name]
        self.start(scenario, victim)
        untouched = [] if scenario.act is boot else victim.pids(UNTOUCHED)
        done = scenario.act(victim, Strike(mode, number))
        if not done.where:
            return False
        said = f"{name}: {mode.value} before call {done.where}"
        if mode in GO_ON:
            self.check_code(said, scenario, done, victim, mode)
        victim.free()
        if again:
            done = self.recover(victim, Strike(mode, again))
            said += f", and of the recovery before call {done.where or 'none'}"
            self.again[name, mode] += bool(done.where)
        done = self.recover(victim, NONE if mode is not Mode.POWER else Strike(mode))
        must(done.code == 0, f"{said}: recover: {done.text}")
        self.outcome(said, scenario.outcomes, victim, done)
        if mode is Mode.KILL and untouched:
            must(victim.pids(UNTOUCHED) == untouched, f"{said}: restarted what it should not")
        left = picture.leftovers(victim.data, victim.init)
        must(not left, f"{said}: left {left}")
        if number % PROBES == 0:
            probe = victim.apply("20990101-001_probe", "echo probe >/etc/probe")
            must(probe.code == 0, f"{said}: the next apply: {probe.text}")
        self.struck[name, mode] += 1
        return True

    def recover(self, victim: Victim, strike: Strike) -> Done:
        """What is done after a crash: the verb, or, when the power went or the machine is down, the next boot."""
        if strike.mode is Mode.POWER:
            return boot(victim, strike)
        if victim.machine.pid is None:
            # It was killed as its own process 1.
            boot(victim, NONE)
        return recover(victim, strike)

    def outcome(self, said: str, allowed: tuple[str, ...], victim: Victim, done: Done) -> str:
        """Which picture the machine is."""
        expected = {one: self.pictures[one] for one in allowed}
        now = victim.picture_of(*expected.values())
        must(
            now in expected.values(),
            f"{said}: neither before nor after{''.join(differences(now, expected))}\n{done.text}",
        )
        return next(one for one, found in expected.items() if found == now)

    def check_code(self, said: str, scenario: Scenario, done: Done, victim: Victim, mode: Mode) -> None:
        """The exit code tells which it is, before any recovery: 0 after, 20 neither, any other before."""
        if scenario.act in {boot, recover} or (done.code == 20 and mode is Mode.FAIL):
            return
        must(done.code in {0, 3, 4, 9, 111}, f"{said}: exit {done.code}\n{done.text}")
        outcome = self.outcome(f"{said}: exit {done.code}", scenario.outcomes, victim, done)
        expected = scenario.outcomes[-1 if done.code == 0 else 0]
        must(outcome == expected, f"{said}: exit {done.code} and {outcome}\n{done.text}")


def differences(now: Picture, expected: dict[str, Picture]) -> Iterator[str]:
    """How ``now`` differs from each of ``expected``, for a person to read."""
    for name, wanted in expected.items():
        yield f"\n  against {name}:"
        yield from (f"\n    is    {line}" for line in sorted(now - wanted)[:15])
        yield from (f"\n    lacks {line}" for line in sorted(wanted - now)[:15])


@contextmanager
def crashes_on(lab: labs.Lab, folder: Path, machines: range, wanted: tuple[str, ...] = ALL) -> Iterator[Crashes]:
    """These machines of ``lab``, to crash; at the end they have no history."""
    victims = [Victim(lab, f"lab-{number}", folder / f"lab-{number}") for number in machines]
    for victim in victims:
        victim.folder.mkdir(exist_ok=True)
    made = Crashes(victims, folder)
    with machines_under_supervision():
        try:
            made.set_up(wanted)
            yield made
        finally:
            made.tell()
            for victim in victims:
                victim.blank()
