"""Random kills: whatever dies, whenever, over whatever migrations, nothing that was reported as done is lost.

`make kills` does a thousand of them; OVERLAYMIG_KILLS is their number, OVERLAYMIG_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab as labs
from tests.crash import picture
from tests.crash.crashes import must
from tests.crash.model import Change, Files, Model, changed
from tests.crash.processes import kill_all, send
from tests.crash.victim import Victim
from tests.rig import RUNNER
from tests.runner_process import is_runner_process

KILLS = int(os.environ.get("OVERLAYMIG_KILLS") or 12)
MACHINES = 3
LIFE = 60
"""Kills after which a machine begins anew: history makes each step slower."""


@dataclass
class Fate:
    """One machine, and what it has to be."""

    victim: Victim
    model: Model
    usual: dict[str, float] = field(default_factory=dict)
    """How long a verb takes when nothing kills it."""
    done: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)

    def live(self, kills: int) -> None:
        self.victim.blank()
        for number in range(kills):
            self.step()
            if number % 5 == 0:
                name = f"drift-{number}"
                self.model.drift[name] = f"{name}\n"
                self.victim.sh(f"mkdir -p /srv/drift; echo {name} >/srv/drift/{name}")

    def step(self) -> None:
        """One verb that is killed, its recovery, which may be killed too, and the judgement."""
        model, dice = self.model, self.model.dice
        goal, state, change = model.stack, model.state, None
        verb = dice.choices(("apply", "rollback", "recover"), (70, 25, 5))[0]
        if verb == "apply":
            change = model.change()
            argv, goal = ["apply", "-"], (*model.stack, change.id)
            state = changed(model.state, change.id, change.state)
        elif verb == "rollback":
            number = dice.choice(sorted(model.generations))
            argv, goal = ["rollback", str(number)], model.generations[number]
        else:
            argv = ["recover"]
        code, how = self.run(argv, change, dice.choices(("all", "one", "power", "none"), (55, 25, 12, 8))[0])
        self.story.append(f"{' '.join(argv)} {change or ''}: {how}, exit {code}")
        if dice.random() < 0.3:
            _, again = self.run(["recover"], None, dice.choice(("all", "one", "power")))
            self.story.append(f"recover: {again}")
        self.settle()
        self.judge(code, goal, state, change)
        self.done[f"{verb}: {how.split()[0]}"] += 1

    def run(self, argv: list[str], change: Change | None, way: str) -> tuple[int, str]:
        """Run a verb and strike at a random instant: at all its processes, at one, or at the machine. Its exit code."""
        victim, dice = self.victim, self.model.dice
        bundle = b""
        if change:
            bundle = victim.migration(change.id, change.script, verify=change.verify, **change.manifest)
        begun = time.monotonic()
        usual = self.usual.get(argv[0], 1.0)
        with (
            tempfile.TemporaryFile() as given,
            subprocess.Popen(
                victim.machine.enter(RUNNER, *argv), stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as running,
        ):
            os.pwrite(given.fileno(), bundle, 0)
            at = dice.uniform(0, usual)
            if way == "none":
                code = running.wait(120)
                self.usual[argv[0]] = 0.7 * usual + 0.3 * (time.monotonic() - begun)
                return code, "none"
            try:
                return running.wait(at), f"over before {way} at {at:.3f} s"
            except subprocess.TimeoutExpired:
                pass
            said = f"{way} at {at:.3f} s"
            if way == "power":
                victim.power_off()
            elif way == "all":
                kill_all([running.pid], own=running.pid)
            else:
                some = [pid for pid, line in picture.processes(running.pid) if is_runner_process(line)]
                if some:
                    send(dice.choice(some))
            code = running.wait(120)
        if way == "power":
            victim.boot()
        return code, said

    def settle(self) -> None:
        """Wait for what a kill has left alive, then recover."""
        until = time.monotonic() + 120
        while not self.victim.is_up() or "the lock is held" in picture.lock(self.victim.data):
            must(time.monotonic() < until, self.tell("something holds the lock"))
            time.sleep(0.02)
        done = self.victim.run(RUNNER, "recover")
        must(done.code == 0, self.tell(f"recover: exit {done.code}\n{done.text}"))

    def judge(self, code: int, goal: tuple[str, ...], state: Files, change: Change | None) -> None:
        """Before or after, by all that can be seen; and after when it was reported as done, before when as failed."""
        model, victim = self.model, self.victim
        number, stack = current(victim.data)
        must(stack in {model.stack, goal}, self.tell(f"the stack is {stack}, not {model.stack} or {goal}"))
        if code == 0:
            must(stack == goal, self.tell(f"exit 0, but the stack is {stack}, not {goal}"))
        if code in {3, 9} or (change and change.fails):
            must(stack == model.stack, self.tell(f"exit {code}, but the stack is {stack}, not {model.stack}"))
        if change and stack == goal:
            model.known[change.id] = change
            model.state = state
        model.stack = model.generations[number] = stack
        for id in model.known:
            must((victim.data / "system/migrations" / id / "applied").exists(), self.tell(f"{id} is lost"))
        root = Path(f"/proc/{victim.init}/root")
        for what, found, expected in (
            ("tree", read(root / "opt/m"), model.files(stack)),
            ("state", read(victim.data / "state/var/lib/m"), model.state),
            ("drift", read(root / "srv/drift"), model.drift),
        ):
            must(found == expected, self.tell(f"{what}: {sorted(found.items() ^ expected.items())}"))
        services = model.services(stack)
        until = time.monotonic() + 5
        while (
            running := {line for _, line in picture.processes(victim.init) if line.startswith("sleep ")}
        ) != services:
            must(time.monotonic() < until, self.tell(f"services: {running}, not {services}"))
            time.sleep(0.02)
        left = picture.leftovers(victim.data, victim.init)
        must(not left, self.tell(f"left: {left}"))

    def tell(self, what: str) -> str:
        return "\n".join([f"{self.victim.name}: {what}", "after:", *self.story[-8:]])


def current(data: Path) -> tuple[int, tuple[str, ...]]:
    """The generation that is current, and its layers."""
    link = data / "system/generations/current"
    if not link.is_symlink():
        return 0, ()
    number = int(link.readlink().name)
    lines = (link.parent / str(number)).read_text().splitlines()
    return number, tuple(line.removeprefix("layer ") for line in lines if line.startswith("layer "))


def read(folder: Path) -> Files:
    """The files and links below ``folder``; empty directories do not count."""
    found = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


def test_random_kills_lose_nothing(
    running_lab: labs.Lab, module_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL to the runner, to one of its processes or to the machine, at any instant, over random migrations."""
    seed = int(os.environ.get("OVERLAYMIG_SEED") or time.time())
    with capsys.disabled():
        print(f"\n{KILLS} kills, OVERLAYMIG_SEED={seed}")  # noqa: T201 - how to repeat it
    lives = [min(LIFE, KILLS - begun) for begun in range(0, KILLS, LIFE)]
    if len(lives) < MACHINES:
        lives = [KILLS // MACHINES + (number < KILLS % MACHINES) for number in range(MACHINES)]
    machines = [
        Victim(running_lab, f"lab-{number}", module_disk / f"lab-{number}") for number in range(1, MACHINES + 1)
    ]

    def work(number: int) -> Counter[str]:
        done: Counter[str] = Counter()
        for life in range(number, len(lives), MACHINES):
            fate = Fate(machines[number], Model(random.Random(f"{seed} {life}")))  # noqa: S311 - repeatable
            fate.live(lives[life])
            done += fate.done
        return done

    try:
        with ThreadPoolExecutor(MACHINES) as pool:
            done = sum(pool.map(work, range(MACHINES)), Counter[str]())
    finally:
        for victim in machines:
            victim.blank()
    with capsys.disabled():
        print(f"{done.total()} kills: {dict(sorted(done.items()))}")  # noqa: T201 - the count is the result
    assert done.total() == KILLS
