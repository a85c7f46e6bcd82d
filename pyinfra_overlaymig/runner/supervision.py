"""Starts and stops services; what does not stop, and what one left behind, is ended here too.

Each step may be repeated: what a kill left half done is done by the next call.
"""

from __future__ import annotations

import os
import signal

from pyinfra_overlaymig.format import paths
from pyinfra_overlaymig.runner import copies, files, processes, s6, services, strays
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.say import say, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

STOP_WITHIN = 120.0
"""Seconds within which a service has to stop, or what wanted it stopped fails; on the way back it is killed then."""
_ONCE_MORE = 10.0
"""The same for one that was told before, and had its time."""
_SUPERVISED_WITHIN = 10.0
_HEARD_WITHIN = 1.0
_AGAIN_WITHIN = 2.0


def install(source: str, name: str, *, force: bool = False) -> bool:
    """Supervises a copy of ``source`` in place of what has this name; False, said, when that cannot be."""
    if not drop(name, force=force):
        return False
    files.make_dirs(paths.SERVICEDIRS)
    _copy(source, name)
    if s6.link(paths.SCANDIR, services.directory(name), name, Deadline(_SUPERVISED_WITHIN)):
        return True
    warn(f"service {name} is not supervised")
    return False


def lay_out(source: str, name: str) -> None:
    """What s6-svscan will find when it starts. The link comes last: with it, all is there."""
    files.drop(services.directory(name))
    _copy(source, name)
    files.replace_link(services.directory(name), services.linked(name))


def _copy(source: str, name: str) -> None:
    copies.copy_tree(source, services.directory(name))
    files.write_plain(f"{services.directory(name)}/layer", f"{services.layer(name)}\n", 0o644)


def boot(root: str) -> bool:
    """Every service directory of ``root``, the base's own too, goes into the scan directory.

    False, said, when one could not be, twice: a second call does what is missing.
    """
    top = f"{root}/{paths.SERVICES}"
    files.make_dirs(paths.SCANDIR, paths.SERVICEDIRS)
    todo = s6.directories(top)
    for _ in range(2):
        todo = [name for name in todo if not os.path.exists(services.linked(name)) and not _laid_out(top, name)]
    return not todo


def _laid_out(top: str, name: str) -> bool:
    try:
        lay_out(f"{top}/{name}", name)
    except OSError as error:
        # The others are to run all the same.
        warn(f"service {name} cannot be laid out: {error}")
        return False
    return True


def drop(name: str, *, force: bool = False) -> bool:
    """Stops a service, its supervisor, what it left behind and its logger, and removes it.

    False, said, when it does not stop: what takes its place would run beside it. With ``force`` it is killed then.
    """
    if not files.there(services.linked(name)) and not files.there(services.directory(name)):
        return True
    marks = strays.marks(name)
    # Whoever unlinked it before may have been killed before s6-svscan was told.
    heard = s6.unlink(paths.SCANDIR, name)
    if not _stopped(marks, heard=heard, force=force):
        return False
    strays.end(marks, {*strays.of_session(marks), *strays.of_name(marks)})
    if not _logger_ended(marks, heard=heard):
        return False
    files.drop(services.directory(name))
    return True


def _stopped(marks: strays.Marks, *, heard: bool, force: bool) -> bool:
    """Waits for its supervisor, which ends once the service has."""
    place = services.directory(marks.name)
    with processes.Held(s6.supervisor(place)) as supervisor:
        if not heard:
            supervisor.signal(signal.SIGTERM)
        if supervisor.gone(STOP_WITHIN):
            return True
        if not force:
            _say_late(marks.name)
            return False
        _kill(marks.name, marks)
        if not supervisor.gone(_ONCE_MORE):
            supervisor.signal(signal.SIGKILL)
        return supervisor.gone(1.0)


def _logger_ended(marks: strays.Marks, *, heard: bool) -> bool:
    """Waits for its logger, which ends once nobody can write to it."""
    place = f"{services.directory(marks.name)}/log"
    with processes.Held(s6.supervisor(place)) as supervisor:
        if not heard:
            supervisor.signal(signal.SIGHUP)
        if supervisor.gone(0.2):
            return True
        if strays.end(marks, strays.of_pipe(marks)) and supervisor.gone(5.0):
            return True
        s6.control(place, "d")
        if supervisor.gone(5.0):
            return True
        status = s6.read(place)
        if status and status.process and (process := processes.read(status.process)):
            processes.end([process], signal.SIGKILL, 1.0)
        if not supervisor.gone(1.0):
            supervisor.signal(signal.SIGKILL)
        return supervisor.gone(1.0)


def _say_late(name: str) -> None:
    warn(f"service {name} did not stop within {STOP_WITHIN:.0f} s (timeout_kill in its manifest would end it)")


def _kill(name: str, marks: strays.Marks) -> None:
    """Ends one that does not stop by itself: the way back must not depend on it."""
    warn(f"service {name} does not stop: it is killed")
    status = s6.read(services.directory(name))
    left = strays.of_session(marks)
    if status and status.process and (process := processes.read(status.process)):
        left.append(process)
    processes.end(left, signal.SIGKILL, _ONCE_MORE)


def pause(journal: str, names: Iterable[str], *, force: bool = False) -> bool:
    """Stops those of them that are meant to be up, and notes them; False, said, when one does not stop.

    With ``force`` it is killed then.
    """
    noted = files.lines(f"{journal}/paused")
    late = [name for name in names if not _pause(journal, name, noted, force=force)]
    return not late


def _pause(journal: str, name: str, noted: list[str], *, force: bool) -> bool:
    place = services.linked(name)
    if not os.path.exists(place):
        return True
    status = s6.read(place) or _supervised_again(place)
    known = name in noted
    if not status or not (status.wanted_up or (known and not status.stopped)):
        return True
    say(f"stopping service {name}")
    if not known:
        files.append_line(f"{journal}/paused", name)
    marks = strays.marks(name)
    stopped = _is_stopped(place, _ONCE_MORE if known and force else STOP_WITHIN)
    if not stopped:
        if not force:
            _say_late(name)
            return False
        _kill(name, marks)
        stopped = _is_stopped(place, _ONCE_MORE)
    strays.end(marks, strays.of_session(marks))
    return stopped


def _is_stopped(place: str, seconds: float) -> bool:
    """Tells it to stop, and waits."""
    told = 0

    def test() -> bool:
        nonlocal told
        supervisor = s6.supervisor(place)
        if supervisor and supervisor != told:
            # Again where it was killed meanwhile: the next one wants its service up.
            told = supervisor
            s6.control(place, "d")
        status = s6.read(place)
        # Without its supervisor it may still run; s6-svscan, if there is one, brings that back.
        return status.stopped if status else not services.supported()

    return s6.until(test, Deadline(seconds), place)


def _supervised_again(place: str) -> s6.Status | None:
    """s6-svscan brings back a supervisor that was killed, within a second: what that supervised may still run."""
    if services.supported() and os.path.isdir(f"{place}/supervise"):
        s6.until(lambda: s6.read(place) is not None, Deadline(_AGAIN_WITHIN), place)
    return s6.read(place)


def start(name: str) -> bool:
    """Has a service that is supervised start; False, said, when it is not."""
    place = services.linked(name)
    # Why the last start failed: it would be taken for this one's.
    files.drop(f"{place}/reason")
    if s6.control(place, "u") or (_is_seen(place) and s6.control(place, "u")):
        # Until it is heard, it looks like one that has given up.
        s6.until(lambda: bool((status := s6.read(place)) and status.wanted_up), Deadline(_HEARD_WITHIN), place)
        return True
    warn(f"service {name} is not supervised")
    return False


def _is_seen(place: str) -> bool:
    """Whether it is supervised after all: whoever linked it may have been killed before s6-svscan was told."""
    if not os.path.isdir(place) or not s6.scan(paths.SCANDIR, "a"):
        return False
    return s6.until(lambda: s6.read(place) is not None, Deadline(_AGAIN_WITHIN), place)


def resume(journal: str) -> None:
    """Starts again what `pause` stopped, and only that.

    One that the current generation defines otherwise stays down until that definition takes its place: the old program
    must not run on new state.
    """
    for name in files.lines(f"{journal}/paused"):
        if services.current(name) or not services.of_ours(name):
            start(name)
