"""From a finished stage to a sealed layer and a generation: everything before the commit point can be thrown away."""

from __future__ import annotations

import hashlib
import os

from pyinfra_overlaymig.format import audit as audit_format
from pyinfra_overlaymig.format import octal, record
from pyinfra_overlaymig.format import plan as plan_format
from pyinfra_overlaymig.format.paths import LAYERS, MIGRATIONS, SYSTEM
from pyinfra_overlaymig.runner import base, copies, files, former, leftovers, linux, store, trees
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.say import unable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra_overlaymig.format.plan import Plan
    from pyinfra_overlaymig.runner.stage import Stage

_COPIES = {"plan": "manifest", "install.sh": "install_script.sh", "limits": "limits", "changes.list": "changes.list"}


def digest(plan: Plan) -> str:
    """The digest of a plan: what a migration is."""
    return hashlib.sha256(plan_format.text(plan).encode("ascii")).hexdigest()


def below() -> str:
    """What the current stack is called in a record: layers are differences, and mean something over just this one."""
    return hashlib.sha256("".join(f"{id}\n" for id in store.stack()).encode("ascii")).hexdigest()


def seal(stage: Stage, generation: int) -> None:
    """The stage's upper becomes the layer, its records the migration's folder. Can be done again."""
    id = stage.id
    former.set_aside(id)
    # A sealed layer is never written again, whatever made another one of its name.
    if store.is_applied(id):
        raise unable(f"{id} is sealed already", "give the migration another id")
    made = f"{stage.directory}/record.new"
    files.make_dirs(made)
    for source, target in _COPIES.items():
        copies.copy_entry(f"{stage.directory}/{source}", f"{made}/{target}")
    if os.path.isfile(f"{stage.directory}/verify.sh"):
        copies.copy_entry(f"{stage.directory}/verify.sh", f"{made}/verify.sh")
        os.chmod(f"{made}/verify.sh", 0o755)
    files.write_plain(f"{made}/record", record.text(_record(stage, generation)))
    leftovers.give_up(f"{LAYERS}/{id}", f"{MIGRATIONS}/{id}")
    os.rename(stage.upper, f"{LAYERS}/{id}")
    os.rename(made, f"{MIGRATIONS}/{id}")


def _record(stage: Stage, generation: int) -> record.Record:
    changes = files.read(f"{stage.directory}/changes.list")
    old, now = (set(files.lines(f"{stage.directory}/state/{name}")) for name in ("paths.old", "paths"))
    found = [octal.unescape_text(line) for line in sorted(now - old, key=os.fsencode)]
    return record.Record(
        digest=digest(stage.plan),
        generation=generation,
        base=base.identity(),
        below=below(),
        layer=hashlib.sha256(os.fsencode(changes)).hexdigest(),
        files=changes.count("\n"),
        size=trees.disk_usage(stage.upper, apparent=True),
        state=tuple(dict.fromkeys([*found, *stage.plan.state])),
        services=stage.plan.services,
        audit=audit_format.parse({key: str(value) for key, value in audit.summary(stage.directory)}),
        time=files.first_line(f"{stage.directory}/moment"),
    )


def commit(stage: Stage, ready: Callable[[], object] = lambda: None) -> None:
    """Seals the stage and makes a generation with it current: the commit point is the last thing here, after ``ready``
    was told.
    """
    generation = store.newest() + 1
    seal(stage, generation)
    store.write_generation(generation, (*store.stack(), stage.id))
    # All that the commit names has to be on the disk before it: a rename alone can outrun a file's contents.
    linux.syncfs(SYSTEM)
    ready()
    store.set_current(generation)
