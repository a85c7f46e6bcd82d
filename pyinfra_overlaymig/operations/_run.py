"""What a run remembers of its hosts: a hundred operations cost no more round trips than one, and say it once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State

from pyinfra_overlaymig.facts import MachineStatus
from pyinfra_overlaymig.format.status import UNKNOWN, Status
from pyinfra_overlaymig.migration.packing import Packets
from pyinfra_overlaymig.operations._connection import in_a_line, keep_watch, say_lost


@dataclass
class Memory:
    """What a run knows of one host, which pyinfra's ``host`` is whenever `memory()` gives it to an operation.

    ``_brought``: the migrations that the run brings, with what conflicts with each. ``_makes``: the stacks of the
    generations that it makes, by number. Both are of the prepare stage, as all that is only going to be.
    """

    name: str
    plans: dict[str, str]
    made: dict[bytes, Packets]
    _status: Status | None = None
    _read_while_executing: bool = False
    _shown: set[str] = field(default_factory=set)
    _brought: dict[str, Collection[str]] = field(default_factory=dict)
    _makes: dict[int, tuple[str, ...]] = field(default_factory=dict)
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
    def coming(self) -> Mapping[str, Collection[str]]:
        """The migrations that this run applies to this host before the one that asks, and what conflicts with each.

        Known in the prepare stage only: in the other one, the status itself has them.
        """
        if self._executing or not self._makes:
            return {}
        return {id: self._brought[id] for id in self._makes[max(self._makes)] if id in self._brought}

    def once(self, what: bytes, make: Callable[[], Packets]) -> Packets:
        """What is the same for all hosts: made for the first one that asks for ``what``."""
        if what not in self.made:
            self.made[what] = make()
        return self.made[what]

    @property
    def gone(self) -> frozenset[str]:
        """The migrations whose layers are gone by then: this run applies something anew that they are over."""
        return frozenset() if self._executing else frozenset(self._gone)

    def will_come(self, id: str, conflicts: Collection[str]) -> None:
        """Remember that this run applies the migration ``id`` to this host; a second time it finds it there."""
        if self._executing or id in self.coming:
            return
        stack = (*self.status().stack, *self.coming, id)
        self._brought[id] = conflicts
        self._makes[self._next()] = stack

    def will_go_to(self, stack: tuple[str, ...]) -> None:
        """Remember that this run brings this host to ``stack``: its status is from here on what it will be then."""
        if self._executing:
            return
        n, status = self._next(), self.status()
        self._makes[n] = stack
        below = tuple(id for id in stack if id not in self._brought)
        records = tuple(replace(one, active=one.id in below) for one in status.migrations)
        self._status = replace(status, generation=n, running=n, stack=below, migrations=records)

    def _next(self) -> int:
        return max((*self._makes, *(one.n for one in self.status().generations)), default=0) + 1

    def generations(self) -> dict[int, tuple[str, ...]]:
        """The stacks of this host's generations, those included that this run makes before the one that asks."""
        kept = {one.n: one.stack for one in self.status().generations if not self.gone.intersection(one.stack)}
        return kept if self._executing else kept | self._makes

    @property
    def will_be_prepared(self) -> bool:
        """Whether this run prepares this host before the one that asks; while it executes, the status itself says."""
        return self._prepares and not self._executing

    def will_prepare(self) -> None:
        """Remember that this run prepares this host."""
        self._prepares = True

    @property
    def is_as_told(self) -> bool:
        """Whether services are those that the machine's status tells: nothing comes or goes before, and it is known."""
        return self.status().prepared and (self._executing or not self._makes)

    def will_define(self, service: str) -> None:
        """Remember that this run defines ``service`` on this host."""
        if not self._executing:
            self._services.add(service)

    def may_come(self, service: str) -> bool:
        """Whether ``service`` may be there by then, though it is not yet."""
        return not self._executing and bool(self._makes or service in self._services)

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
    run = _runs.setdefault(host.state, _Run())
    return run.hosts.setdefault(host.name, Memory(host.name, run.plans, run.made))
