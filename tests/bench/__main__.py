"""What things cost on real machines, side by side; `make bench` and `make bench-quick` run it.

It asserts nothing: other work on the host shows in it. Lines are measured by the files in lines/; who adds a line adds
a file.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tests.bench import host, lines, plots, report
from tests.bench.line import Found, Group
from tests.bench.session import Bench
from tests.volume import volume

_QUICK = 215.0
"""Seconds of a quick run after which nothing is measured any more: what is left of four minutes is for the end."""
_RESULTS = host.TOP / "bench-results"

console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)


class TimeIsUp(BaseException):
    """A group has had its time. No Exception, so that nobody takes it for a failure of what is measured."""


def groups() -> list[Group]:
    """Those of all files in lines/, in their order."""
    names = (found.name for found in pkgutil.iter_modules(lines.__path__))
    found = [importlib.import_module(f"{lines.__name__}.{name}").GROUP for name in names]
    return sorted(found, key=lambda one: one.place)


def chosen(wanted: list[str]) -> list[Group]:
    """The groups with a wanted line: lines of one group are measured together. A group's own name means all of it."""
    found = [one for one in groups() if not wanted or _names(one) & set(wanted)]
    unknown = set(wanted) - {name for one in found for name in _names(one)}
    if unknown:
        sys.exit(f"there is no line {', '.join(sorted(unknown))}; `python -m tests.bench --list` lists them")
    return found


def _names(group: Group) -> set[str]:
    return {group.name, *(line.name for line in group.lines)}


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """What is inside is interrupted after that time."""

    def stop(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(bench: Bench, group: Group, left: float, told: list[Found]) -> None:
    """Adds to ``told`` what a group's lines are, and why not where they are not; a group that fails spoils no other."""
    seconds = min(left, group.minutes * 60)
    found = list(bench.begin(group.lines, seconds).values())
    told += found
    trouble = ""
    begun = time.monotonic()
    console.print(f"[bold]{group.name}[/bold] (up to {seconds / 60:.0f} min)")
    if bench.quick and group.quick == 0:
        trouble = "not in a quick run"
    elif bench.quick and left < group.quick:
        trouble = f"{left:.0f} s were left of a quick run, and it takes {group.quick:.0f}"
    else:
        try:
            with limit(seconds):
                group.measure(bench)
        except TimeIsUp:
            trouble = f"its time was up after {seconds:.0f} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and other lines are measured
            trouble = f"{type(error).__name__}: {error}"[:1000]
    if trouble:
        console.print(f"  {trouble}", style="yellow", markup=False)
    console.print(f"  {time.monotonic() - begun:.0f} s")
    for one in found:
        one.trouble = trouble


def run(options: argparse.Namespace) -> int:
    """All of it: the exit code says only whether everything was measured that was to be."""
    wanted = chosen(options.only)
    command = shlex.join(["make", "bench-quick" if options.quick else "bench"])
    if options.only or options.rounds:
        command = shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]])
    end = time.monotonic() + (_QUICK if options.quick else 24 * 3600)
    found: list[Found] = []
    options.output.mkdir(parents=True, exist_ok=True)
    with volume() as directory:
        machine = host.name(directory)
        if not host.is_idle():
            machine["disturbed"] = "Other work ran on this machine: these figures are not to be believed."
            console.print(machine["disturbed"], style="yellow")
        stolen = host.stolen()
        bench = Bench(directory, options.output, quick=options.quick, rounds=options.rounds, say=_say)
        try:
            for group in wanted:
                measure(bench, group, end - time.monotonic(), found)
                # What comes later may fail.
                report.write(options.output, machine, found, command)
        except KeyboardInterrupt:
            console.print("interrupted: what was measured is told", style="yellow")
        finally:
            bench.leave_lab()
    lost, all_of = (after - before for before, after in zip(stolen, host.stolen(), strict=True))
    machine["time stolen by the hypervisor"] = f"{lost / max(all_of, 1):.1%}"
    report.write(options.output, machine, found, command)
    report.show(console, machine, found)
    console.print(plots.draw(options.output, found, f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}"))
    console.print(f"{options.output}/table.md is the table for the README, bench.json has every figure")
    # A first look leaves out what takes longer, and says so.
    return 0 if options.quick or all(one.figures for one in found) else 1


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What things cost, side by side.")
    parser.add_argument("--quick", action="store_true", help="few rounds of what is quickly measured, within 4 minutes")
    parser.add_argument("--only", action="append", default=[], metavar="LINE", help="a line, or a group's name; again")
    parser.add_argument("--rounds", type=int, help="so many rounds of each, instead of what each has")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder for table, JSON and plots")
    parser.add_argument("--list", action="store_true", help="name the lines and what each is to reach")
    options = parser.parse_args()
    if options.list:
        for group in groups():
            for line in group.lines:
                goal = f"<= {line.at_most:g}" + (f" x {line.over}" if line.over else f" {line.unit}")
                _say(f"{line.name:32} {goal:18} {line.title}")
        return
    sys.exit(run(options))


if __name__ == "__main__":
    main()
