"""Services follow the generation: after a switch what is gone is removed, and what is new or changed is started anew.

So is all that needs it; the others are left running.
A journal is a directory: `paused` has the services that were stopped, for them to be started again whatever happens.
"""

from __future__ import annotations

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import bindings, files, in_use, left_down, readiness, s6, services, strays, supervision
from pyinfra_overlaymig.runner.say import Leave, attempt, say, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def follow(
    journal: str, layers: Collection[str], *, back: bool = False, force: bool = False, more: Collection[str] = ()
) -> bool:
    """Brings the services to the running root; ``layers`` came or went. False, said, when one is not ready.

    ``more``: services to restart whatever they use, such as those that hold what the switch broke.
    ``back``: nothing keeps the others from being started; what is not up is named.
    ``force``, also on the way back: what does not stop is killed, and what was made by hand does not decide.
    """
    if not services.supported():
        _broken()
        return _lay_out(layers) if services.is_nobodys() else not _missing_supervisor()
    return _Follow(journal, layers, back=back, force=force or back).run(more)


def _lay_out(layers: Collection[str]) -> bool:
    """Where nothing supervises services they are there for whoever starts s6-svscan, which is no failure."""
    for name in services.supervised():
        if services.of_ours(name) and not (services.defined(name) and services.current(name)):
            files.drop(services.linked(name), services.directory(name))
    supervision.boot(paths.LIVE)
    if names := [name for name in services.order() if services.layer(name) in layers]:
        warn(f"nothing supervises services here: not started: {' '.join(names)}")
    return True


def _missing_supervisor() -> bool:
    if not services.order():
        return False
    warn("s6-svscan does not run here: no service can be started")
    return True


def stand(layer: str) -> bool:
    """Whether the services that ``layer`` brought are ready still, at the end of its migration; else False, said."""
    own = [name for name in services.supervised() if services.layer(name) == layer]
    if services.is_nobodys():
        return True
    return not readiness.wait([readiness.Waiting(name) for name in own if not services.is_down_by_wish(name)])


class _Follow:
    """One run of it, and what went wrong meanwhile."""

    def __init__(self, journal: str, layers: Collection[str], *, back: bool, force: bool) -> None:
        self.journal = journal
        self.layers = layers
        self.back = back
        self.force = force
        self.failed: dict[str, None] = {}
        self.waits: list[readiness.Waiting] = []
        self.left: list[str] = []
        self.holding: dict[str, list[bindings.Held]] = {}

    def run(self, more: Collection[str]) -> bool:
        self.holding = _broken()
        stop = services.needing(sorted({*self._touched(), *self.holding, *more}))
        steps: list[tuple[str, Callable[[str], bool]]] = [(name, self._pause) for name in stop]
        steps += [(name, self._remove) for name in gone()]
        steps += [(name, self._bring) for name in services.order()]
        if not self._take(steps):
            return False
        paused = files.lines(f"{self.journal}/paused")
        steps = [(name, supervision.start) for name in others(paused)]
        if not self._take(steps):
            return False
        self.failed.update(dict.fromkeys(readiness.wait(self.waits, every=self.force)))
        if self.left:
            say(f"left running: {' '.join(self.left)}")
        if self.failed and self.back:
            warn(f"not up as before: {' '.join(self.failed)}")
        elif ignored := [name for name in self.failed if not self._decides(name)]:
            warn(f"not up: {' '.join(ignored)}. Made by hand: it does not decide whether another generation runs")
        readiness.remember()
        return not any(map(self._decides, self.failed))

    def _touched(self) -> list[str]:
        if not self.back:
            return touched(self.layers)
        found: list[str] = []
        # Whatever is in the way of telling it: what was up has to be up again.
        attempt(lambda: found.extend(touched(self.layers)))
        return found

    def _decides(self, name: str) -> bool:
        """Whether all of it fails with this one. Of what somebody made by hand no generation knows what it needs."""
        return self.back or not (self.force and services.is_by_hand(name))

    def _take(self, steps: list[tuple[str, Callable[[str], bool]]]) -> bool:
        """Takes these steps; whether to go on: past one that fails, on the way back or where it does not decide."""
        for name, step in steps:
            if not self._one(name, step):
                self.failed[name] = None
                if not self.back and self._decides(name):
                    return False
        return True

    def _one(self, name: str, step: Callable[[str], bool]) -> bool:
        if not self.back:
            return step(name)
        for again in (True, False):
            try:
                return step(name)
            except (OSError, Leave) as error:
                # Whatever is wrong with this one, the moment's or not: the others were up as well.
                warn(f"service {name}: {error}{', tried again' if again else ''}")
        return False

    def _pause(self, name: str) -> bool:
        marks = strays.marks(name)
        if not supervision.pause(self.journal, [name], force=self.force):
            return False
        bindings.end_left(marks, self.holding.get(name, ()))
        return True

    def _remove(self, name: str) -> bool:
        say(f"removing service {name}")
        return supervision.drop(name, force=self.force)

    def _bring(self, name: str) -> bool:
        """One service of the running root, as it has to be."""
        if services.is_by_hand(name) and (lacks := left_down.lacks(name)):
            left_down.note(name, lacks)
            return True
        if left_down.forget(name) and not services.is_down_by_wish(name):
            say(f"starting service {name} again, which was left down")
            return supervision.start(name)
        if not services.current(name) and (services.restart(name) != "never" or not files.there(services.linked(name))):
            return self._install(name)
        if name in files.lines(f"{self.journal}/paused"):
            return self._start(name)
        if services.layer(name) in self.layers and not services.is_down_by_wish(name):
            # A boot, or a run that was interrupted, has started it: what is being finished stands or falls with it.
            say(f"waiting for service {name}")
            self.waits.append(readiness.Waiting(name))
        elif not services.is_down_by_wish(name) and not services.is_supervised(name):
            return self._start(name)
        elif (status := s6.read(services.linked(name))) and status.up:
            self.left.append(name)
        return True

    def _start(self, name: str) -> bool:
        say(f"starting service {name} again")
        self.waits.append(readiness.Waiting(name))
        return supervision.start(name)

    def _install(self, name: str) -> bool:
        say(f"starting service {name}")
        if not supervision.install(f"{paths.LIVE}/{paths.SERVICES}/{name}", name, force=self.force):
            return False
        if not services.is_down_by_wish(name):
            self.waits.append(readiness.Waiting(name))
        return True


def _broken() -> dict[str, list[bindings.Held]]:
    """The services that hold what was bound to a root before; they, and other processes that do, are named."""
    try:
        names, rest = bindings.services_of(bindings.stale())
    except OSError as error:
        # It says what to look after; what is in place by now does not depend on it.
        warn(f"what is bound to the root before cannot be told: {error}")
        return {}
    for name, held in names.items():
        say(f"service {name} holds what is of the root before ({bindings.thing(held[0])}): restarted")
    bindings.tell(rest)
    return names


def others(paused: Collection[str]) -> list[str]:
    """What was stopped and is somebody else's: no layer has it, nor the base."""
    return [
        name
        for name in paused
        if not services.defined(name) and files.there(services.linked(name)) and not services.of_ours(name)
    ]


def gone() -> list[str]:
    """What is supervised and not in the running root, in the order in which it has to stop."""
    names = [name for name in services.supervised() if services.of_ours(name) and not services.defined(name)]
    return [name for name in services.needing(names) if not services.defined(name) and services.of_ours(name)]


def touched(layers: Collection[str]) -> list[str]:
    """The supervised services that have to start anew.

    Their definition is another one or gone, they run from what ``layers`` changed, or they want it at each switch.
    """
    when = {name: services.restart(name) for name in services.supervised() if services.of_ours(name)}
    asked = [name for name in when if when[name] not in ("always", "never")]
    stale = {name for name in asked if not services.current(name) or not services.defined(name)}
    uses = in_use.uses([name for name in asked if name not in stale], layers)
    return [name for name in when if when[name] == "always" or name in stale or name in uses]
