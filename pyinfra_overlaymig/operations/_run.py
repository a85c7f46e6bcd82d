"""What a run remembers of its hosts: a hundred operations cost no more round trips than one, and say it once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State

from pyinfra_overlaymig.facts import MachineStatus
from pyinfra_overlaymig.format.status import UNKNOWN, Status
from pyinfra_overlaymig.migration.packing import Packets
from pyinfra_overlaymig.operations._connection import in_a_line, keep_watch, say_lost
from pyinfra_overlaymig.operations._foreseen import begin


@dataclass
class Memory:
    """What a run knows of one host, which pyinfra's ``host`` is whenever `memory()` gives it to an operation."""

    name: str
    plans: dict[str, str]
    made: dict[bytes, Packets]
    _status: Status | None = None
    _read_while_executing: bool = False
    _shown: set[str] = field(default_factory=set)
    _coming: list[str] = field(default_factory=list)
    _gone: set[str] = field(default_factory=set)
    _services: set[str] = field(default_factory=set)
    _prepares: bool = False

    @property
    def _executing(self) -> bool:
        return host.state.is_executing

    def status(self) -> Status:
        """The machine's status, read once in each stage and again after ``changes``."""
        if self._status is None or self._read_while_executing != self._executing:
            keep_watch(getattr(host, "connector", None))
            try:
                found = host.get_fact(MachineStatus)
            except EOFError as error:
                # pyinfra knows other ends of a connection, and would end the run for all hosts with this one.
                say_lost(host, f"connection lost ({in_a_line(error)})")
                found = UNKNOWN
            self._status, self._read_while_executing = found, self._executing
        return self._status

    def changes(self) -> None:
        """To be called before a command that changes the machine; in the prepare stage none runs."""
        if self._executing:
            self._status = None

    def shown_already(self, what: str) -> bool:
        """Whether this was asked before: what an operation will do is shown in one stage only."""
        again = what in self._shown
        self._shown.add(what)
        return again

    def shown_for(self, what: str) -> str | None:
        """The host that the same was shown for, None for the first one: it is not repeated for each."""
        first = self.plans.setdefault(what, self.name)
        return None if first == self.name else first

    @property
    def coming(self) -> tuple[str, ...]:
        """The migrations that this run applies to this host before the one that asks.

        Known in the prepare stage only: in the other one, the status itself has them.
        """
        return () if self._executing else tuple(self._coming)

    def once(self, what: bytes, make: Callable[[], Packets]) -> Packets:
        """What is the same for all hosts: made for the first one that asks for ``what``."""
        if what not in self.made:
            self.made[what] = make()
        return self.made[what]

    @property
    def gone(self) -> frozenset[str]:
        """The migrations whose layers are gone by then: this run applies something anew that they are over."""
        return frozenset() if self._executing else frozenset(self._gone)

    def will_come(self, id: str) -> None:
        """Remember that this run applies the migration ``id`` to this host."""
        if not self._executing:
            self._coming.append(id)

    def will_prepare(self) -> None:
        """Remember that this run brings this host its runner."""
        self._prepares = True

    @property
    def will_be_prepared(self) -> bool:
        """Whether it has one by then."""
        return self._prepares and not self._executing

    def will_define(self, service: str) -> None:
        """Remember that this run defines ``service`` on this host."""
        if not self._executing:
            self._services.add(service)

    def may_come(self, service: str) -> bool:
        """Whether ``service`` may be there by then, though it is not yet."""
        return not self._executing and bool(self._coming or service in self._services)

    def will_go(self, ids: Iterable[str]) -> None:
        """Remember that the layers of these go."""
        if not self._executing:
            self._gone.update(ids)


@dataclass
class _Run:
    """``plans``: the host that each plan was shown for. ``made``: what goes to many hosts."""

    hosts: dict[str, Memory] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict)
    made: dict[bytes, Packets] = field(default_factory=dict)


_runs: WeakKeyDictionary[State, _Run] = WeakKeyDictionary()


def memory() -> Memory:
    """What this run knows of the host that the operation is for."""
    begin()
    run = _runs.setdefault(host.state, _Run())
    return run.hosts.setdefault(host.name, Memory(host.name, run.plans, run.made))
