"""Which calls are struck: all of them (`make crash`), or every k-th of them (`make test`), other ones every day.

+ OVERLAYMIG_CRASH=full: all; else every k-th
+ CRASH_FROM=apply:kill:120: all from there on, in the order in which they are told
+ CRASH_STEP=10: only each tenth of all, the first of them drawn from the seed
+ CRASH_SEED=20260101: begins elsewhere; today's date unless it is given
+ CRASH_MINUTES=60: ends after that time, and says where to go on from
+ CRASH_CASES=24: how many the lane that always runs takes
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from tests.crash.crashes import Crashes
from tests.crash.modes import Mode
from tests.crash.scenarios import SCENARIOS
from tests.crash.victim import FULL, Victim

SEED = int(os.environ.get("CRASH_SEED") or datetime.now(UTC).strftime("%Y%m%d"))
STEP = int(os.environ.get("CRASH_STEP") or 1)
CASES = int(os.environ.get("CRASH_CASES") or 24)
FROM = os.environ.get("CRASH_FROM", "")
_T = TypeVar("_T")
UNTIL = time.monotonic() + 60 * float(os.environ.get("CRASH_MINUTES") or "inf")


class Case(NamedTuple):
    """A scenario, what happens, and before which of its calls."""

    name: str
    mode: Mode
    number: int

    def __str__(self) -> str:
        return f"{self.name}:{self.mode.value}:{self.number}"


def begin() -> tuple[str, str, int]:
    """What `CRASH_FROM` says."""
    name, mode, number = (*FROM.split(":"), "", "")[:3]
    return name, mode, int(number or 1)


def second(case: Case) -> int:
    """Before which call of the recovery it happens again; 0: nowhere. It wanders through short ones and long ones.

    That a recovery is struck before each of its calls is what the scenarios do that are recoveries.
    """
    if case.mode not in {Mode.KILL, Mode.POWER} or (case.number + SEED) % 4 == 0:
        return 0
    return 1 + (case.number * 37 + SEED) % (29, 97, 389)[case.number % 3]


def count(crashes: Crashes, names: Iterable[str]) -> dict[str, int]:
    """How many calls each scenario makes, undisturbed."""
    totals: dict[str, int] = {}

    def one(victim: Victim, name: str) -> None:
        totals[name] = crashes.count(name, victim)

    _share(crashes.victims, list(names), one)
    return totals


def every_kth(totals: dict[str, int], cases: int = CASES) -> tuple[int, list[Case]]:
    """Of all calls in all modes, in one line, every k-th; and k."""
    line = [
        Case(name, mode, number)
        for name, total in totals.items()
        for mode in SCENARIOS[name].modes
        for number in range(1, total + 1)
    ]
    # Not a multiple of anything that comes round, in a line of loops.
    k = max(1, len(line) // cases) | 1
    return k, line[(SEED * 7919) % k :: k]


def all_of(name: str, mode: Mode, total: int, first: int = 1) -> list[Case]:
    """Each call of a scenario; of them, with `CRASH_STEP`, some."""
    offset = 1 + SEED * 7919 % STEP
    return [Case(name, mode, number) for number in range(offset, total + 1, STEP) if number >= first]


def strike(crashes: Crashes, cases: list[Case]) -> list[str]:
    """Strike at each of ``cases``, on all machines at once, as long as there is time: what went wrong."""
    wrong: list[str] = []
    unmet: list[Case] = []
    struck: list[Case] = []

    def one(victim: Victim, case: Case) -> None:
        if time.monotonic() > UNTIL:
            unmet.append(case)
            return
        again = second(case)
        try:
            reached = crashes.strike(case.name, case.mode, victim, case.number, again)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this case, and the others go on
            wrong.append(f"[{case}, again at {again}] {type(error).__name__}: {error}")
            reached = True
            if FULL:
                # At once: the end may be hours away.
                sys.stderr.write(f"\n{wrong[-1]}\n")
        (struck if reached else unmet).append(case)
        if FULL:
            sys.stderr.write(f"\r{case}: {len(struck)} of {len(cases)}, {len(wrong)} wrong ")
            sys.stderr.flush()

    _share(crashes.victims, cases, one)
    if unmet and time.monotonic() > UNTIL:
        print(f"\nno time is left: go on with CRASH_FROM='{min(unmet, key=cases.index)}'")  # noqa: T201
    elif len(unmet) > 1 + len(cases) // 10:
        # Some calls are made by chance, such as a look that is taken while something is waited for.
        wrong.append(f"not reached: {', '.join(map(str, unmet))}")
    return wrong


def _share(victims: list[Victim], work: list[_T], one: Callable[[Victim, _T], None]) -> None:
    """Do ``one`` with each piece of ``work``, on the machine that is free next."""
    left: Iterator[_T] = iter(work)
    turn, over = threading.Lock(), threading.Event()

    def on(victim: Victim) -> None:
        while not over.is_set():
            with turn:
                piece = next(left, None)
            if piece is None:
                return
            one(victim, piece)

    with ThreadPoolExecutor(len(victims)) as pool:
        try:
            for future in [pool.submit(on, victim) for victim in victims]:
                future.result()
        finally:
            # An interrupt, or a failure, ends it after what each machine is at.
            over.set()
