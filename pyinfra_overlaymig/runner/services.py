"""Services: which there are, who defines them, what they need, what they leave. Nothing is started or stopped here.

The service directories of the stack run from copies in /run/services, linked into the scan directory /run/service; a
boot starts with both empty. supervision.py makes and ends them, readiness.py waits for them, services_follow.py has
them follow a generation.
"""

from __future__ import annotations

import errno
import os

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import copies, files, needs, processes, s6, store
from pyinfra_overlaymig.runner.clock import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ROOT = ""
"""The base's own root, as the base view has it."""
BASE = "base"
"""What is said to define a service that no layer does."""
_SUPERVISOR = "s6-svscan"

_layers: dict[tuple[str, ...], dict[str, str]] = {}
"""Of the stack that was asked for last, the topmost layer of each service: it is asked for all the time."""


def supported() -> bool:
    """Whether s6-svscan runs on the scan directory."""
    return bool(s6.scanner(paths.SCANDIR))


def supported_within(seconds: float) -> bool:
    """The same, where s6-svscan may be about to start."""
    return s6.scanned(paths.SCANDIR, Deadline(seconds))


def is_nobodys() -> bool:
    """Whether nothing supervises services here: the machine was booted into another program, as a container may be."""
    first = processes.read(1)
    booted = files.there(f"{paths.RUN}/running")
    return booted and not supported() and first is not None and first.name != _SUPERVISOR


def directory(name: str) -> str:
    """Where the copy of the service is that runs."""
    return f"{paths.SERVICEDIRS}/{name}"


def linked(name: str) -> str:
    """Its name in the scan directory."""
    return f"{paths.SCANDIR}/{name}"


def defined(name: str) -> bool:
    """Whether the running root has it."""
    return os.path.isdir(f"{paths.LIVE}/{paths.SERVICES}/{name}")


def here() -> list[str]:
    """Those that a migration can ask to be stopped: what is supervised, and what the running root defines."""
    return sorted({*s6.directories(paths.SCANDIR), *s6.directories(f"{paths.LIVE}/{paths.SERVICES}")})


def is_down_by_wish(name: str) -> bool:
    """Whether it is not to start by itself."""
    return os.path.exists(f"{paths.LIVE}/{paths.SERVICES}/{name}/down")


def of_ours(name: str) -> bool:
    """Whether it came from a generation; else it is somebody else's."""
    return os.path.isfile(f"{directory(name)}/layer")


def layer(name: str) -> str:
    """The topmost layer of the current generation that defines it, `base` when none does."""
    stack = store.stack()
    if stack not in _layers:
        _layers.clear()
        _layers[stack] = {service: one for one in stack for service in _defines(one)}
    return _layers[stack].get(name, BASE)


def _defines(layer: str) -> list[str]:
    top = f"{paths.LAYERS}/{layer}/{paths.SERVICES}"
    # What is no directory may be a whiteout.
    return s6.directories(top)


def is_of_image(name: str) -> bool:
    """Whether it is the base's own, and no layer has another one."""
    # In the base view, the root is the base; what somebody made by hand is in the running root alone.
    return layer(name) == BASE and os.path.isdir(f"{ROOT}/{paths.SERVICES}/{name}")


def is_by_hand(name: str) -> bool:
    """Whether neither the base nor a layer has it."""
    return layer(name) == BASE and not is_of_image(name)


def current(name: str) -> bool:
    """Whether what is supervised under this name is what the current generation defines."""
    return os.path.islink(linked(name)) and files.first_line(f"{directory(name)}/layer") == layer(name)


def restart(name: str) -> str:
    """When a switch restarts it: always, changed or never."""
    return store.limits(layer(name)).restart(name)


def supervised() -> list[str]:
    """The names of all copies, running or not."""
    return s6.directories(paths.SERVICEDIRS)


def order() -> list[str]:
    """The services of the running root, each after those that it needs."""
    top = f"{paths.LIVE}/{paths.SERVICES}"
    return needs.order({name: needed(f"{top}/{name}") for name in s6.directories(top) if defined(name)})


def missing() -> list[str]:
    """What the running root defines and nobody supervises: a boot that was cut off while it laid services out."""
    return [name for name in order() if not is_supervised(name)] if supported() else []


def is_supervised(name: str) -> bool:
    """Whether a supervisor runs for it."""
    return bool(s6.supervisor(linked(name)))


def needing(names: Collection[str]) -> list[str]:
    """These and all that need them, in the order in which they have to stop; of what is supervised, defined or not."""
    return needs.needing(names, {name: needed(directory(name)) for name in supervised()}) if names else []


def needed(place: str) -> list[str]:
    """What the service directory ``place`` says that it needs."""
    return [line for line in files.lines(f"{place}/data/needs") if line]


def of(state: Collection[str], stack: Iterable[str]) -> list[str]:
    """The services whose migrations in ``stack`` have one of the paths ``state``, or what lies in it, or holds it."""
    found: set[str] = set()
    for id in stack:
        record = store.record(id)
        if record and any(paths.is_nested(one, other) for one in state for other in record.state):
            found.update(record.services)
    return sorted(found)


def forget(journal: str) -> None:
    """What services that are new with a migration left in state goes: their mark, and their log to the evidence."""
    for name in files.lines(f"{journal}/services.new"):
        files.drop(f"{paths.INITIALIZED}/{name}")
        log = f"{paths.LOGS}/{name}"
        if files.plain_dir(log):
            files.drop(f"{journal}/log.{name}")
            _move(log, f"{journal}/log.{name}")
        _prune(f"{paths.INITIALIZED}/{name}")
        _prune(log)


def _move(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # /data/state may be a file system of its own.
        copies.copy_tree(source, target)
        files.drop(source)


def _prune(path: str) -> None:
    """Removes the directories above ``path``, below /data/state, as far as they are empty."""
    above = os.path.dirname(path)
    while above.startswith(f"{paths.STATE}/"):
        try:
            os.rmdir(above)
        except OSError:
            # It has something, or is somebody's mount: what is above it stays too.
            return
        above = os.path.dirname(above)
