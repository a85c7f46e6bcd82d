"""All that follows the commit point of a migration: state, the switch, services, the health check, the mark; and its
undo.
"""

from __future__ import annotations

import os
import time

from pyinfra_overlaymig.format.paths import LAYERS, LIVE, MIGRATIONS, STAGING
from pyinfra_overlaymig.runner import (
    bindings,
    confirm,
    copies,
    drift,
    evidence,
    files,
    former,
    metadata,
    owners,
    reserve,
    services,
    services_follow,
    spawn,
    state,
    store,
    supervision,
    switch,
)
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.clock import now
from pyinfra_overlaymig.runner.output import Output
from pyinfra_overlaymig.runner.say import Leave, attempt, say, warn

_ENVIRONMENT = {"PATH": spawn.PATH, "HOME": "/root", "LANG": "C.UTF-8"}
UNHEALTHY = 1


def finish(id: str) -> None:
    """Raises, having said why, when the migration turned out bad: the caller reverts. Every step can be done twice."""
    journal = f"{STAGING}/{id}"
    files.write_lines(f"{journal}/layers", [id])
    # They are started anew anyway: not to have state change under them.
    _pause_own(id)
    files.mark(f"{journal}/publishing")
    state.publish(journal)
    drift.dropped(journal, "drop")
    say(f"switching to generation {store.current()}")
    switch.live()
    # Not before: services stand still meanwhile.
    explaining = audit.begin_explaining(journal)
    try:
        if not services_follow.follow(journal, (id,)):
            raise Leave(UNHEALTHY)
        verify(id)
        if not (confirm.awaited(journal) and services_follow.stand(id)):
            raise Leave(UNHEALTHY)
    except BaseException:
        audit.settle(explaining)
        raise
    audit.finish_explaining(journal, f"{MIGRATIONS}/{id}", explaining)
    if files.there(f"{journal}/log"):
        copies.copy_entry(f"{journal}/log", f"{MIGRATIONS}/{id}/log.new")
        os.rename(f"{MIGRATIONS}/{id}/log.new", f"{MIGRATIONS}/{id}/log")
    bindings.keep(f"{MIGRATIONS}/{id}")
    state.sync(journal)
    files.write_file(f"{MIGRATIONS}/{id}/applied", f"at {now()}\ngeneration {store.current()}\n")
    # Whoever is told that it succeeded must not see it finished, or even reverted, by the next boot.
    files.sync_dir(f"{MIGRATIONS}/{id}")
    # From here on nothing takes it back; what is left is done by the next recover, if not by this.
    if not attempt(lambda: tidy(id)):
        warn("what is left over of it goes with the next change of the machine")


def tidy(id: str) -> None:
    """What an applied migration leaves over. While the stage is there, recover knows that there is something left to
    do.
    """
    former.let_go(id)
    metadata.write()
    state.keep(f"{STAGING}/{id}", id)
    evidence.discard(id)


def verify(id: str) -> None:
    """The migration's health check, in the running root, as often as it may be tried; raises when it says no."""
    script = f"{MIGRATIONS}/{id}/verify.sh"
    if not files.there(script):
        return
    limits = store.limits(id)
    say("verifying")
    for left in range(limits.verify_retries, -1, -1):
        why = _verify_once(id, script, limits.verify_timeout)
        if not why:
            return
        warn(f"verify.sh of {id} {why}")
        if left:
            say(f"verifying again in a second, {left} left")
            time.sleep(1)
    raise Leave(UNHEALTHY)


def _verify_once(id: str, script: str, limit: int) -> str:
    """Why it failed, in words; nothing where it did not."""
    code = spawn.run([script], env={**_ENVIRONMENT, "MIGRATION_ID": id}, root=LIVE, seconds=limit, said=Output())
    if code == 0:
        return ""
    return f"did not end within its limit of {limit} s" if code == spawn.LATE else f"failed with status {code}"


def _pause_own(id: str, *, force: bool = False) -> None:
    """Stops the services that the migration defines, and what needs them, as far as they run; raises when one does
    not.
    """
    record = store.record(id)
    own = [name for name in (record.services if record else ()) if services.restart(name) != "never"]
    if not supervision.pause(f"{STAGING}/{id}", services.needing(own), force=force):
        raise Leave(UNHEALTHY)


def revert(id: str, generation: int, *, live: bool) -> bool:
    """The undo of a commit: ``generation`` is current again and runs, the layer goes back to the stage.

    False, said, when not all services are up as before. The record goes last: as long as it is there without
    `applied`, the revert is not over. At boot nothing runs yet.
    """
    journal = f"{STAGING}/{id}"
    reserve.release()
    # First of all: with it, recover would take what was replaced in state for leftovers.
    files.drop(f"{MIGRATIONS}/{id}/applied")
    store.set_current(generation)
    drift.dropped(journal, "bring")
    files.make_dirs(journal)
    files.write_lines(f"{journal}/layers", [id])
    if live:
        # Better under a service that does not stop than not at all.
        attempt(lambda: _pause_own(id, force=True))
    # Before the switch, which binds what is there then: what lies in another state path may have been moved away.
    state.take_back(journal)
    if live:
        switch.live()
        owners.follow_all()
    whole = not live or services_follow.follow(journal, (id,), back=True)
    if not whole:
        warn("services of the generation before do not get ready")
    if os.path.isdir(f"{LAYERS}/{id}") and not former.has_layer(id):
        os.rename(f"{LAYERS}/{id}", f"{journal}/upper")
    former.bring_back(id)
    metadata.write()
    return whole
