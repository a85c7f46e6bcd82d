"""Adopting drift: what was changed by hand becomes a layer of its own, with a migration's record, and the running
root looks the same as before. Migrations that are made on the machine are numbered and written here.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import stat
import time

from pyinfra_overlaymig.format import changes as changes_format
from pyinfra_overlaymig.format import limits as limits_format
from pyinfra_overlaymig.format import plan as plan_format
from pyinfra_overlaymig.format.ids import next_id
from pyinfra_overlaymig.format.octal import unescape_path
from pyinfra_overlaymig.format.paths import LAYERS, LIVE, MIGRATIONS, STAGING, UPPER
from pyinfra_overlaymig.runner import catch_up, copies, drift, files, finish, seal, stage, store, topmost, trees
from pyinfra_overlaymig.runner.entries import FIXED
from pyinfra_overlaymig.runner.say import say, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyinfra_overlaymig.format.changes import Change
    from pyinfra_overlaymig.format.limits import Limits
    from pyinfra_overlaymig.format.plan import Plan

_SCRIPT = "#!/bin/sh\n# This layer was changed by hand and adopted: changes.list has it.\n"


def adopt(label: str, found: tuple[Change, ...]) -> None:
    """Seals the drift that ``found`` names, but for sockets: a program listens at this inode, and at no other."""
    sockets = {change.path for change in found if change.kind == "s"}
    for path in sorted(sockets):
        warn(f"/{path} is a socket, which is its program's: it stays as it is")
    found = tuple(change for change in found if change.path not in sockets)
    id = local_id(f"adopt_{label}")
    directory = f"{STAGING}/{id}"
    upper = f"{UPPER}/{catch_up.live()}/upper"
    files.drop(directory)
    files.make_dirs(directory, mode=0o700)
    plan, _ = write_local(directory, id, _SCRIPT)
    files.write_plain(f"{directory}/changes.list", changes_format.text(found))
    one = stage.of(id, plan)
    stage.prepare(one)
    # No script runs: state is left alone.
    for name in ("paths", "paths.old"):
        files.mark(f"{directory}/state/{name}")
    _copy(upper, one.upper, [unescape_path(change.path) for change in found])
    drift.prepare_drop(directory, [_but_what_it_holds(change) for change in found])
    say(f"adopting {len(found)} changes by hand as {id}")
    # The upper goes with the switch, and who writes to these files goes on. A leftover of this name is swept.
    written = f"{UPPER}/adopted.new"
    files.drop(written)
    trees.link_tree(f"{directory}/drift/bring", written)
    seal.commit(one)
    finish.finish(id)
    _catch_up(written, f"{LAYERS}/{id}")
    files.drop(written)


def unkeepable(found: Iterable[Change]) -> str:
    """Why these cannot become a layer, in words; empty where they can."""
    fixed = [change.path for change in found if f"{FIXED}=" in change.attributes]
    if fixed:
        return f"/{fixed[0]} was made immutable or append-only (chattr +i or +a), and a layer cannot keep that"
    return "" if any(change.kind != "s" for change in found) else "a socket is its program's, and nothing for a layer"


def _but_what_it_holds(change: Change) -> Change:
    """Of a directory, what is not adopted with it (a socket, what came since, what is no package's) is drift still."""
    return change._replace(op="M") if change.kind == "d" else change


def _copy(source: str, target: str, paths: Iterable[str]) -> None:
    """Copies: a process may still write to a file of the upper that it has open, and a layer is never written.

    Without what directories hold, and with the directories above, which would else hide those below them.
    """
    adopted = set(paths)
    wanted = {above for path in adopted for above in (path, *trees.parents(path))}
    copied: dict[tuple[int, int], str] = {}
    for path in sorted(wanted, key=os.fsencode):
        found = os.lstat(f"{source}/{path}")
        key = (found.st_dev, found.st_ino)
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(f"{target}/{path}")
        elif key in copied and not trees.is_whiteout(found):
            os.link(copied[key], f"{target}/{path}", follow_symlinks=False)
        else:
            copies.copy_entry(f"{source}/{path}", f"{target}/{path}")
            copied[key] = f"{target}/{path}"
    # Last, and the deepest first: what they hold would change their times.
    for path in sorted(wanted, key=os.fsencode, reverse=True):
        if files.plain_dir(f"{target}/{path}"):
            # What somebody did to one that only holds them is not adopted.
            given = "" if path in adopted else topmost.directory(path)
            copies.take_metadata(given or f"{source}/{path}", f"{target}/{path}", times=True, overlay=not given)


def _catch_up(before: str, layer: str) -> None:
    """What was written to a file of ``before`` after it had been copied into ``layer`` is drift again."""
    for path, found in trees.walk(layer):
        written = f"{before}/{path}"
        if not stat.S_ISREG(found.st_mode) or not os.path.isfile(written):
            continue
        if not filecmp.cmp(written, f"{layer}/{path}", shallow=False):
            try:
                with open(written, "rb") as there, open(f"{LIVE}/{path}", "r+b") as here:
                    copies.copy_data(there.fileno(), here.fileno())
                    here.truncate(os.fstat(there.fileno()).st_size)
            except FileNotFoundError:
                warn(f"/{path} is not carried over")


def write_local(directory: str, id: str, script: str, *, state_auto: bool = False) -> tuple[Plan, Limits]:
    """A migration that is made on this machine, in ``directory``: its script, its plan and its limits."""
    digest = hashlib.sha256(script.encode()).hexdigest()
    member = plan_format.Member("0755", digest, "install.sh")
    plan = plan_format.Plan(id, local=True, state_auto=state_auto, members=(member,))
    limits = limits_format.Limits()
    files.write_plain(f"{directory}/install.sh", script, 0o755)
    files.write_plain(f"{directory}/plan", plan_format.text(plan))
    files.write_plain(f"{directory}/limits", limits_format.text(limits))
    return plan, limits


def local_id(label: str) -> str:
    """The next free id of today, or of the newest migration's day if that is later.

    The order of the others does not count it, but no two may have one number, those that were rolled back neither.
    """
    return next_id(label, [*store.stack(), *files.names(MIGRATIONS)], time.time())
