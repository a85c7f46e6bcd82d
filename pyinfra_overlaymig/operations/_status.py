"""One status for all operations of a stage, so that a hundred cost no more round trips than one."""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State

from pyinfra_overlaymig.facts import MachineStatus
from pyinfra_overlaymig.status import Status


@dataclass
class _Memory:
    """What this run knows of one host; ``executing``: the stage that ``status`` was read in."""

    status: Status | None = None
    executing: bool = False
    shown: set[str] = field(default_factory=set)
    coming: list[str] = field(default_factory=list)


@dataclass
class _Run:
    """What is known of a run; ``plans``: the host that each plan was shown for."""

    hosts: dict[str, _Memory] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict)


_runs: WeakKeyDictionary[State, _Run] = WeakKeyDictionary()


def _run() -> _Run:
    return _runs.setdefault(host.state, _Run())


def _memory() -> _Memory:
    return _run().hosts.setdefault(host.name, _Memory())


def machine_status() -> Status:
    """The machine's status, read once in each stage and again after ``forget_status``."""
    memory, executing = _memory(), host.state.is_executing
    if memory.status is None or memory.executing != executing:
        memory.status, memory.executing = host.get_fact(MachineStatus), executing
    return memory.status


def forget_status() -> None:
    """To be called before a command that changes the machine; in the prepare stage none runs."""
    if host.state.is_executing:
        _memory().status = None


def shown_already(what: str) -> bool:
    """Whether this was asked before: what an operation will do is shown in one stage only."""
    shown = _memory().shown
    again = what in shown
    shown.add(what)
    return again


def plan_shown_for(plan: str) -> str | None:
    """The host that the same plan was shown for, None for the first one: it is not repeated for each."""
    first = _run().plans.setdefault(plan, host.name)
    return None if first == host.name else first


def coming() -> tuple[str, ...]:
    """The migrations that this run applies to this host before the one that asks.

    Known in the prepare stage only: in the other one, the status itself has them.
    """
    return () if host.state.is_executing else tuple(_memory().coming)


def will_come(id: str) -> None:
    """Remember that this run applies the migration ``id`` to this host."""
    if not host.state.is_executing:
        _memory().coming.append(id)
