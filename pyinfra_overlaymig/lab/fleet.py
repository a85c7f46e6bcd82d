"""What can be done with a lab; any step may be interrupted, and doing it again completes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import audit, network, prerequisites, ssh
from pyinfra_overlaymig.lab.connection import at_once, wait_for_ssh
from pyinfra_overlaymig.lab.layout import MAX_MACHINES, Lab, Place, place, places
from pyinfra_overlaymig.lab.locking import Report, locked
from pyinfra_overlaymig.lab.machine import (
    KINDS,
    Machine,
    create,
    kind_of,
    look,
    make_key,
    remove,
    start,
    write_known_hosts,
)
from pyinfra_overlaymig.lab.removal import remove_tree

_FIRST = 3
"""Machines of a lab for which nobody said how many."""
_PLAIN = "namespaces"
_BOOTING = 8
"""Machines that boot at the same time: more of them only wait for the same two cores."""
_BUSY = "waiting for another overlaymig command that works on this lab"


def quiet(_: str) -> None:
    """Report nothing."""


def up(lab: Lab, count: int | None, report: Report = quiet, *, kind: str = _PLAIN) -> list[Machine]:
    """Make lab-1 to lab-``count`` run and answer ssh; others are left as they are. Without ``count``: all there are.

    Those that are not there yet are made as ``kind`` says, "namespaces" or "vm". Where none of those that are there is
    of that kind, one comes to them.
    """
    if count is not None and not 1 <= count <= MAX_MACHINES:
        raise OverlaymigError(f"a lab has 1 to {MAX_MACHINES} machines, not {count}", hint="choose -n")
    prerequisites.check_root()
    lab.check_own()
    prerequisites.check(lab.directory)
    with _working_on(lab, report):
        wanted = _wanted(lab, count, kind)
        grounds = _grounds(lab, {kind_of(new, kind) for new in wanted}, report)
        make_key(lab.key, "overlaymig-lab")
        network.raise_bridge(lab)
        _share_audit(lab, grounds, report)
        for new in wanted:
            create(new, kind)
        write_known_hosts(lab, places(lab))
        _boot([here for here in wanted if not look(here).running], grounds, report)
        return [look(here) for here in wanted]


def restart(lab: Lab, name: str, report: Report = quiet) -> Machine:
    """End a machine as a loss of power would, and boot it again with nothing but its /data."""
    prerequisites.check_root()
    known(lab, name)
    prerequisites.check(lab.directory)
    with _working_on(lab, report):
        here = known(lab, name)
        grounds = _grounds(lab, {kind_of(here)}, report)
        network.raise_bridge(lab)
        _share_audit(lab, grounds, report)
        create(here, kind_of(here))
        write_known_hosts(lab, places(lab))
        _boot([here], grounds, report)
        return look(here)


def _wanted(lab: Lab, count: int | None, kind: str) -> list[Place]:
    there = places(lab)
    last = there[-1].index if there else 0
    if count is None:
        wanted = there or [Place(lab, index) for index in range(1, _FIRST + 1)]
    else:
        wanted = [Place(lab, index) for index in range(1, count + 1)]
    if kind in {kind_of(here, kind) for here in wanted} or kind == _PLAIN:
        return wanted
    if count is None and last < MAX_MACHINES:
        return [*wanted, Place(lab, last + 1)]
    raise OverlaymigError(
        f"lab-1 to lab-{count} are there, none of them is of the kind {kind}, and each stays of the kind that it is",
        hint=f"one more: overlaymig lab up --{kind} -n {last + 1}; or take one down first: overlaymig lab down lab-1",
    )


def down(lab: Lab, report: Report = quiet, names: Sequence[str] = ()) -> None:
    """Remove the machines that are named, with their /data; without names all, and all else but the cached base."""
    prerequisites.check_root()
    lab.check_own()
    named = [known(lab, name) for name in dict.fromkeys(names)]
    with _working_on(lab, report):
        for here in named or places(lab):
            remove(here)
            report(f"{here.name} removed")
        if places(lab):
            write_known_hosts(lab, places(lab))
            return
        audit.leave(lab)
        network.drop_bridge(lab)
        remove_tree(lab.directory)


def machines(lab: Lab) -> list[Machine]:
    """Every machine of the lab, running or not, by number."""
    return [look(here) for here in places(lab) if lab.subnet.exists()]


def machine(lab: Lab, name: str) -> Machine:
    """The machine called ``name``."""
    return look(known(lab, name))


def known(lab: Lab, name: str) -> Place:
    """The place of the machine called ``name``, which must exist."""
    here = place(lab, name)
    if not here.directory.is_dir():
        names = ", ".join(other.name for other in places(lab)) or "none yet"
        raise OverlaymigError(
            f"there is no {name} in this lab (there is: {names})",
            hint=f"make it: overlaymig lab up -n {here.index}",
        )
    return here


def inventory(lab: Lab | None = None) -> list[tuple[str, dict[str, object]]]:
    """The running machines as pyinfra hosts, reached with the lab's own key and known_hosts."""
    lab = lab or Lab.default()
    running = [found for found in machines(lab) if found.running]
    if not running:
        raise OverlaymigError(f"no machine runs in the lab {lab.directory}", hint="start some: overlaymig lab up -n 3")
    return [(found.name, ssh_data(lab, found)) for found in running]


def stopped(lab: Lab | None = None) -> list[str]:
    """The names of the machines that do not run, which no inventory has."""
    return [found.name for found in machines(lab or Lab.default()) if not found.running]


def ssh_data(lab: Lab, found: Machine) -> dict[str, object]:
    """Settings for pyinfra's ssh; nothing of the operator's ~/.ssh is read or written."""
    return {
        "ssh_hostname": found.address,
        "ssh_user": "root",
        "ssh_key": str(lab.key),
        "ssh_known_hosts_file": str(lab.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_config_file": "/dev/null",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }


@contextmanager
def _working_on(lab: Lab, report: Report) -> Iterator[None]:
    """Hold the lab's lock."""
    # Machines see the directories made here: a strict umask must not lock their users out.
    before = os.umask(0o022)
    try:
        with locked(lab.directory, report=report, busy=_BUSY):
            yield
    finally:
        os.umask(before)


def ssh_argv(lab: Lab, found: Machine) -> list[str]:
    """The argv that logs in to a machine; a command for it may follow."""
    return ssh.argv(lab, found.address)


def _grounds(lab: Lab, kinds: set[str], report: Report) -> dict[str, Path]:
    """What machines of these kinds start from, built where the cache lacks it."""
    return {name: KINDS[name].ground(lab.cache, report) for name in kinds}


def _share_audit(lab: Lab, grounds: dict[str, Path], report: Report) -> None:
    """A virtual machine has a kernel, and so an audit, of its own."""
    if "namespaces" in grounds:
        audit.start(lab, report)


def _boot(places: list[Place], grounds: dict[str, Path], report: Report) -> None:
    """Boot machines and wait for each; raises one error that tells of all that failed."""

    def boot(here: Place) -> None:
        begun = time.monotonic()
        alive = start(here, grounds[kind_of(here)])
        found = look(here)
        wait_for_ssh(here.lab, found, alive, KINDS[found.kind].patience)
        report(f"{found.name} answers ssh at {found.address} ({time.monotonic() - begun:.1f} s)")

    problems = [done for done in at_once(boot, places, size=_BOOTING) if isinstance(done, Exception)]
    if not problems:
        return
    hints = [problem.hint for problem in problems if isinstance(problem, OverlaymigError)]
    raise OverlaymigError("\n".join(map(str, problems)), hint=hints[0] if hints else "run it again") from problems[0]
